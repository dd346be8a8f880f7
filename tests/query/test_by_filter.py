"""At stake: pages of records by metadata stay bounded and stable, and counts and deletions by
filter are exact as of their place in the log.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import query.by_filter
from core.errors import DeadlineExceeded, InvalidRequest
from core.filters.model import Comparison, Condition
from core.indexes import IndexInfo, IndexState, VectorType
from core.metric import Metric
from core.operations import DeleteByFilter, DeleteNamespace, UpdateByFilter, UpdateById, Upsert
from core.records import Record, record_bytes
from query.model import Consistency, MetadataRequest, ReadOptions
from tests.query.world import World, record
from tests.storage.memory_store import MemoryStore

DENSE = IndexInfo("i", "p", "name", 2, Metric.COSINE, VectorType.DENSE, IndexState.READY)
ON = Condition("on", Comparison.EQ, (True,))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World(DENSE, MemoryStore(), tmp_path).start()
    yield made
    await made.stop()


async def pages(world: World, limit: int, between: object = None) -> list[list[str]]:
    """Ids of all pages. `between`: called after the first one."""
    found: list[list[str]] = []
    token = None
    while not found or token is not None:
        page = await world.service.fetch_by_metadata(DENSE, "n", MetadataRequest(ON, limit, token))
        found.append(list(page.records))
        token = page.next_token
        if callable(between) and len(found) == 1:
            await between()
    return found


async def test_pages_are_stable_under_flushes_and_writes_in_between(world: World) -> None:
    await world.write(Upsert(tuple(record(f"r{n}", [1, n], on=True) for n in range(1, 10))))
    await world.flush()
    await world.write(Upsert((record("r3", [2, 2], on=True), record("r5", [2, 2], on=False))))

    async def change() -> None:
        await world.write(Upsert((record("r0", [1, 1], on=True), record("r8", [3, 3], on=True))))
        await world.write(UpdateById("r5", None, None, {"on": True}))
        await world.write(DeleteByFilter(Condition("on", Comparison.EXISTS, (False,))))
        await world.flush()
        await world.checkpoint(world.partition())
        await world.forget()

    assert await pages(world, 3, change) == [
        ["r1", "r2", "r3"],
        ["r4", "r5", "r6"],
        ["r7", "r8", "r9"],
    ]


async def test_a_page_ends_before_it_gets_too_big(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the records lie: a page holds what fits, and at least one."""
    big = [record(f"r{n}", [1, 1 + n], on=True, text="x" * 1000) for n in range(6)]
    limit = 2 * record_bytes(big[0]) + 200
    monkeypatch.setattr(query.by_filter, "PAGE_BYTES_MAX", limit)
    in_pairs = [["r0", "r1"], ["r2", "r3"], ["r4", "r5"]]
    await world.write(Upsert(tuple(big[:3])))
    await world.flush()
    await world.write(Upsert(tuple(big[3:])))
    assert await pages(world, 100) == in_pairs
    await world.write(UpdateByFilter(ON, {"text": "y" * 1000}))
    assert await pages(world, 100) == in_pairs, "changed rows count as they are now"
    await world.write(UpdateById("r1", None, None, {"other": "z" * 5000}))
    assert await pages(world, 100) == [["r0"], ["r1"], ["r2", "r3"], ["r4", "r5"]]
    await world.flush()
    assert await pages(world, 100) == [["r0"], ["r1"], ["r2", "r3"], ["r4", "r5"]]


async def test_only_what_may_match_is_opened(world: World) -> None:
    await world.write(Upsert(tuple(record(f"r{n}", [1, 1 + n], on=True) for n in range(20))))
    await world.flush()
    await world.checkpoint(world.partition())
    await world.forget()
    off = Condition("on", Comparison.EQ, (False,))
    counted = await world.service.count_matching(DENSE, "n", off)
    assert (counted.count, counted.cost.files_opened) == (0, 0)
    assert counted.cost.clusters_pruned == counted.cost.clusters_considered > 0
    page = await world.service.fetch_by_metadata(DENSE, "n", MetadataRequest(ON, 100))
    assert page.cost.files_opened == page.cost.clusters_considered
    assert page.cost.read_units >= 1


async def test_a_read_by_filter_waits_or_says_so_as_others_do(world: World) -> None:
    await world.write(Upsert((record("a", [1, 1], on=True),)))
    await world.write(Upsert((record("b", [1, 1], on=True),)), deliver=False)
    soon = ReadOptions(deadline_s=0.02)
    strong = ReadOptions(Consistency.STRONG, deadline_s=0.02)
    counted = await world.service.count_matching(DENSE, "n", ON, soon)
    assert (counted.count, counted.freshness.stale) == (1, True)
    with pytest.raises(DeadlineExceeded):
        await world.service.count_matching(DENSE, "n", ON, strong)
    with pytest.raises(DeadlineExceeded):
        await world.service.fetch_by_metadata(DENSE, "n", MetadataRequest(ON, 1, options=strong))
    await world.deliver()
    assert (await world.service.count_matching(DENSE, "n", ON, strong)).count == 2


async def test_stats_of_what_matches(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("n", "m", "nothing"):
        on = name != "nothing"
        records = tuple(record(f"r{n}", [1, 1], on=on and n < 3) for n in range(5))
        await world.write(Upsert(records), namespace=name)
    await world.flush("n")
    await world.write(UpdateById("r4", None, None, {"on": True}))
    found = await world.service.stats(DENSE, condition=ON)
    assert {name: one.record_count for name, one in found.namespaces.items()} == {"n": 4, "m": 3}
    assert (found.total, found.freshness.stale) == (7, False)
    await world.write(Upsert((record("r9", [1, 1], on=True),)), deliver=False)
    late = await world.service.stats(DENSE, ReadOptions(deadline_s=0.02), ON)
    assert (late.total, late.freshness.stale) == (7, True)
    await world.deliver()
    monkeypatch.setattr(query.by_filter, "COUNTED_NAMESPACES_MAX", 2)
    with pytest.raises(InvalidRequest, match="at most 2 namespaces, this index has 3"):
        await world.service.stats(DENSE, condition=ON)


async def test_a_namespace_that_is_not_there_matches_nothing(world: World) -> None:
    assert await pages(world, 5) == [[]]
    await world.write(Upsert((record("a", [1, 1], on=True),)))
    await world.flush()
    await world.write(DeleteNamespace())
    assert await pages(world, 5) == [[]]
    with pytest.raises(InvalidRequest, match="token"):
        await world.service.fetch_by_metadata(DENSE, "n", MetadataRequest(ON, 1, "\x00not ours"))


@pytest.mark.parametrize("flushed", [0, 1, 2, 3, 4])
async def test_a_deletion_by_filter_takes_what_matched_at_its_place_in_the_log(
    world: World, flushed: int
) -> None:
    """Writes before and after it, some in one log record with it, some in files already."""
    steps: list[tuple[object, ...]] = [
        (Upsert((record("early", [1, 1], on=True), record("kept", [1, 1], on=False))),),
        (Upsert((record("turned-off", [1, 1], on=True), record("turned-on", [1, 1], on=False))),),
        (
            UpdateById("turned-off", None, None, {"on": False}),
            UpdateById("turned-on", None, None, {"on": True}),
        ),
        (
            Upsert((record("just-before", [1, 1], on=True),)),
            DeleteByFilter(ON),
            Upsert((record("just-after", [1, 1], on=True),)),
        ),
        (Upsert((record("early", [2, 2], on=True),)), UpdateById("kept", None, None, {"on": True})),
    ]
    for at, operations in enumerate(steps):
        await world.write(*operations)  # type: ignore[arg-type]
        if at == flushed:
            await world.flush()
    expected = ["early", "just-after", "kept"]
    assert await pages(world, 10) == [expected]
    assert (await world.service.count_matching(DENSE, "n", ON)).count == 3
    everything = (await world.service.list_ids(DENSE, "n")).ids
    assert everything == ("early", "just-after", "kept", "turned-off")
    again: dict[str, Record] = {}
    await world.flush()
    again |= (await world.service.fetch(DENSE, "n", expected)).records
    assert list(again) == expected
