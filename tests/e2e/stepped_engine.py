"""An embedded engine in this process, with an event loop of its own, to be stepped through."""

import asyncio
import tempfile
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from builder.compaction.run_policy import RunLimits
from builder.policy import CompactionLimits, FlushLimits
from builder.settings import BuilderSettings
from cli.runtime.consumers import Bounds
from cli.runtime.embedded import Engine, open_engine
from core.errors import FailedPrecondition
from core.indexes import IndexInfo, VectorType
from core.log import LogRecord
from core.metric import Metric
from freshness.sweep import SweepSettings
from infra.catalog.model import NewIndex
from infra.settings import Settings
from query.service import QuerySettings
from storage.commit import ManifestStore
from storage.manifest import Manifest

T = TypeVar("T")

# Rows of 16 bytes: clustered beyond 40 rows, clusters of about 20; three deltas are many.
TINY = BuilderSettings(
    flush=FlushLimits(records=60, age_s=3600.0, filter_operations=6),
    compaction=CompactionLimits(
        cluster_bytes=320,
        split_bytes=640,
        deltas=3,
        dead_rows_min=4,
        sparse_file_rows=16,
        job_bytes=1600,
        id_runs=RunLimits(overlap=3, object_bytes=400, garbage_min=10, bare_rows=8),
    ),
    inline_bytes=2_000,  # a dozen rows
    tick_s=0.01,
    registry_s=0.05,
)
# Memory is forgotten when the test says so, and then at once: ages are whole seconds, rounded up.
FORGETFUL = SweepSettings(every_s=3600.0, grace_s=-1.0)
# No flag of a slow machine: an answer that is stale is wrong.
DEADLINE_S = 25.0


class SteppedEngine:
    """Nothing happens but during a call; then everything does, the work behind included."""

    def __init__(
        self,
        dimension: int | None,
        metric: Metric,
        touched_max: int,
        building: BuilderSettings = TINY,
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._folder = tempfile.TemporaryDirectory(prefix="firndb-model-")
        self._bounds = Bounds(building, FORGETFUL, QuerySettings(DEADLINE_S, touched_max))
        self._context: AbstractAsyncContextManager[Engine] | None = None
        self.run(self._open())
        self.index: IndexInfo = self.run(self._create_index(dimension, metric))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(asyncio.wait_for(work, 120))

    def close(self) -> list[LogRecord]:
        """Returns the dead letters."""
        try:
            dead = self.run(self.now.parts.dead.read(0, 0))
            self.run(self._close())
        finally:
            self._loop.close()
            self._folder.cleanup()
        return list(dead)

    def restart(self, building: BuilderSettings | None = None) -> None:
        """`building`: for the next life."""
        self.run(self._close())
        if building is not None:
            self._bounds = replace(self._bounds, building=building)
        self.run(self._open())

    async def flush(self) -> None:
        """All that is written, not only what the builder happens to have read."""
        for partition in range(self.now.parts.partitions):
            end = await self.now.parts.wal.end_offset(partition)
            while self._applied(partition) < end:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        await self.now.builder.flush()

    def manifest(self, namespace: str) -> Manifest | None:
        manifests = ManifestStore(self.now.parts.store)
        return self.run(manifests.newest(self.index.index_id, namespace))

    async def _open(self) -> None:
        chosen = Settings.load({"data": Path(self._folder.name), "partitions": 2})
        self._context = open_engine(chosen, self._bounds)
        self.now: Engine = await self._context.__aenter__()
        while self.now.not_ready() is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    async def _close(self) -> None:
        if self._context is not None:
            await self._context.__aexit__(None, None, None)
        self._context = None

    async def _create_index(self, dimension: int | None, metric: Metric) -> IndexInfo:
        catalog = self.now.parts.catalog
        project = await catalog.ensure_project()
        vector_type = VectorType.SPARSE if dimension is None else VectorType.DENSE
        new = NewIndex("model", dimension, metric, vector_type, {}, False, {})
        return (await catalog.create_index(project.project_id, new, None)).info

    def _applied(self, partition: int) -> int:
        """-1 right after the start, when the builder still takes the partition over."""
        try:
            return self.now.builder.applied(partition)
        except FailedPrecondition:
            return -1
