"""At stake: what each consistency promises, what outcomes say, and that nothing is missed at any
size.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from core.errors import CorruptData, DeadlineExceeded, InvalidRequest, NotFound, Unavailable
from core.filters.model import Comparison, Condition
from core.indexes import IndexInfo, IndexState, VectorType
from core.metric import Metric
from core.operations import (
    CreateNamespace,
    DeleteAll,
    DeleteByFilter,
    DeleteIds,
    DeleteNamespace,
    UpdateByFilter,
    Upsert,
)
from core.records import Record
from freshness.budget import MemoryLimits
from freshness.layer import FreshnessSettings
from query.model import Consistency, QueryRequest, ReadOptions
from query.positions import LogPositions
from query.service import QuerySettings
from tests.query.world import World, record
from tests.storage.memory_store import MemoryStore

DENSE = IndexInfo("i", "p", "name", 2, Metric.COSINE, VectorType.DENSE, IndexState.READY)
QUERY = np.array([1.0, 1.0], dtype=np.float32)
STRONG = ReadOptions(Consistency.STRONG, deadline_s=0.02)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World(DENSE, MemoryStore(), tmp_path).start()
    yield made
    await made.stop()


def asked(k: int = 10, options: ReadOptions | None = None) -> QueryRequest:
    return QueryRequest(k, QUERY, options=options or ReadOptions(deadline_s=0.02))


async def found(world: World, request: QueryRequest) -> list[str]:
    return [m.id for m in (await world.service.query(DENSE, "n", request)).matches]


async def test_the_first_query_after_a_write_waits_for_it(world: World) -> None:
    await world.write(Upsert((record("a", [1, 0]),)), deliver=False)
    query = asyncio.create_task(
        world.service.query(DENSE, "n", asked(options=ReadOptions(deadline_s=5.0)))
    )
    await asyncio.sleep(0.01)
    assert not query.done()
    await world.deliver()
    result = await query
    assert [m.id for m in result.matches] == ["a"]
    assert (result.freshness.lsn, result.freshness.stale) == (0, False)


async def test_beyond_the_deadline_each_consistency_keeps_its_promise(world: World) -> None:
    await world.write(Upsert((record("a", [1, 0]),)))
    lsn = await world.write(Upsert((record("b", [1, 0]),)), deliver=False)
    late = await world.service.query(DENSE, "n", asked())
    assert ([m.id for m in late.matches], late.freshness.stale) == (["a"], True)
    assert late.freshness.lsn == lsn - 1
    with pytest.raises(DeadlineExceeded, match=f"{lsn} was not reached"):
        await world.service.query(DENSE, "n", asked(options=STRONG))
    eventual = ReadOptions(Consistency.EVENTUAL)
    quick = await world.service.query(DENSE, "n", asked(options=eventual))
    assert ([m.id for m in quick.matches], quick.freshness.stale) == (["a"], False)
    session = await world.service.query(DENSE, "n", asked(options=ReadOptions(min_lsn=lsn - 1)))
    assert [m.id for m in session.matches] == ["a"]
    behind = ReadOptions(min_lsn=lsn, deadline_s=0.02)
    with pytest.raises(DeadlineExceeded):
        await world.service.query(DENSE, "n", asked(options=behind))


async def test_every_read_is_flagged_or_refused_alike(world: World) -> None:
    await world.write(Upsert((record("a", [1, 0]),)), deliver=False)
    short = ReadOptions(deadline_s=0.01)
    service = world.service
    assert (await service.fetch(DENSE, "n", ["a"], short)).freshness.stale
    assert (await service.list_ids(DENSE, "n", options=short)).freshness.stale
    assert (await service.stats(DENSE, short)).freshness.stale
    assert (await service.namespaces(DENSE, options=short)).freshness.stale
    for read in (
        service.fetch(DENSE, "n", ["a"], STRONG),
        service.list_ids(DENSE, "n", options=STRONG),
        service.stats(DENSE, STRONG),
        service.namespaces(DENSE, options=STRONG),
        service.describe_namespace(DENSE, "n", STRONG),
    ):
        with pytest.raises(DeadlineExceeded):
            await read


async def test_too_much_unindexed_data_is_said_not_hidden(tmp_path: Path) -> None:
    limits = FreshnessSettings(limits=MemoryLimits(namespace_records=1))
    world = await World(DENSE, MemoryStore(), tmp_path, freshness=limits).start()
    try:
        await world.write(Upsert((record("a", [1, 0]),)))
        await world.write(Upsert((record("b", [1, 0]),)))
        result = await world.service.query(DENSE, "n", asked())
        assert [m.id for m in result.matches] == ["a"]
        seen = result.freshness
        assert (seen.lsn, seen.stale, seen.overflowed) == (0, True, True)
        with pytest.raises(Unavailable, match="more unindexed writes than memory"):
            await world.service.query(DENSE, "n", asked(options=STRONG))
        await world.flush()
        await world.service.stop()
        await world.service.start()
        await world.checkpoint(world.partition())
        await world.forget()
        result = await world.service.query(DENSE, "n", asked())
        assert [m.id for m in result.matches] == ["a", "b"]
        assert not result.freshness.overflowed
    finally:
        await world.stop()


async def test_a_compaction_whose_news_got_lost_costs_one_more_try(world: World) -> None:
    """It moves no LSN, so freshness sends nobody back; its garbage is collected all the same."""
    await world.write(Upsert(tuple(record(f"r{i}", [1, i]) for i in range(5))))
    old = await world.flush()
    await world.checkpoint(world.partition())
    await world.forget()
    # counting reads the manifest, but no file
    assert (await world.service.stats(DENSE)).total == 5
    assert (await world.service.describe_namespace(DENSE, "n")).namespace.record_count == 5
    await world.flush(publish=False)
    for key in await world.keys_with(*(f.uuid for f in old.files)):
        await world.store.delete(key)
    assert await found(world, asked(1)) == ["r1"]
    fetched = await world.service.fetch(DENSE, "n", ["r2"])
    assert list(fetched.records) == ["r2"]


async def test_a_missing_file_is_an_error_and_no_empty_answer(world: World) -> None:
    await world.write(Upsert((record("a", [1, 0]),)))
    manifest = await world.flush()
    for key in await world.keys_with(manifest.files[0].uuid):
        await world.store.delete(key)
    await world.checkpoint(world.partition())
    await world.forget()
    with pytest.raises(CorruptData, match="missing"):
        await world.service.query(DENSE, "n", asked(1))


@pytest.mark.parametrize("flushed", ["nothing", "before", "after", "all forgotten"])
async def test_outcomes_are_the_same_whoever_knows(world: World, flushed: str) -> None:
    """create: was it there? Decided by the log's order, whether files or freshness know it."""
    if flushed != "nothing":
        await world.write(Upsert((record("a", [1, 0]),)))
        await world.flush()
        await world.checkpoint(world.partition())
        await world.forget()
    first = await world.write(CreateNamespace())
    gone = await world.write(DeleteNamespace())
    again = await world.write(DeleteIds(("a",)))
    last = await world.write(CreateNamespace())
    if flushed == "after":
        await world.flush()
    service = world.service

    async def existed(lsn: int) -> bool | None:
        return (await service.outcome(DENSE, "n", lsn, "r0", 0.5)).existed

    assert await existed(first) == (flushed != "nothing")
    assert [await existed(lsn) for lsn in (gone, again, last)] == [True, False, False]


async def test_an_outcome_is_found_in_older_manifests_when_newer_ones_cover_the_write(
    world: World,
) -> None:
    """The builder may be quicker than the question, and freshness may not know what was before."""
    await world.write(Upsert((record("a", [1, 0]),)))
    await world.flush()
    await world.checkpoint(world.partition())
    await world.forget()
    deleted = await world.write(DeleteNamespace())
    await world.flush()
    await world.write(CreateNamespace())
    await world.flush()
    outcome = await world.service.outcome(DENSE, "n", deleted, "r0", 0.5)
    assert outcome.existed is True


async def test_an_outcome_is_waited_for_also_if_the_builder_was_faster(world: World) -> None:
    """Its manifest covers the write already, and yet only freshness will say what was before."""
    await world.write(CreateNamespace())
    lsn = await world.write(CreateNamespace(), deliver=False)
    await world.flush()
    asking = asyncio.create_task(world.service.outcome(DENSE, "n", lsn, "r0", 20.0))
    for _ in range(20):
        await asyncio.sleep(0)
    await world.deliver()
    assert (await asking).existed is True


async def test_an_outcome_that_is_not_decided_in_time_is_unknown(world: World) -> None:
    lsn = await world.write(CreateNamespace(), deliver=False)
    assert (await world.service.outcome(DENSE, "n", lsn, "r0", 0.01)).existed is None


async def test_a_deleted_namespace_is_gone_at_once_and_comes_back_empty(world: World) -> None:
    await world.write(Upsert((record("a", [1, 0]),)))
    await world.flush()
    await world.write(DeleteNamespace())
    assert await found(world, asked()) == []
    with pytest.raises(NotFound):
        await world.service.describe_namespace(DENSE, "n")
    await world.flush()
    with pytest.raises(NotFound):
        await world.service.describe_namespace(DENSE, "n")
    await world.write(CreateNamespace())
    described = await world.service.describe_namespace(DENSE, "n")
    assert described.namespace.record_count == 0
    await world.write(Upsert((record("b", [1, 0]),)))
    assert await found(world, asked()) == ["b"]


async def test_an_emptied_namespace_goes_on_to_exist(world: World) -> None:
    await world.write(Upsert((record("a", [1, 0]),)))
    await world.flush()
    await world.write(DeleteAll())
    assert await found(world, asked()) == []
    assert (await world.service.describe_namespace(DENSE, "n")).namespace.record_count == 0


async def test_names_are_paged_in_order_over_all_partitions(world: World) -> None:
    for name in ("a1", "a2", "a3", "a4", "b1"):
        await world.write(Upsert((record("x", [1, 0]),)), namespace=name)
    await world.flush("a2")
    await world.write(DeleteNamespace(), namespace="a3")
    for partition in (0, 1):
        await world.checkpoint(partition)
    await world.forget()
    first = await world.service.namespaces(DENSE, "a", limit=2)
    assert [n.name for n in first.namespaces] == ["a1", "a2"]
    assert first.total == 3
    rest = await world.service.namespaces(DENSE, "a", limit=2, token=first.next_token)
    assert ([n.name for n in rest.namespaces], rest.next_token) == (["a4"], None)
    assert (await world.service.stats(DENSE)).total == 4
    with pytest.raises(InvalidRequest, match="token"):
        await world.service.namespaces(DENSE, token="ä")


def scattered(count: int) -> tuple[Record, ...]:
    """Points around the circle, each with its own number and one of a hundred groups."""
    angles = np.linspace(0.0, 2 * np.pi, count, endpoint=False)
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    return tuple(
        Record(f"id{i:05d}", points[i], None, {"n": float(i), "group": f"g{i % 100}"})
        for i in range(count)
    )


async def test_ten_thousand_matches_come_in_order_from_files_and_memory(world: World) -> None:
    records = scattered(12_000)
    for start in range(0, len(records), 1000):
        await world.write(Upsert(records[start : start + 1000]))
        if start == 5000:
            await world.flush()
    expected = world.ranked(world.truth().now, 10_000, QUERY)
    result = await world.service.query(DENSE, "n", asked(10_000))
    assert [(m.id, m.score) for m in result.matches] == expected


async def test_the_same_records_give_the_same_bytes_wherever_they_lie(world: World) -> None:
    """A rebuild may put every record elsewhere; no score may change in its last bit, no tie
    turn.
    """
    await world.write(Upsert(scattered(1000)))
    answers = []
    for _ in range(4):
        result = await world.service.query(DENSE, "n", asked(50))
        answers.append([(m.id, m.score) for m in result.matches])
        await world.flush()
        await world.checkpoint(world.partition())
        await world.forget()
    assert answers[1:] == answers[:-1]


async def test_counters_tell_what_was_pruned_and_scanned(world: World) -> None:
    await world.write(Upsert(scattered(900)))
    manifest = await world.flush()
    nobody = Condition("n", Comparison.LT, (0.0,))
    request = QueryRequest(10, QUERY, filter=nobody, explain=True)
    result = await world.service.query(DENSE, "n", request)
    cost = result.cost
    files = len(manifest.files)
    assert (cost.clusters_considered, cost.clusters_pruned) == (files, files)
    assert (cost.clusters_probed, cost.rows_scanned) == (0, 0)
    assert any("pruned" in line for line in cost.plan)
    everything = await world.service.query(DENSE, "n", asked())
    cost = everything.cost
    assert cost.clusters_probed == files
    assert cost.rows_scanned == 900
    assert cost.bytes_scanned == 900 * 8
    assert cost.read_units == 1
    assert {"position", "freshness", "files"} <= cost.steps_ms.keys()


async def test_statistics_of_changed_fields_prune_nothing(world: World) -> None:
    """No file has a record with n < 0, until a pending update makes one."""
    await world.write(Upsert((record("a", [1, 0], n=1.0), record("b", [1, 0], n=2.0))))
    await world.flush()
    await world.checkpoint(world.partition())
    await world.forget()
    first = Condition("n", Comparison.EQ, (1.0,))
    negative = Condition("n", Comparison.LT, (0.0,))
    await world.write(UpdateByFilter(first, {"n": -1.0}))
    assert await found(world, QueryRequest(9, QUERY, filter=negative)) == ["a"]
    await world.write(DeleteByFilter(negative))
    assert await found(world, asked()) == ["b"]
    assert (await world.service.stats(DENSE)).total == 1


@pytest.mark.parametrize(
    "request_",
    [
        QueryRequest(1),
        QueryRequest(1, QUERY, id="a"),
        QueryRequest(0, QUERY),
        QueryRequest(1, np.ones(3, dtype=np.float32)),
    ],
)
async def test_requests_that_do_not_fit_the_index_are_refused(
    world: World, request_: QueryRequest
) -> None:
    with pytest.raises(InvalidRequest):
        await world.service.query(DENSE, "n", request_)


async def test_callers_share_one_question_for_the_logs_end_but_never_an_old_answer(
    world: World,
) -> None:
    positions = LogPositions(world.log)
    before = world.log.ends_asked
    await asyncio.gather(*(positions.end_lsn(0) for _ in range(50)))
    assert world.log.ends_asked == before + 2, "one for the first, one after it for all others"
    first = asyncio.create_task(positions.end_lsn(world.partition()))
    await asyncio.sleep(0)
    lsn = await world.write(Upsert((record("a", [1, 0]),)), deliver=False)
    assert await positions.end_lsn(world.partition()) == lsn
    await first


async def test_settings_bound_the_shadow(tmp_path: Path) -> None:
    """With more touched ids than the shadow holds, candidates are checked one by one."""
    settings = QuerySettings(touched_max=10)
    world = await World(DENSE, MemoryStore(), tmp_path, query=settings).start()
    try:
        records = scattered(2000)
        await world.write(Upsert(records[:1000]))
        await world.write(Upsert(records[1000:]))
        await world.flush()
        await world.write(DeleteIds(tuple(r.id for r in records[:1000])))
        moved = tuple(Record(r.id, r.values, None, {"moved": True}) for r in records[1000:1500])
        await world.write(Upsert(moved))
        expected = world.ranked(world.truth().now, 300, QUERY)
        result = await world.service.query(DENSE, "n", asked(300))
        assert [(m.id, m.score) for m in result.matches] == expected
    finally:
        await world.stop()
