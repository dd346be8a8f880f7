"""The two deployments as running processes: what the end-to-end tests drive over HTTP."""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from infra.services.postgres import make_database
from infra.services.service import Service
from tests.e2e.processes import KEY, FirnProcess, free_ports, index_ports


@dataclass
class Deployment:
    """A served FirnDB: its control plane's URL, its process, and clients for it."""

    url: str
    process: FirnProcess
    folder: Path

    def control(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Api-Key": KEY}, timeout=60)

    def create_index(self, name: str, dimension: int, metric: str = "cosine") -> str:
        """Makes the index; returns its host (a URL)."""
        spec = {"serverless": {"cloud": "aws", "region": "us-east-1"}}
        body = {"name": name, "dimension": dimension, "metric": metric, "spec": spec}
        with self.control() as client:
            host: str = client.post("/indexes", json=body).raise_for_status().json()["host"]
        return host

    def metric_urls(self) -> list[str]:
        """Where every process of the deployment shows its metrics."""
        names = ("FIRNDB_BUILDER_PORT", "FIRNDB_FRESHNESS_PORT")
        ports = [self.process.environment[n] for n in names if n in self.process.environment]
        return [self.url, *(f"http://127.0.0.1:{port}" for port in ports)]

    def data_client(self, host: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=host, headers={"Api-Key": KEY}, timeout=60)

    def restart(self) -> None:
        self.process.start()
        self.process.wait_until_ready()


def fresh_settings(kafka: Service, s3: Service, postgres: Service) -> dict[str, str]:
    """FIRNDB_* settings of a deployment of its own: topics, objects and database nobody else has.

    Few partitions: each is an assignment, a registry and a take-over at every start.
    """
    mark = uuid.uuid4().hex[:12]
    objects = s3.settings
    return {
        **kafka.settings,
        **objects,
        "FIRNDB_KAFKA_PREFIX": f"firn-{mark}",
        "FIRNDB_KAFKA_PARTITIONS": "4",
        "FIRNDB_OBJECT_STORE": f"{objects['FIRNDB_OBJECT_STORE']}/{mark}",
        "FIRNDB_CATALOG": make_database(postgres.settings["FIRNDB_CATALOG"], f"firn_{mark}"),
    }


@contextmanager
def embedded(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Deployment]:
    """`firndb serve` on a folder of its own, flushing often so that files are in play.

    With TLS in `environment`, SSL_CERT_FILE must name whom to trust.
    """
    port = free_ports(1)[0]
    arguments = ["serve", "--data", str(folder / "data"), "--port", str(port)]
    arguments += ["--index-ports", index_ports(), "--api-key", KEY]
    settings = {"FIRNDB_FLUSH_AGE_S": "0.3", "FIRNDB_PARTITIONS": "4", **(environment or {})}
    yield from _served(folder, port, arguments, settings)


@contextmanager
def distributed(folder: Path, services: Mapping[str, str]) -> Iterator[Deployment]:
    """`firndb serve` with Kafka, S3 and PostgreSQL: every role a supervised process.

    `services` are the FIRNDB_* settings that reach them.
    """
    port, fresh, builder = free_ports(3)
    arguments = ["serve", "--data", str(folder / "data"), "--port", str(port)]
    arguments += ["--index-ports", index_ports(), "--api-key", KEY]
    settings = {
        "FIRNDB_FLUSH_AGE_S": "0.5",
        "FIRNDB_FRESHNESS_PORT": str(fresh),
        "FIRNDB_BUILDER_PORT": str(builder),
        "FIRNDB_KAFKA_PARTITIONS": "4",
        **services,
    }
    yield from _served(folder, port, arguments, settings)


@dataclass
class Roles:
    """Every role a process of its own, as on a cluster; each has a folder of its own."""

    deployment: Deployment
    processes: Mapping[str, FirnProcess]

    def restart(self, role: str) -> None:
        self.processes[role].start()
        self.processes[role].wait_until_ready()


@contextmanager
def roles(folder: Path, services: Mapping[str, str]) -> Iterator[Roles]:
    """`firndb api`, `firndb builder` and `firndb freshness`, ready."""
    ports = dict(zip(("api", "builder", "freshness"), free_ports(3), strict=True))
    processes: dict[str, FirnProcess] = {}
    for role, port in ports.items():
        environment = {
            "FIRNDB_FLUSH_AGE_S": "0.3",
            "FIRNDB_API_KEY": KEY,
            "FIRNDB_INDEX_PORTS": index_ports(),
            "FIRNDB_DATA": str(folder / role),
            "FIRNDB_PORT": str(ports["api"]),
            "FIRNDB_BUILDER_PORT": str(ports["builder"]),
            "FIRNDB_FRESHNESS_PORT": str(ports["freshness"]),
            **services,
        }
        ready = f"http://127.0.0.1:{port}/readyz"
        processes[role] = FirnProcess([role], environment, folder / f"{role}.log", ready)
    try:
        for process in processes.values():
            process.start()
        for process in processes.values():
            process.wait_until_ready()
        url = f"http://127.0.0.1:{ports['api']}"
        yield Roles(Deployment(url, processes["api"], folder), processes)
    finally:
        for process in processes.values():
            process.clean_up()


def _served(
    folder: Path, port: int, arguments: list[str], settings: Mapping[str, str]
) -> Iterator[Deployment]:
    scheme = "https" if "FIRNDB_TLS_CERT" in settings else "http"
    url = f"{scheme}://127.0.0.1:{port}"
    process = FirnProcess(arguments, settings, folder / "firndb.log", f"{url}/readyz")
    process.start()
    try:
        process.wait_until_ready()
        yield Deployment(url=url, process=process, folder=folder)
    finally:
        process.clean_up()
