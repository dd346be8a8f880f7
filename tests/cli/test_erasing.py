"""`gc` and `purge` as an operator's verbs, on a data folder with an index builder."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cli.runtime.consuming import indexing
from cli.runtime.parts import Parts, open_parts
from cli.runtime.verbs import run_verb
from core.errors import InvalidRequest
from core.indexes import VectorType
from core.metric import Metric
from core.operations import DeleteIds, Entry, Operation, Upsert
from core.records import Record
from infra.catalog.model import NewIndex
from ingest.writer import LogWriter
from storage.layout import namespace_prefix
from tests.builder.world import record
from tests.cli.test_admin import settings

IDS = [f"somebody-{number}" for number in range(60)]


@pytest_asyncio.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with open_parts(settings(tmp_path, flush_age_s=0.05)) as opened:
        yield opened


async def ask(parts: Parts, verb: str, **arguments: object) -> Any:
    lines = [line async for line in run_verb(parts, verb, arguments)]
    return lines[-1]["result"]


async def made(parts: Parts) -> str:
    """An index with 60 records; its id."""
    project = await parts.catalog.ensure_project()
    new = NewIndex("docs", 4, Metric.EUCLIDEAN, VectorType.DENSE, {}, False, {})
    index = await parts.catalog.create_index(project.project_id, new, None)
    records: tuple[Record, ...] = tuple(record(name) for name in IDS)
    await write(parts, index.info.index_id, Upsert(records))
    return index.info.index_id


async def write(parts: Parts, index_id: str, operation: Operation) -> None:
    writer = LogWriter(parts.wal, parts.clock)
    await writer.write(index_id, "__default__", [Entry(operation)])
    await writer.close()


async def test_a_purge_waits_for_the_index_and_erases(parts: Parts) -> None:
    async with indexing(parts):
        index_id = await made(parts)
        rows = await ask(parts, "purge", index="docs", ids=[IDS[7]])
        assert [row["namespace"] for row in rows] == ["__default__"]
        assert (rows[0]["left"], rows[0]["holding"]) == ((), ())
        assert rows[0]["log"]["records"] == 1
        held = record(IDS[7]).values
        assert held is not None
        prefix = namespace_prefix(index_id, "__default__")
        async for info in parts.store.list(prefix):
            data = await parts.store.get(info.key)
            assert IDS[7].encode() not in data, info.key
            assert held.tobytes() not in data, info.key
        (again,) = await ask(parts, "purge", index="docs", namespace="__default__")
        assert (again["left"], again["rewritten"]) == ((), 0)


async def test_garbage_is_told_and_a_deleted_index_goes(parts: Parts) -> None:
    async with indexing(parts):
        index_id = await made(parts)
        await write(parts, index_id, DeleteIds(tuple(IDS[:30])))
        await ask(parts, "snapshot-create", index="docs")  # waits for the index
    orphan = namespace_prefix(index_id, "__default__") + "deltas/orphan.arrow"
    await parts.store.put(orphan, b"left by a killed process")
    (row,) = await ask(parts, "gc", dry_run=True)
    assert (row["index"], row["objects"]) == ("docs", 0)
    assert row["waiting_objects"] > 0, "it is young"
    (row,) = await ask(parts, "gc", index="docs", dry_run=True, grace_s=0.0)
    assert row["objects"] > 0
    assert await parts.store.stat(orphan) is not None
    with pytest.raises(InvalidRequest, match="120 s is the least"):
        await ask(parts, "gc", grace_s=0.0)
    await parts.store.put("unknown-index/x/y", b"")
    project = await parts.catalog.ensure_project()
    gone = await parts.catalog.delete_index(project.project_id, "docs")
    parts.directory.remember(gone.info)
    rows = await ask(parts, "gc", dry_run=True, grace_s=0.0)
    notes = {row["index"]: row["note"] for row in rows}
    assert notes["docs"] == "of a deleted index"
    assert "left alone" in notes["unknown-index"]


async def test_a_namespace_that_is_not_there_is_no_garbage(parts: Parts) -> None:
    await made(parts)
    assert await ask(parts, "gc", index="docs") == []
