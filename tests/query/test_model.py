"""At stake: every read agrees with a dict, whatever is in files, in freshness, forgotten, restarted
or only half published.
"""

from pathlib import Path

import numpy as np
import pytest

from core.filters.row import matches
from core.indexes import IndexInfo, IndexState, VectorType
from core.metric import Metric
from core.records import Record
from query.model import MetadataRequest, QueryRequest
from query.service import QuerySettings
from tests.query.stories import FILTERS, IDS, LIVES, Story
from tests.query.world import World
from tests.storage.memory_store import MemoryStore

KINDS = {
    "cosine": (2, Metric.COSINE, False),
    "euclidean": (2, Metric.EUCLIDEAN, False),
    "dotproduct": (2, Metric.DOTPRODUCT, False),
    "hybrid": (2, Metric.DOTPRODUCT, True),
    "sparse": (None, Metric.DOTPRODUCT, True),
}
STEPS_EACH = 40


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(12))
async def test_every_read_agrees_with_a_dict(kind: str, seed: int, tmp_path: Path) -> None:
    dimension, metric, sparse = KINDS[kind]
    story = Story(seed, dense=dimension is not None, sparse=sparse)
    vector_type = VectorType.SPARSE if dimension is None else VectorType.DENSE
    info = IndexInfo("i", "p", "name", dimension, metric, vector_type, IndexState.READY)
    touched_max = story.random.choice((1, 3, 1000))
    query = QuerySettings(deadline_s=5.0, touched_max=touched_max)
    world = await World(info, MemoryStore(), tmp_path, seed=seed, query=query).start()
    try:
        told = []
        for _ in range(STEPS_EACH):
            told.append(await story.step(world))
            try:
                await compare_search(world, story)
                await compare_names(world)
                await compare_by_filter(world, story)
            except AssertionError:
                print("\n".join(told))
                raise
    finally:
        await world.stop()


@pytest.mark.parametrize("seed", range(12))
async def test_a_namespace_that_comes_and_goes_shows_the_schema_of_its_life(
    seed: int, tmp_path: Path
) -> None:
    info = IndexInfo("i", "p", "name", 2, Metric.COSINE, VectorType.DENSE, IndexState.READY)
    world = await World(info, MemoryStore(), tmp_path, seed=seed).start()
    story = Story(seed, operations=LIVES)
    try:
        for _ in range(60):
            await story.step(world)
            await compare_names(world)
    finally:
        await world.stop()


async def compare_search(world: World, story: Story) -> None:
    state, info = world.truth().now, world.index
    vector = None if info.dimension is None else story.vector()
    hybrid = info.metric is Metric.DOTPRODUCT
    sparse = story.sparse() if vector is None or (hybrid and story.random.random() < 0.7) else None
    condition = story.condition()
    k = story.random.choice((1, 3, 10_000))
    request = QueryRequest(
        k,
        vector,
        sparse=sparse,
        filter=condition,
        include_values=True,
        include_metadata=True,
        exhaustive=story.random.random() < 0.5,
    )
    result = await world.service.query(info, "n", request)
    expected = world.ranked(state, k, vector, sparse, condition)
    assert [(m.id, m.score) for m in result.matches] == expected
    assert not result.freshness.stale
    for match in result.matches:
        stored = state[match.id]
        if vector is not None:
            assert match.values is not None
            assert stored.record.values is not None
            assert np.array_equal(match.values, stored.record.values)
        assert (match.sparse is None) == (stored.record.sparse is None)
        assert (match.metadata or {}) == stored.record.metadata
        assert match.lsn == stored.lsn
    asked = QueryRequest(3, id=story.random.choice(IDS))
    by_id = await world.service.query(info, "n", asked)
    assert asked.id is not None
    if asked.id not in state:
        assert by_id.matches == ()
    else:
        own = state[asked.id].record
        terms = own.sparse if info.dimension is None else None
        expected = world.ranked(state, 3, own.values, terms)
        assert [(m.id, m.score) for m in by_id.matches] == expected


async def compare_names(world: World) -> None:
    service, info = world.service, world.index
    state, exists = world.truth().now, world.truth().exists
    fetched = await service.fetch(info, "n", ["j", "e", "zz", "b", "a"])
    assert {i: r.metadata for i, r in fetched.records.items()} == {
        i: state[i].record.metadata for i in "jeba" if i in state
    }
    first = await service.list_ids(info, "n", limit=2)
    rest: tuple[str, ...] = ()
    if first.next_token is not None:
        rest = (await service.list_ids(info, "n", token=first.next_token)).ids
    assert (*first.ids, *rest) == tuple(sorted(state))
    stats = await service.stats(info)
    counts = {n: s.record_count for n, s in stats.namespaces.items()}
    assert counts == ({"n": len(state)} if exists else {})
    named = await service.namespaces(info)
    shown = [(n.name, n.declared) for n in named.namespaces]
    assert shown == ([("n", world.truth().declared[-1])] if exists else [])


async def compare_by_filter(world: World, story: Story) -> None:
    """Pages of any size, joined, and the count."""
    service, info, state = world.service, world.index, world.truth().now
    condition = story.random.choice(FILTERS)
    wanted = sorted(i for i, s in state.items() if matches(condition, s.record.metadata))
    assert (await service.count_matching(info, "n", condition)).count == len(wanted)
    limit = story.random.choice((1, 2, 5, 10_000))
    found: dict[str, Record] = {}
    token, pages = None, 0
    while pages == 0 or token is not None:
        page = await service.fetch_by_metadata(info, "n", MetadataRequest(condition, limit, token))
        assert 0 < len(page.records) <= limit or not wanted
        assert not found.keys() & page.records.keys()
        found |= page.records
        token, pages = page.next_token, pages + 1
    assert list(found) == wanted
    assert pages == max(1, -(-len(wanted) // limit))
    for record_id, record in found.items():
        stored = state[record_id].record
        assert record.metadata == stored.metadata
        assert (record.sparse is None) == (stored.sparse is None)
        if stored.values is not None:
            assert record.values is not None
            assert np.array_equal(record.values, stored.values)
