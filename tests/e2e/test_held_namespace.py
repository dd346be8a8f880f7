"""A namespace whose files are damaged: the others go on, and reads of it stay honest.

The builder cannot index its new entries and lets the checkpoint pass them. Freshness must not
forget them for that, and after a restart, when it has not got them any more, must say so.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import rmtree

import numpy as np
import pytest

from builder.policy import FlushLimits
from builder.settings import BuilderSettings
from cli.runtime.consumers import Bounds
from cli.runtime.embedded import Engine, open_engine
from core.errors import Unavailable
from core.indexes import IndexInfo, VectorType
from core.metric import Metric
from core.operations import Upsert
from core.records import Record
from freshness.sweep import SweepSettings
from infra.catalog.model import NewIndex
from infra.settings import Settings
from query.model import Consistency, QueryRequest, ReadOptions
from query.service import QuerySettings

# Memory forgets when the test says so, and then at once.
BOUNDS = Bounds(
    BuilderSettings(flush=FlushLimits(age_s=0.05), registry_s=0.02, paused_retry_s=0.05),
    SweepSettings(every_s=3600.0, grace_s=-1.0),
    QuerySettings(deadline_s=25.0),
)
# More than a tiny namespace keeps in its manifest.
LONG = "x" * 8_000
# Among the others, so that their id run is looked into.
NEW, NEWER = "r1-new", "r2-newer"


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Engine]:
    chosen = Settings.load({"data": folder, "partitions": 1})
    async with open_engine(chosen, BOUNDS) as engine:
        await until(lambda: engine.not_ready() is None and bool(engine.builder.status().partitions))
        yield engine


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def new_index(engine: Engine) -> IndexInfo:
    project = await engine.parts.catalog.ensure_project()
    new = NewIndex("held", 4, Metric.COSINE, VectorType.DENSE, {}, False, {})
    return (await engine.parts.catalog.create_index(project.project_id, new, None)).info


async def write(engine: Engine, index: IndexInfo, namespace: str, *ids: str, mark: str) -> None:
    vector = np.ones(4, dtype=np.float32)
    records = tuple(Record(i, vector, None, {"mark": mark, "text": LONG}) for i in ids)
    await engine.writes.write(index, namespace, (Upsert(records),), request_id=mark)


async def asked(
    engine: Engine,
    index: IndexInfo,
    namespace: str,
    consistency: Consistency = Consistency.DEFAULT,
    deadline_s: float | None = None,
) -> tuple[dict[str, object], bool]:
    """(the mark of every record that is not an old one, whether the answer says that it is stale)

    A query by vector: it needs no id run.
    """
    options = ReadOptions(consistency, deadline_s=deadline_s)
    vector = np.ones(4, dtype=np.float32)
    request = QueryRequest(top_k=100, vector=vector, include_metadata=True, options=options)
    result = await engine.queries.query(index, namespace, request)
    found = {m.id: m.metadata["mark"] for m in result.matches if m.metadata is not None}
    assert namespace != "stuck" or sum(mark == "old" for mark in found.values()) == 20
    return {i: mark for i, mark in found.items() if mark != "old"}, result.freshness.stale


async def checkpoint_at_end(engine: Engine) -> None:
    end = await engine.parts.wal.end_offset(0)
    await until(lambda: engine.builder.committable(0) == end)


async def swept(engine: Engine) -> None:
    """Twice: a first round may only learn what the next one acts on."""
    await engine.freshness.sweep()
    await engine.freshness.sweep()


def held_back(engine: Engine) -> bool:
    return any(n.paused for n in engine.builder.status().partitions[0].namespaces)


async def test_reads_of_a_namespace_that_waits_for_a_person(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    ids = [f"r{n}" for n in range(20)]
    async with opened(folder) as engine:
        index = await new_index(engine)
        await write(engine, index, "stuck", *ids, mark="old")
        await checkpoint_at_end(engine)
    runs = [path for path in (folder / "objects").glob("*/*/ids/*") if path.is_file()]
    good = {path: path.read_bytes() for path in runs}
    assert good, "there is something to damage"
    for path in runs:
        path.write_bytes(b"decayed")
    rmtree(folder / "cache")

    async with opened(folder) as engine:
        await write(engine, index, "stuck", NEW, mark="new")
        await write(engine, index, "other", "r1", mark="other")
        await checkpoint_at_end(engine)
        assert held_back(engine)
        await swept(engine)
        found = await asked(engine, index, "stuck")
        assert found == ({NEW: "new"}, False), "what is not indexed is not forgotten"
        await check_other(engine, index)

    async with opened(folder) as engine:
        await swept(engine)
        await check_other(engine, index)
        await check_honest(engine, index)
        await write(engine, index, "stuck", NEWER, mark="newer")
        await checkpoint_at_end(engine)
        await swept(engine)
        await check_honest(engine, index)
        for path, data in good.items():
            path.write_bytes(data)
        await until(lambda: not held_back(engine) and not engine.builder._owned[0].held)
        for _ in range(2):
            assert await asked(engine, index, "stuck") == ({NEW: "new", NEWER: "newer"}, False)
            await swept(engine)
        assert engine.freshness._partitions[0].namespaces == {}, "all is forgotten in the end"


async def check_other(engine: Engine, index: IndexInfo) -> None:
    assert await asked(engine, index, "other") == ({"r1": "other"}, False)


async def check_honest(engine: Engine, index: IndexInfo) -> None:
    """A write is missing, and the answer says so; who insists on it gets an error."""
    assert await asked(engine, index, "stuck", deadline_s=0.2) == ({}, True)
    with pytest.raises(Unavailable):
        await asked(engine, index, "stuck", Consistency.STRONG, deadline_s=0.2)
