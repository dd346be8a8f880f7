"""Backups of a whole index over HTTP, on both deployments: taken, restored after everything has
changed and the index is gone, deleted; and a `kill -9` in the middle of each job.

At stake: a restored index that lacks an acknowledged record, has one twice, or loses its files with
the index or the backup that it was made from.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e import parquet_files, test_imports
from tests.e2e.commands import told
from tests.e2e.deployments import Deployment, distributed, embedded, roles
from tests.e2e.ledger import DIMENSION, values
from tests.e2e.processes import KEY
from tests.e2e.test_official_clients import VERSIONS, run_suite

# What nothing uses any more goes within seconds.
IMPATIENT = {
    "FIRNDB_GC_GRACE_S": "1",
    "FIRNDB_GC_PERIOD_S": "0.5",
    "FIRNDB_PARTITIONS": "4",
}
# Of 0.1 s each.
POLLS = 900
PODS = {"pod": {"environment": "us-east-1-aws", "pod_type": "p1.x1"}}
SERVERLESS = {"serverless": {"cloud": "aws", "region": "us-east-1"}}

Contents = dict[str, dict[str, tuple[list[float], dict[str, Any]]]]


class Control:
    """The control plane, and records of whole indexes."""

    def __init__(self, url: str) -> None:
        waiting = httpx.HTTPTransport(retries=6)
        headers = {"Api-Key": KEY, "X-Pinecone-Api-Version": "2025-10"}
        self.http = httpx.Client(base_url=url, headers=headers, timeout=60, transport=waiting)

    def ask(self, method: str, path: str, **options: Any) -> Any:
        answer = self.http.request(method, path, **options)
        assert answer.is_success, f"{path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def create(self, name: str, spec: Mapping[str, Any] = SERVERLESS) -> str:
        """The host."""
        body = {"name": name, "dimension": DIMENSION, "metric": "cosine", "spec": spec}
        host: str = self.ask("POST", "/indexes", json=body)["host"]
        return host

    def host(self, name: str) -> str:
        host: str = self.ask("GET", f"/indexes/{name}")["host"]
        return host

    def backed_up(self, index: str) -> dict[str, Any]:
        made = self.ask("POST", f"/indexes/{index}/backups", json={"name": "by hand"})
        return self.until(f"/backups/{made['backup_id']}", "Ready")

    def restored(self, backup_id: str, name: str) -> str:
        """The job's id, once it is completed."""
        body = {"name": name}
        job: str = self.ask("POST", f"/backups/{backup_id}/create-index", json=body)[
            "restore_job_id"
        ]
        self.until(f"/restore-jobs/{job}", "Completed")
        return job

    def until(self, path: str, status: str) -> dict[str, Any]:
        for _ in range(POLLS):
            found: dict[str, Any] = self.ask("GET", path)
            if found["status"] == status:
                return found
            assert found["status"] not in ("InitializationFailed", "Failed", "Cancelled"), found
            time.sleep(0.1)
        raise AssertionError(f"{path} is {found}")

    def until_gone(self, path: str) -> None:
        for _ in range(POLLS):
            if self.http.get(path).status_code == 404:
                return
            time.sleep(0.1)
        raise AssertionError(f"{path} is still there")

    def upsert(self, host: str, namespace: str, names: list[str], seed: int = 0) -> None:
        vectors = [
            {"id": n, "values": values(n, seed), "metadata": {"seed": seed, "name": n}}
            for n in names
        ]
        self.ask(
            "POST", f"{host}/vectors/upsert", json={"namespace": namespace, "vectors": vectors}
        )

    def contents(self, host: str) -> Contents:
        """Every record of every namespace, as it is listed and fetched."""
        found: Contents = {}
        for namespace in self._pages(f"{host}/namespaces", "namespaces", {}):
            name = namespace["name"]
            listed = self._pages(f"{host}/vectors/list", "vectors", {"namespace": name})
            ids = [one["id"] for one in listed]
            assert len(ids) == len(set(ids)) == int(namespace["record_count"]), name
            records: dict[str, tuple[list[float], dict[str, Any]]] = {}
            for start in range(0, len(ids), 100):
                asked = {"ids": ids[start : start + 100], "namespace": name}
                vectors = self.ask("GET", f"{host}/vectors/fetch", params=asked)["vectors"]
                records |= {i: (v["values"], v["metadata"]) for i, v in vectors.items()}
            assert records.keys() == set(ids), name
            found[name] = records
        stats = self.ask("POST", f"{host}/describe_index_stats", json={})
        assert stats["totalVectorCount"] == sum(map(len, found.values()))
        return found

    def _pages(self, url: str, key: str, asked: dict[str, str]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        token: dict[str, str] = {}
        while True:
            page = self.ask("GET", url, params={**asked, **token})
            rows += page[key]
            if "pagination" not in page:
                return rows
            token = {"paginationToken": page["pagination"]["next"]}


@contextmanager
def control_of(deployment: Deployment) -> Iterator[Control]:
    control = Control(deployment.url)
    try:
        yield control
    finally:
        control.http.close()


def fill(control: Control, host: str, namespaces: int) -> Contents:
    """Records of all kinds of lives: replaced, patched, deleted, and a namespace without any."""
    for number in range(namespaces):
        name = "" if number == 0 else f"tenant-{number}"
        control.upsert(host, name, [f"r{n}" for n in range(30)])
        control.upsert(host, name, [f"r{n}" for n in range(5)], seed=number + 1)
        body = {"namespace": name, "ids": ["r6", "r7"]}
        control.ask("POST", f"{host}/vectors/delete", json=body)
    change = {"namespace": "tenant-1", "id": "r9", "setMetadata": {"patched": True}}
    control.ask("POST", f"{host}/vectors/update", json=change)
    control.ask("POST", f"{host}/namespaces", json={"name": "empty"})
    before = control.contents(host)
    assert len(before) == namespaces + 1
    assert before["tenant-1"]["r9"][1]["patched"] is True
    return before


def whole_story(control: Control, collect: list[str], environment: Mapping[str, str]) -> None:
    """`collect`: how `firndb gc` finds the deployment."""
    host = control.create("films")
    before = fill(control, host, 6)
    backup = control.backed_up("films")
    counts = (backup["namespace_count"], backup["record_count"])
    assert counts == (len(before), sum(map(len, before.values())))
    assert backup["size_bytes"] > 0
    control.upsert(host, "tenant-1", ["r9", "later"], seed=99)
    control.upsert(host, "tenant-new", ["x"])
    control.ask("DELETE", f"{host}/namespaces/tenant-2")
    control.ask("DELETE", "/indexes/films")
    told("gc", *collect, environment=environment)
    job = control.restored(backup["backup_id"], "again")
    again = control.host("again")
    assert control.contents(again) == before, "whatever has happened since"
    assert control.ask("GET", f"/restore-jobs/{job}")["percent_complete"] == 100
    control.restored(backup["backup_id"], "twice")
    control.upsert(again, "tenant-3", ["own"], seed=5)
    control.ask("DELETE", f"/backups/{backup['backup_id']}")
    control.until_gone(f"/backups/{backup['backup_id']}")
    told("gc", *collect, environment=environment)
    assert control.contents(control.host("twice")) == before, "its files are its own concern now"
    assert control.contents(again)["tenant-3"].keys() == {*before["tenant-3"], "own"}
    second = control.backed_up("again")
    control.ask("DELETE", "/indexes/again")
    told("gc", *collect, environment=environment)
    control.restored(second["backup_id"], "third")
    assert control.contents(control.host("third")).keys() == before.keys(), "of a restored index"


def collection_story(control: Control) -> None:
    host = control.create("pods", PODS)
    before = fill(control, host, 3)
    made = control.ask("POST", "/collections", json={"name": "frozen", "source": "pods"})
    assert made["status"] == "Initializing"
    ready = control.until("/collections/frozen", "Ready")
    assert ready["vector_count"] == sum(map(len, before.values()))
    assert (ready["dimension"], ready["environment"]) == (DIMENSION, "us-east-1-aws")
    spec = {"pod": {**PODS["pod"], "source_collection": "frozen"}}
    host = control.create("thawed", spec)
    for _ in range(POLLS):
        shown = control.ask("GET", "/indexes/thawed")
        if shown["status"]["ready"]:
            break
        answer = control.http.post(f"{host}/describe_index_stats", json={})
        assert answer.status_code in (200, 503), "not filled yet, or just now"
        time.sleep(0.05)
    assert shown["spec"]["pod"]["source_collection"] == "frozen"
    assert control.contents(host) == before
    control.ask("DELETE", "/collections/frozen")
    control.until_gone("/collections/frozen")


@pytest.mark.long
@pytest.mark.timeout(300)
def test_embedded(tmp_path: Path) -> None:
    with embedded(tmp_path, IMPATIENT) as deployment, control_of(deployment) as control:
        whole_story(control, ["--data", str(tmp_path / "data")], IMPATIENT)
        collection_story(control)


@pytest.mark.long
@pytest.mark.timeout(400)
def test_on_kafka(tmp_path: Path, service_settings: Mapping[str, str]) -> None:
    settings = {**service_settings, **IMPATIENT}
    environment = {**settings, "FIRNDB_DATA": str(tmp_path / "command")}
    with distributed(tmp_path, settings) as deployment, control_of(deployment) as control:
        whole_story(control, [], environment)
        collection_story(control)


def kill_in_a_job(
    deployment: Deployment, control: Control, path: str, after_s: float
) -> dict[str, Any]:
    """As the resource was when somebody last saw it before the kill."""
    time.sleep(after_s)
    seen: dict[str, Any] = control.ask("GET", path)
    deployment.process.kill()
    return seen


def job_of(control: Control, index: str) -> dict[str, Any] | None:
    """The restore job that fills an index."""
    jobs = control.ask("GET", "/restore-jobs")["data"]
    return next((job for job in jobs if job["target_index_name"] == index), None)


def killed_restore(
    deployment: Deployment, control: Control, path: str, name: str, after_s: float
) -> str:
    """Its status before the kill, which comes while the client still waits for its answer."""

    def begin() -> None:
        with suppress(httpx.TransportError):
            own.post(f"{path}/create-index", json={"name": name})

    own = httpx.Client(base_url=deployment.url, headers={"Api-Key": KEY}, timeout=20)
    own.get("/backups").raise_for_status()
    asking = threading.Thread(target=begin)
    asking.start()
    time.sleep(after_s)
    job = job_of(control, name)
    deployment.process.kill()
    asking.join()
    own.close()
    return "not there" if job is None else job["status"]


def kills(tmp_path: Path, namespaces: int, delays: list[float]) -> int:
    """For each delay a kill while a backup is taken and one while it is restored, garbage collected
    in between; what comes out is exact. How many hit a job that was not done.
    """
    hits = 0
    data = ["--data", str(tmp_path / "data")]
    with embedded(tmp_path, IMPATIENT) as deployment, control_of(deployment) as control:
        before = fill(control, control.create("films"), namespaces)
        for number, delay in enumerate(delays):
            made = control.ask("POST", "/indexes/films/backups", json={})
            path = f"/backups/{made['backup_id']}"
            hits += kill_in_a_job(deployment, control, path, delay)["status"] == "Initializing"
            told("gc", *data, environment=IMPATIENT)
            deployment.restart()
            assert control.until(path, "Ready")["namespace_count"] == len(before)
            name = f"again-{number}"
            hits += killed_restore(deployment, control, path, name, delay) == "Pending"
            told("gc", *data, environment=IMPATIENT)
            deployment.restart()
            if job_of(control, name) is None:
                control.ask("POST", f"{path}/create-index", json={"name": name})
            job = job_of(control, name)
            assert job is not None
            job_path = f"/restore-jobs/{job['restore_job_id']}"
            control.until(job_path, "Completed")
            assert control.contents(control.host(name)) == before
            control.ask("DELETE", path)
            control.until_gone(path)
        told("gc", *data, environment=IMPATIENT)
        assert told("snapshot", "list", "films", *data, environment=IMPATIENT) == [], (
            "none is left of any backup"
        )
        for number in range(len(delays)):
            assert control.contents(control.host(f"again-{number}")) == before
    return hits


@pytest.mark.timeout(300)
def test_a_kill_in_the_middle_of_both_jobs(tmp_path: Path) -> None:
    assert kills(tmp_path, 20, [0.1]) > 0


@pytest.mark.long
@pytest.mark.timeout(900)
def test_kills_at_many_moments(tmp_path: Path) -> None:
    # Those that come after the end show nothing; how many do hangs on the machine.
    assert kills(tmp_path, 60, [0.0, 0.05, 0.1, 0.2, 0.3, 0.6, 1.0, 2.0]) > 3


@pytest.mark.long
@pytest.mark.timeout(300)
def test_an_index_of_imported_files(tmp_path: Path) -> None:
    """Its files lie under none of its own prefixes, and stay as its backup does."""
    (tmp_path / "parquet").mkdir()
    files = test_imports.make_files(tmp_path / "parquet", 1000)
    locations, put = test_imports.local(tmp_path)
    settings = {**IMPATIENT, **locations}
    data = ["--data", str(tmp_path / "data")]
    with embedded(tmp_path, settings) as deployment, control_of(deployment) as control:
        host = deployment.create_index("imported", parquet_files.DIMENSION)
        started = control.ask("POST", f"{host}/bulk/imports", json={"uri": put(files)})
        control.until(f"{host}/bulk/imports/{started['id']}", "Completed")
        before = control.contents(host)
        assert sum(map(len, before.values())) == 1010
        backup = control.backed_up("imported")
        control.ask("DELETE", "/indexes/imported")
        for _ in range(2):
            time.sleep(2)  # all of the grace time, and two rounds
            told("gc", *data, environment=settings)
        control.restored(backup["backup_id"], "again")
        assert control.contents(control.host("again")) == before


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_kill_of_the_api_role(tmp_path: Path, service_settings: Mapping[str, str]) -> None:
    """On Kafka the next process waits until the lease of the dead one lapses."""
    with roles(tmp_path, service_settings) as running, control_of(running.deployment) as control:
        before = fill(control, control.create("films"), 20)
        made = control.ask("POST", "/indexes/films/backups", json={})
        time.sleep(0.3)
        running.processes["api"].kill()
        running.restart("api")
        path = f"/backups/{made['backup_id']}"
        assert control.until(path, "Ready")["namespace_count"] == len(before)
        control.ask("DELETE", "/indexes/films")
        job = control.ask("POST", f"{path}/create-index", json={"name": "again"})
        running.processes["api"].kill()
        running.restart("api")
        control.until(f"/restore-jobs/{job['restore_job_id']}", "Completed")
        assert control.contents(control.host("again")) == before


@pytest.mark.timeout(300)
@pytest.mark.parametrize("version", VERSIONS)
def test_official_clients(server: Deployment, version: str) -> None:
    run_suite(version, server, Path(__file__).with_name("client_backups.py"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with embedded(tmp_path_factory.mktemp("clients")) as deployment:
        yield deployment
