"""At stake: with freshness in another process, over HTTP, answers are the same as in one process,
and partitions that move are followed.
"""

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.errors import DeadlineExceeded
from core.indexes import IndexInfo, IndexState, VectorType
from core.metric import Metric
from core.operations import DeleteByFilter, UpdateByFilter, UpdateById, Upsert
from freshness.client import ClientSettings, RemoteFreshReader
from freshness.protocol import FreshRequest, FreshStatus, NamespacesRequest, Selection
from query.model import Consistency, QueryRequest, ReadOptions
from query.service import QuerySettings
from tests.freshness.serving import Board, served
from tests.query.stories import FILTERS, Story
from tests.query.test_model import compare_by_filter, compare_names, compare_search
from tests.query.world import World, record, terms
from tests.storage.memory_store import MemoryStore

HYBRID = IndexInfo("i", "p", "name", 2, Metric.DOTPRODUCT, VectorType.DENSE, IndexState.READY)
VECTOR = np.array([1.0, 2.0], dtype=np.float32)


@pytest.mark.parametrize("seed", range(5))
async def test_answers_over_http_agree_with_a_dict(seed: int, tmp_path: Path) -> None:
    board = Board()
    reader = RemoteFreshReader(board)
    query = QuerySettings(deadline_s=5.0, touched_max=(1, 1000)[seed % 2])
    world = World(HYBRID, MemoryStore(), tmp_path, seed=seed, query=query, reader=reader)
    await world.start()
    story = Story(seed, sparse=True)
    try:
        async with served(world.fresh) as board.url:
            for _ in range(25):
                await story.step(world, restarts=False)
                await compare_search(world, story)
                await compare_names(world)
                await compare_by_filter(world, story)
    finally:
        await reader.close()
        await world.stop()


async def test_every_part_of_an_answer_survives_the_wire(tmp_path: Path) -> None:
    world = await World(HYBRID, MemoryStore(), tmp_path).start()
    await world.write(Upsert((record("base", [1, 1], {3: 1.5}, g=1.0),)))
    await world.flush()
    await world.checkpoint(world.partition())
    await world.forget()
    await world.write(
        UpdateById("base", VECTOR, terms({1: 2.0}), {"tags": ["a", "b"], "on": True}),
        UpdateByFilter(FILTERS[0], {"g": 2.0}),
        DeleteByFilter(FILTERS[2]),
        Upsert((record("new", [2, 1], None, g=1.0), record("new2", [2, 2]))),
    )
    reader = RemoteFreshReader(Board())
    request = FreshRequest(
        index_id="i",
        namespace="n",
        partition=world.partition(),
        metric=Metric.DOTPRODUCT,
        dimension=2,
        manifest_lsn=0,
        ids=("new", "gone", "base"),
        touched_max=10,
        patches_of_all=True,
        selection=Selection(FILTERS[3], after="a", limit=1, bytes_max=1),
    )
    try:
        async with served(world.fresh) as url:
            reader = RemoteFreshReader(Board(url))
            near, far = await world.fresh.read(request), await reader.read(request)
            assert far.touched is not None
            assert near.touched is not None
            assert far.touched.tolist() == near.touched.tolist()
            assert far.current.keys() == near.current.keys() == {"new"}
            [patch], [own] = far.patches["base"], near.patches["base"]
            assert isinstance(patch.operation, UpdateById)
            assert isinstance(own.operation, UpdateById)
            assert patch.operation.values is not None
            assert patch.operation.values.tolist() == [1.0, 2.0]
            assert patch.operation.sparse is not None
            assert patch.operation.sparse.indices.tolist() == [1]
            assert patch.operation.set_metadata == own.operation.set_metadata
            assert far.filter_ops == near.filter_ops
            assert [s.record.id for s in far.selected.records] == ["new"]
            assert (far.selected.count, far.selected.more) == (2, True)
            assert near.selected.count == 2
            assert (far.status, far.applied_lsn, far.live) == (near.status, 1, 2)
            names = await reader.namespaces(NamespacesRequest("i", world.partition()))
            assert names == await world.fresh.namespaces(NamespacesRequest("i", world.partition()))
            usage = await reader.usage(world.partition())
            assert usage == await world.fresh.usage(world.partition())
    finally:
        await reader.close()
        await world.stop()


async def test_a_partition_that_moved_is_found_again(tmp_path: Path) -> None:
    old = await World(HYBRID, MemoryStore(), tmp_path / "old").start()
    new = await World(HYBRID, MemoryStore(), tmp_path / "new").start()
    board = Board()
    reader = RemoteFreshReader(board, ClientSettings(retry_s=0.01))
    request = NamespacesRequest("i", 0, deadline_s=5.0)
    try:
        async with served(old.fresh) as board.url, served(new.fresh) as successor:
            assert (await reader.namespaces(request)).status is FreshStatus.OK
            await old.fresh.revoke([0], lost=False)
            asking = asyncio.create_task(reader.namespaces(request))
            await board.asked_again.wait()
            assert not asking.done(), "it looks again instead of giving up"
            board.url = successor
            assert (await asking).status is FreshStatus.OK
            hopeless = await reader.namespaces(replace(request, partition=9, deadline_s=0.0))
            assert hopeless.status is FreshStatus.NOT_OWNER
    finally:
        await reader.close()
        await old.stop()
        await new.stop()


async def test_without_a_worker_reads_say_so_or_refuse(tmp_path: Path) -> None:
    board = Board("http://127.0.0.1:9")  # nobody listens on the discard port
    reader = RemoteFreshReader(board, ClientSettings(retry_s=0.01))
    settings = QuerySettings(deadline_s=0.05)
    world = World(HYBRID, MemoryStore(), tmp_path, query=settings, reader=reader)
    await world.start()
    try:
        await world.write(Upsert((record("a", [1, 1]),)))
        await world.flush()
        seen = await world.service.query(HYBRID, "n", QueryRequest(1, VECTOR))
        assert [m.id for m in seen.matches] == ["a"]
        assert not seen.freshness.stale, "the manifest covers all that was written"
        await world.write(Upsert((record("b", [1, 1]),)))
        seen = await world.service.query(HYBRID, "n", QueryRequest(1, VECTOR))
        assert [m.id for m in seen.matches] == ["a"]
        assert seen.freshness.stale
        strong = ReadOptions(Consistency.STRONG)
        with pytest.raises(DeadlineExceeded):
            await world.service.query(HYBRID, "n", QueryRequest(1, VECTOR, options=strong))
    finally:
        await reader.close()
        await world.stop()
