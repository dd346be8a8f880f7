"""Many tiny namespaces in one process: idle ones cost two objects each and no memory.

Counted, not timed: objects in the store, Python objects after a restart, what is held where.
"""

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from builder.builder import IndexBuilder
from builder.policy import FlushLimits
from builder.settings import BuilderSettings
from cli.runtime.consumers import Bounds
from cli.runtime.embedded import Engine, open_engine
from core.indexes import IndexInfo, VectorType
from core.metric import Metric
from core.operations import DeleteNamespace, Upsert
from core.records import Record
from freshness.protocol import NamespacesRequest
from infra.catalog.model import NewIndex
from infra.settings import Settings
from query.manifests import NAMESPACES_MAX
from query.model import QueryRequest
from query.service import QuerySettings
from storage.registry_tree import SPLIT_ROWS

DIMENSION = 16
PARTITIONS = 2
IDLE_MAX = 100
BOUNDS = Bounds(
    BuilderSettings(flush=FlushLimits(age_s=0.2), idle_namespaces=IDLE_MAX),
    reading=QuerySettings(deadline_s=25.0),
)
# Of one namespace; what was written to twice has some more until it is collected.
OBJECTS_MAX = 2


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Engine]:
    chosen = Settings.load({"data": folder, "partitions": PARTITIONS})
    async with open_engine(chosen, BOUNDS) as engine:
        while engine.not_ready() is not None or len(owned(engine.builder)) < PARTITIONS:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        yield engine


def owned(builder: IndexBuilder) -> list[int]:
    return [part.partition for part in builder.status().partitions]


async def new_index(engine: Engine) -> IndexInfo:
    project = await engine.parts.catalog.ensure_project()
    new = NewIndex("many", DIMENSION, Metric.COSINE, VectorType.DENSE, {}, False, {})
    return (await engine.parts.catalog.create_index(project.project_id, new, None)).info


def name(number: int) -> str:
    return f"tenant-{number:06d}"


def upsert(number: int) -> Upsert:
    vectors = np.random.default_rng(number).normal(size=(10, DIMENSION)).astype(np.float32)
    return Upsert(tuple(Record(f"r{row}", vectors[row], None, {}) for row in range(10)))


async def fill(engine: Engine, index: IndexInfo, numbers: range) -> None:
    for first in range(0, len(numbers), 200):
        await asyncio.gather(
            *(
                engine.writes.write(index, name(n), (upsert(n),), request_id=f"fill-{n}")
                for n in numbers[first : first + 200]
            )
        )
    for partition in range(PARTITIONS):
        end = await engine.parts.wal.end_offset(partition)
        while engine.builder.applied(partition) < end:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await engine.builder.flush()


async def check_query(engine: Engine, index: IndexInfo, number: int) -> None:
    request = QueryRequest(top_k=10, vector=upsert(number).records[3].values)
    result = await engine.queries.query(index, name(number), request)
    assert result.matches[0].id == "r3"
    assert len(result.matches) == 10


async def listed(engine: Engine, index: IndexInfo, prefix: str) -> tuple[list[str], int]:
    """(all names by pages, the total that every page told)"""
    names: list[str] = []
    totals: set[int] = set()
    token: str | None = None
    while True:
        page = await engine.queries.namespaces(index, prefix, 99, token)
        names += [stats.name for stats in page.namespaces]
        totals.add(page.total)
        token = page.next_token
        if token is None:
            (total,) = totals
            return names, total


def objects_of(folder: Path) -> Counter[str]:
    """By the first part of their keys."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return Counter(path.relative_to(folder).parts[0] for path in files)


def living_objects() -> int:
    for _ in range(3):
        gc.collect()
    return len(gc.get_objects())


@pytest.mark.parametrize("count", [500, pytest.param(20_000, marks=pytest.mark.long)])
async def test_idle_namespaces_cost_nothing_after_a_restart(
    tmp_path: Path, count: int, record_property: Callable[[str, object], None]
) -> None:
    folder = tmp_path / "data"
    async with opened(folder) as engine:
        index = await new_index(engine)
        await fill(engine, index, range(count // 5))
    async with opened(folder) as engine:
        few = living_objects()
    async with opened(folder) as engine:
        await fill(engine, index, range(count // 5, count))
        check_bounds(engine)
    kinds = objects_of(folder / "objects")
    assert kinds[index.index_id] <= OBJECTS_MAX * count
    assert kinds["registry"] <= PARTITIONS * (8 + 40 * -(-count // SPLIT_ROWS))
    async with opened(folder) as engine:
        grown = living_objects() - few
        assert grown < count // 2, "an idle namespace keeps no Python object"
        await check_nothing_is_held(engine, index)
        numbers = range(0, count, max(1, count // 100))
        for number in numbers:
            await check_query(engine, index, number)
        check_bounds(engine)
        names, total = await listed(engine, index, "")
        assert names == [name(n) for n in range(count)]
        assert total == count
        some = [name(n) for n in range(count) if name(n).startswith("tenant-0001")]
        assert await listed(engine, index, "tenant-0001") == (some, len(some))
        await check_deletion(engine, index, name(count // 2), count)
    record_property("namespaces", count)
    record_property("Python objects more after a restart", grown)
    record_property("objects in the store", kinds[index.index_id])


async def check_nothing_is_held(engine: Engine, index: IndexInfo) -> None:
    """The checkpoint is at the log's end, so nothing was replayed."""
    assert all(not part.namespaces for part in engine.builder.status().partitions)
    for partition in range(PARTITIONS):
        end = await engine.parts.wal.end_offset(partition)
        assert engine.builder.committable(partition) == end
        answer = await engine.freshness.namespaces(NamespacesRequest(index.index_id, partition))
        assert answer.held == ()
    assert len(engine.queries._states._states) == 0


def check_bounds(engine: Engine) -> None:
    assert sum(len(p.namespaces) for p in engine.builder.status().partitions) <= IDLE_MAX
    states = engine.queries._states
    assert len(states._states) <= NAMESPACES_MAX
    assert len(states._locks) == 0


async def check_deletion(engine: Engine, index: IndexInfo, doomed: str, count: int) -> None:
    """The first query after the acknowledgement finds nothing, nor does the listing."""
    await engine.writes.write(index, doomed, (DeleteNamespace(),), request_id="delete")
    request = QueryRequest(top_k=10, vector=upsert(0).records[0].values)
    result = await engine.queries.query(index, doomed, request)
    assert result.matches == ()
    names, total = await listed(engine, index, "")
    assert doomed not in names
    assert total == len(names) == count - 1


async def test_names_are_listed_while_they_are_only_in_memory(tmp_path: Path) -> None:
    """Created, deleted and written to again, and nothing of it indexed: no manifest is opened."""
    bounds = replace(BOUNDS, building=BuilderSettings(flush=FlushLimits(age_s=3600.0)))
    chosen = Settings.load({"data": tmp_path / "data", "partitions": PARTITIONS})
    async with open_engine(chosen, bounds) as engine:
        index = await new_index(engine)
        for number in range(30):
            await engine.writes.write(index, name(number), (upsert(number),), request_id="w")
        for number in range(0, 30, 3):
            await engine.writes.write(index, name(number), (DeleteNamespace(),), request_id="d")
        await engine.writes.write(index, name(0), (upsert(1),), request_id="again")
        living = [name(n) for n in range(30) if n % 3 or n == 0]
        read = engine.parts.counts.counts().gets
        page = await engine.queries.namespaces(index, "tenant", 1, None)
        assert (page.total, [s.name for s in page.namespaces]) == (len(living), living[:1])
        assert engine.parts.counts.counts().gets - read <= PARTITIONS + 2
        assert await listed(engine, index, "") == (living, len(living))
