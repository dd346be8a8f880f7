"""At stake: reads that ask freshness more than once, and what happens to it in between."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np

from core.indexes import IndexInfo, IndexState, VectorType
from core.metric import Metric
from core.operations import DeleteAll, Operation, Upsert
from freshness.protocol import (
    FreshAnswer,
    FreshRequest,
    FreshStatus,
    FreshUsage,
    NamespacesAnswer,
    NamespacesRequest,
)
from query.model import Consistency, QueryRequest, ReadOptions
from query.service import QuerySettings
from tests.query.world import World, record
from tests.storage.memory_store import MemoryStore

DENSE = IndexInfo("i", "p", "name", 2, Metric.EUCLIDEAN, VectorType.DENSE, IndexState.READY)
EVENTUAL = ReadOptions(Consistency.EVENTUAL)


class Between:
    """Freshness, and something that happens once, after the first answer."""

    def __init__(self) -> None:
        self.world: World | None = None
        self.happens: Callable[[], Awaitable[object]] | None = None
        self.away = False

    async def read(self, request: FreshRequest) -> FreshAnswer:
        assert self.world is not None
        if self.away:
            return FreshAnswer(FreshStatus.NOT_READY)
        answer = await self.world.fresh.read(request)
        await self._once()
        return answer

    async def namespaces(self, request: NamespacesRequest) -> NamespacesAnswer:
        assert self.world is not None
        answer = await self.world.fresh.namespaces(request)
        await self._once()
        return answer

    async def usage(self, partition: int) -> FreshUsage:
        raise NotImplementedError

    async def leave(self) -> None:
        self.away = True

    async def _once(self) -> None:
        happens, self.happens = self.happens, None
        if happens is not None:
            await happens()


async def started(folder: Path, between: Between, touched_max: int) -> World:
    settings = QuerySettings(deadline_s=5.0, touched_max=touched_max)
    world = World(DENSE, MemoryStore(), folder, query=settings, reader=between)
    between.world = await world.start()
    return world


def upsert(at: float, *names: str) -> Operation:
    return Upsert(tuple(record(name, [at, float(n)]) for n, name in enumerate(names)))


async def test_versions_that_were_replaced_before_all_was_deleted_do_not_come_back(
    tmp_path: Path,
) -> None:
    """Candidates are checked by id; by then freshness has forgotten that they were written anew."""
    between = Between()
    world = await started(tmp_path, between, touched_max=1)
    await world.write(upsert(1.0, "a", "b", "c"))
    await world.flush()
    replaced = await world.write(upsert(9.0, "a", "b", "c"))
    between.happens = lambda: world.write(DeleteAll())
    vector = np.array([1.0, 0.0], dtype=np.float32)
    answer = await world.service.query(DENSE, "n", QueryRequest(1, vector))
    assert all(match.lsn >= replaced for match in answer.matches)
    await world.stop()


async def test_counts_say_what_they_have_seen_when_freshness_goes_away_between(
    tmp_path: Path,
) -> None:
    between = Between()
    world = await started(tmp_path, between, touched_max=100)
    await world.write(upsert(1.0, "a"))
    manifest = await world.flush()
    await world.write(upsert(1.0, "b"))
    partition = world.partition()
    assert (await world.service.stats(DENSE, EVENTUAL)).lsns[partition] > manifest.indexed_lsn
    for read in (world.service.stats(DENSE), world.service.namespaces(DENSE)):
        between.away, between.happens = False, between.leave
        answer = await read
        assert answer.freshness.stale, "the write of b is not in it"
    between.away, between.happens = False, between.leave
    stats = await world.service.stats(DENSE, EVENTUAL)
    assert (stats.total, stats.lsns[partition]) == (1, manifest.indexed_lsn)
    await world.stop()
