"""Reads around an attach entry: what it brings in is in files, which no manifest names yet.

At stake: a restored namespace that looks empty, or writes to it that are not seen, without a word.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from core.errors import Unavailable
from core.indexes import IndexInfo, IndexState, VectorType
from core.metric import Metric
from core.operations import Attach, CreateNamespace, UpdateById, Upsert
from query.model import Consistency, QueryRequest, QueryResult, ReadOptions
from tests.query.world import World, record
from tests.storage.memory_store import MemoryStore

DENSE = IndexInfo("i", "p", "name", 2, Metric.EUCLIDEAN, VectorType.DENSE, IndexState.READY)
ATTACH = Attach("i", "source", "0" * 32, "0" * 32)
AT_ONCE = ReadOptions(deadline_s=0.0)
STRONG = ReadOptions(Consistency.STRONG, deadline_s=0.0)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World(DENSE, MemoryStore(), tmp_path).start()
    await made.write(Upsert((record("a", [1, 0]), record("b", [2, 0]))), namespace="source")
    yield made
    await made.stop()


async def asked(world: World, options: ReadOptions) -> QueryResult:
    query = QueryRequest(10, np.array([1, 1], dtype=np.float32), options=options)
    return await world.service.query(DENSE, "n", query)


def ids(result: QueryResult) -> list[str]:
    return sorted(match.id for match in result.matches)


async def test_a_read_waits_for_the_manifest_that_brings_the_files(world: World) -> None:
    await asked(world, AT_ONCE)  # knows now that there is no such namespace
    await world.write(ATTACH)
    waiting = asyncio.create_task(asked(world, ReadOptions(deadline_s=5.0)))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await world.flush(publish=False)
    waiting.cancel()  # its clock stands still
    result = await asked(world, ReadOptions(deadline_s=5.0))
    assert ids(result) == ["a", "b"]
    assert not result.freshness.stale


@pytest.mark.parametrize("before", [False, True], ids=["new", "emptied before"])
async def test_beyond_the_deadline_the_read_says_what_it_did_not_see(
    world: World, before: bool
) -> None:
    if before:
        await world.write(CreateNamespace())
    lsn = await world.write(ATTACH)
    result = await asked(world, AT_ONCE)
    assert ids(result) == []
    seen = result.freshness
    assert (seen.lsn, seen.stale, seen.overflowed) == (lsn - 1, True, True)
    with pytest.raises(Unavailable):
        await asked(world, STRONG)


async def test_writes_behind_an_attach_are_seen_as_soon_as_it_is_in_a_manifest(
    world: World,
) -> None:
    """Also those that came before anybody knew of the manifest: with its next version."""
    attach = await world.write(ATTACH)
    await world.write(Upsert((record("early", [3, 0]),)))
    await world.flush(lsn=attach)
    result = await asked(world, AT_ONCE)
    assert (ids(result), result.freshness.stale) == (["a", "b"], True)
    await world.flush()
    await world.write(UpdateById("a", set_metadata={"g": 1.0}), Upsert((record("late", [4, 0]),)))
    result = await asked(world, ReadOptions(deadline_s=5.0))
    assert ids(result) == ["a", "b", "early", "late"]
    assert not result.freshness.stale
    fetched = await world.service.fetch(DENSE, "n", ["a"])
    assert fetched.records["a"].metadata["g"] == 1.0


async def test_after_a_restart_an_indexed_attach_hides_nothing(world: World) -> None:
    """The replay meets it again; what is written since needs no manifest to be seen."""
    await world.write(ATTACH)
    await world.flush()
    await world.write(Upsert((record("since", [3, 0]),)))
    await world.restart_freshness()
    await world.deliver()
    result = await asked(world, AT_ONCE)
    assert ids(result) == ["a", "b", "since"]
    assert not result.freshness.stale
