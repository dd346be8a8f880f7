"""At stake: queries agree with a dict, whatever is in files, in freshness, forgotten, restarted or
only half published.
"""

import asyncio
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.filters.model import Filter
from core.indexes import IndexInfo, IndexState, VectorType
from core.metric import Metric
from core.operations import Operation
from query.model import QueryRequest
from query.service import QuerySettings
from tests.freshness.operations import State, filters, operations, without_sparse
from tests.query.world import World, terms
from tests.storage.memory_store import MemoryStore

QUERY = np.array([3.0, 1.0], dtype=np.float32)
STEPS = ("flush", "flush the past", "checkpoint", "forget", "restart", "quiet flush")

steps = st.lists(
    st.one_of(
        st.lists(operations, min_size=1, max_size=2),
        st.lists(operations, min_size=1, max_size=2),
        st.sampled_from(STEPS),
    ),
    min_size=3,
    max_size=14,
)


def index(metric: Metric) -> IndexInfo:
    return IndexInfo("i", "p", "name", 2, metric, VectorType.DENSE, IndexState.READY)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    steps=steps,
    metric=st.sampled_from(list(Metric)),
    condition=st.one_of(st.none(), filters),
    k=st.sampled_from([1, 3, 10_000]),
    touched_max=st.sampled_from([0, 2, 1000]),
    seed=st.integers(0, 1000),
)
def test_every_read_agrees_with_a_dict(
    steps: list[str | list[Operation]],
    metric: Metric,
    condition: Filter | None,
    k: int,
    touched_max: int,
    seed: int,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(
            story(Path(folder), index(metric), steps, condition, k, max(1, touched_max), seed)
        )


async def story(
    folder: Path,
    info: IndexInfo,
    steps: list[str | list[Operation]],
    condition: Filter | None,
    k: int,
    touched_max: int,
    seed: int,
) -> None:
    settings = QuerySettings(deadline_s=5.0, touched_max=touched_max)
    world = World(info, MemoryStore(), folder, seed=seed, query=settings)
    await world.start()
    try:
        for step in steps:
            await take(world, step)
            await compare(world, condition, k)
    finally:
        await world.stop()


async def take(world: World, step: str | list[Operation]) -> None:
    match step:
        case "flush":
            await world.flush()
        case "flush the past":
            end = await world.log.end_offset(world.partition())
            newest = await world.manifests.newest("i", "n")
            lowest = -1 if newest is None else newest.indexed_lsn
            await world.flush(lsn=world.random.randint(lowest, max(lowest, end - 1)))
        case "quiet flush":
            await world.flush(publish=False)
        case "checkpoint":
            await world.checkpoint(world.partition())
        case "forget":
            await world.forget()
        case "restart":
            await world.restart_freshness()
            await world.deliver()
        case list():
            hybrid = world.index.metric is Metric.DOTPRODUCT
            await world.write(*(step if hybrid else map(without_sparse, step)))


async def compare(world: World, condition: Filter | None, k: int) -> None:
    state, exists = world.truth().now, world.truth().exists
    sparse = terms({1: 2.0, 3: 1.0}) if world.index.metric is Metric.DOTPRODUCT else None
    asked = QueryRequest(
        k,
        QUERY,
        sparse=sparse,
        filter=condition,
        include_values=True,
        include_metadata=True,
        exhaustive=True,
    )
    result = await world.service.query(world.index, "n", asked)
    expected = world.ranked(state, k, QUERY, sparse, condition)
    assert [(m.id, m.score) for m in result.matches] == expected
    assert not result.freshness.stale
    for match in result.matches:
        stored = state[match.id]
        assert match.values is not None
        assert stored.record.values is not None
        assert np.array_equal(match.values, stored.record.values)
        assert (match.metadata or {}) == stored.record.metadata
        assert match.lsn == stored.lsn
    await compare_names(world, state, exists)


async def compare_names(world: World, state: State, exists: bool) -> None:
    service, info = world.service, world.index
    fetched = await service.fetch(info, "n", ["f", "e", "zz", "b", "a"])
    assert {i: r.metadata for i, r in fetched.records.items()} == {
        i: state[i].record.metadata for i in "feba" if i in state
    }
    first = await service.list_ids(info, "n", limit=2)
    rest: tuple[str, ...] = ()
    if first.next_token is not None:
        rest = (await service.list_ids(info, "n", token=first.next_token)).ids
    assert (*first.ids, *rest) == tuple(sorted(state))
    stats = await service.stats(info)
    assert {n: s.record_count for n, s in stats.namespaces.items()} == (
        {"n": len(state)} if exists else {}
    )
    named = await service.namespaces(info)
    assert [n.name for n in named.namespaces] == (["n"] if exists else [])
