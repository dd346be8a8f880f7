"""The two deployments as the builder's benchmark needs them: a log to write to, processes to watch.

HTTP would be the bottleneck, so what is measured here is written with the log writer, as the
gateway does behind its validation. embedded: everything but HTTP in this process, which also makes
the load. kafka: the roles as processes of their own; this process is a producer beside them.
"""

import os
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.run import services
from bench.watch import Usage, samples, usage
from cli.runtime.embedded import open_engine
from cli.runtime.folder import owned
from cli.runtime.parts import Parts, open_parts
from core.object_store import ObjectStore
from infra.objects.open import open_store
from infra.settings import PREFIX, Settings
from tests.e2e.deployments import embedded, roles

INDEX = "bench"
DIMENSION = 384
# As a deployment has it by default; fewer partitions, for there is one namespace.
USUAL = {"FIRNDB_FLUSH_AGE_S": str(Settings.model_fields["flush_age_s"].default)}
LOAD = "load"


@dataclass(frozen=True, slots=True)
class Site:
    """looking: the store, read without being counted. texts: what each role shows on /metrics.
    host: where the index is queried, "" while nobody serves it.
    """

    parts: Parts
    index_id: str
    host: str
    looking: ObjectStore
    pids: Mapping[str, int]
    texts: Callable[[], Mapping[str, str]]

    def usage(self) -> dict[str, Usage]:
        return {role: usage(pid) for role, pid in self.pids.items()}

    def metrics(self) -> dict[str, dict[str, float]]:
        return {role: samples(text) for role, text in self.texts().items()}


@asynccontextmanager
async def embedded_site(folder: Path) -> AsyncIterator[Site]:
    with embedded(folder, USUAL) as served:
        served.create_index(INDEX, DIMENSION)
        served.process.stop()
    settings = Settings.load({"data": folder / "data", "partitions": 4})
    with owned(settings.data):
        async with open_engine(settings) as engine:
            parts = engine.parts
            yield Site(
                parts=parts,
                index_id=await _index_id(parts),
                host="",
                looking=open_store(settings.object_store_url),
                pids={"embedded": os.getpid()},
                texts=lambda: {"embedded": parts.metrics.text().decode()},
            )


@asynccontextmanager
async def kafka_site(folder: Path) -> AsyncIterator[Site]:
    with services(folder / "services") as reached:
        settings = {**reached, **USUAL, "FIRNDB_KAFKA_PARTITIONS": "4"}
        with roles(folder, settings) as running:
            host = running.deployment.create_index(INDEX, DIMENSION)
            fields = {name.removeprefix(PREFIX).lower(): v for name, v in settings.items()}
            own = Settings.load({**fields, "data": folder / LOAD})
            async with open_parts(own) as parts:
                pids = {role: _pid(one.process) for role, one in running.processes.items()}
                ready = {role: one.ready_url for role, one in running.processes.items()}
                yield Site(
                    parts=parts,
                    index_id=await _index_id(parts),
                    host=host,
                    looking=parts.store,
                    pids={**pids, LOAD: os.getpid()},
                    texts=lambda: {
                        role: httpx.get(url.replace("/readyz", "/metrics"), timeout=60).text
                        for role, url in ready.items()
                    },
                )


@asynccontextmanager
async def served_again(folder: Path) -> AsyncIterator[tuple[str, int]]:
    """The embedded folder behind HTTP: the index's URL, and the server's process id."""
    with embedded(folder, USUAL) as served, served.control() as control:
        host: str = control.get(f"/indexes/{INDEX}").raise_for_status().json()["host"]
        yield host, _pid(served.process.process)


async def _index_id(parts: Parts) -> str:
    (found,) = await parts.catalog.living_indexes()
    return found.info.index_id


def _pid(process: subprocess.Popen[bytes] | None) -> int:
    assert process is not None, "it was started"
    return process.pid
