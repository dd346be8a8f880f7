"""Exports, and what an import makes of them.

At stake: an export that is taken for a backup misses a write, has one too many, or comes back as
something else.
"""

import asyncio
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from builder.importing.importer import Importer, ImportParts
from cli.runtime.consumers import Bounds, builder_parts
from cli.runtime.embedded import Engine, open_engine
from cli.runtime.exporting import export_lines
from core.errors import AlreadyExists, FailedPrecondition, InvalidRequest, NotFound, Overloaded
from core.indexes import IndexInfo, VectorType
from core.metric import Metric
from core.operations import DeleteIds, UpdateById, Upsert
from core.records import Record, SparseValues
from infra.catalog.imports import ErrorMode, ImportState, ImportStore
from infra.catalog.model import NewIndex
from infra.imports.locations import locations_of
from infra.settings import Settings
from ingest.writer import LogWriter
from query.export import EXPORTS_MAX, PROJECT_EXPORTS_MAX
from query.model import Consistency, ReadOptions
from storage.layout import namespace_prefix, snapshots_prefix
from tests.builder.test_importing import TINY

STRONG = ReadOptions(consistency=Consistency.STRONG, deadline_s=20)


def settings_of(folder: Path) -> Settings:
    return Settings.load(
        {
            "data": folder / "data",
            "partitions": 2,
            "import_locations": f"file://{folder}/in/",
            "imports_at_once": 0,
        }
    )


async def index_of(engine: Engine, name: str, dimension: int | None) -> IndexInfo:
    project = await engine.parts.catalog.ensure_project()
    vector_type = VectorType.SPARSE if dimension is None else VectorType.DENSE
    new = NewIndex(name, dimension, Metric.DOTPRODUCT, vector_type, {}, False, {})
    return (await engine.parts.catalog.create_index(project.project_id, new, None)).info


def records_of(count: int, dimension: int | None) -> list[Record]:
    """With the corners of every type: denormals, the largest float, -0, text that needs escapes."""
    draw = np.random.default_rng(7)
    corners = np.array([1e-45, np.finfo(np.float32).max, -0.0, 1 / 3], np.float32)
    made: list[Record] = []
    for number in range(count):
        values = None
        if dimension is not None:
            values = draw.standard_normal(dimension).astype(np.float32)
            values[: len(corners)] = corners if number % 3 == 0 else values[: len(corners)]
        sparse = None
        if dimension is None or number % 2:
            indices = np.array([0, 5 + number, 0xFFFFFFFF], np.uint32)
            sparse = SparseValues(indices, draw.standard_normal(3).astype(np.float32))
        metadata: dict[str, Any] = {
            "whole": float(number),
            "third": number / 3,
            "tiny": 5e-324,
            "large": 1.7976931348623157e308,
            "yes": number % 2 == 0,
            "text": f'"{number}" \\ ü \u2028',
            "list": ["a", f"b{number}", ""],
            "empty": [],
        }
        made.append(Record(f"id {number}", values, sparse, metadata if number % 5 else {}))
    return made


def same(one: Record, other: Record) -> None:
    assert (one.id, one.metadata) == (other.id, other.metadata)
    kinds = [{name: type(value) for name, value in r.metadata.items()} for r in (one, other)]
    assert kinds[0] == kinds[1]
    for left, right in ((one.values, other.values), (one.sparse, other.sparse)):
        assert (left is None) == (right is None)
    if one.values is not None and other.values is not None:
        assert one.values.tobytes() == other.values.tobytes()
    if one.sparse is not None and other.sparse is not None:
        assert one.sparse.indices.tobytes() == other.sparse.indices.tobytes()
        assert one.sparse.values.tobytes() == other.sparse.values.tobytes()


async def write(engine: Engine, info: IndexInfo, namespace: str, *operations: Any) -> int:
    return await engine.writes.write(info, namespace, operations, request_id="")


async def exported(engine: Engine, info: IndexInfo, namespace: str) -> tuple[int, bytes]:
    async with engine.queries.export(info, namespace) as made:
        data = b"".join([chunk async for chunk in made.chunks])
        assert pq.read_metadata(io.BytesIO(data)).num_rows == made.records
        return made.lsn, data


async def imported(engine: Engine, info: IndexInfo, folder: Path) -> None:
    parts = engine.parts
    store = ImportStore(parts.catalog.database)
    work = await store.create(info.index_id, f"file://{folder}/in/set/", ErrorMode.ABORT)
    writer = LogWriter(parts.wal, parts.clock)
    await Importer(
        ImportParts(
            builder=builder_parts(parts, parts.caches[0]),
            settings=TINY,
            writer=writer,
            imports=store,
            locations=locations_of(parts.settings),
            namespaces=parts.catalog.quotas.namespaces,
            scratch=folder,
        ),
        work,
    ).run()
    await writer.close()
    ended = await store.get(work.index_id, work.import_id)
    assert (ended.state, ended.error) == (ImportState.COMPLETED, "")


@pytest.mark.parametrize("dimension", [8, None])
async def test_what_is_exported_and_imported_is_the_same_bit_for_bit(
    tmp_path: Path, dimension: int | None
) -> None:
    records = records_of(700, dimension)
    async with open_engine(settings_of(tmp_path), Bounds(building=TINY)) as engine:
        first = await index_of(engine, "first", dimension)
        second = await index_of(engine, "second", dimension)
        for start in range(0, len(records), 100):
            await write(engine, first, "a", Upsert(tuple(records[start : start + 100])))
        await write(engine, first, "a", DeleteIds(("id 3",)))
        changed = UpdateById("id 4", set_metadata={"new": True})
        lsn = await write(engine, first, "a", changed)
        at, data = await exported(engine, first, "a")
        assert at == lsn
        assert pq.read_schema(io.BytesIO(data)).metadata[b"firndb.lsn"] == str(lsn).encode()
        path = tmp_path / "in" / "set" / "copy" / "a.parquet"
        await asyncio.to_thread(path.parent.mkdir, parents=True)
        await asyncio.to_thread(path.write_bytes, data)
        await imported(engine, second, tmp_path)
        ids = [record.id for record in records]
        before = (await engine.queries.fetch(first, "a", ids, STRONG)).records
        after = (await engine.queries.fetch(second, "copy", ids, STRONG)).records
        assert before.keys() == after.keys() == {*ids} - {"id 3"}
        for record in records:
            if record.id not in ("id 3", "id 4"):
                same(record, after[record.id])
        same(before["id 4"], after["id 4"])


async def test_an_export_has_what_was_there_at_its_lsn_while_everything_changes(
    tmp_path: Path,
) -> None:
    """All is overwritten, compacted and collected without grace in the middle of the stream."""
    records = records_of(600, 8)
    async with open_engine(settings_of(tmp_path), Bounds(building=TINY)) as engine:
        info = await index_of(engine, "first", 8)
        await write(engine, info, "a", Upsert(tuple(records)))
        async with engine.queries.export(info, "a") as made:
            chunks = [await anext(made.chunks)]
            other = [Record(r.id, r.values, None, {"over": True}) for r in records]
            lsn = await write(engine, info, "a", Upsert(tuple(other[:300])), DeleteIds(("id 599",)))
            await engine.builder.flush()
            await engine.builder.compact()
            chunks += [chunk async for chunk in made.chunks]
        table = pq.read_table(io.BytesIO(b"".join(chunks)))
        assert made.lsn < lsn
        assert sorted(map(str, table["id"].to_pylist())) == sorted(r.id for r in records)
        assert "over" not in "".join(text or "" for text in table["metadata"].to_pylist())
        store = engine.parts.store
        prefix = snapshots_prefix(namespace_prefix(info.index_id, "a"))
        assert [one.key async for one in store.list(prefix)] == [], "the pin is gone"


async def test_so_many_at_a_time_and_none_of_what_is_not_there(tmp_path: Path) -> None:
    async with open_engine(settings_of(tmp_path), Bounds(building=TINY)) as engine:
        info = await index_of(engine, "first", 8)
        with pytest.raises(NotFound, match="'a' not found"):
            await exported(engine, info, "a")
        await write(engine, info, "a", Upsert(tuple(records_of(3, 8))))
        held = [engine.queries.export(info, "a") for _ in range(PROJECT_EXPORTS_MAX)]
        for one in held:
            await one.__aenter__()
        with pytest.raises(Overloaded, match="2 exports of this project are running here, 2 in"):
            await exported(engine, info, "a")
        other = replace(info, project_id="another")
        held += [
            engine.queries.export(other, "a") for _ in range(EXPORTS_MAX - PROJECT_EXPORTS_MAX)
        ]
        for one in held[PROJECT_EXPORTS_MAX:]:
            await one.__aenter__()
        with pytest.raises(Overloaded, match="0 exports of this project are running here, 4 in"):
            await exported(engine, replace(info, project_id="third"), "a")
        for one in held:
            await one.__aexit__(None, None, None)
        await exported(engine, info, "a")


async def test_the_command_writes_a_whole_file_or_none(tmp_path: Path) -> None:
    async with open_engine(settings_of(tmp_path), Bounds(building=TINY)) as engine:
        info = await index_of(engine, "first", 8)
        lsn = await write(engine, info, "__default__", Upsert(tuple(records_of(30, 8))))
        later = await write(engine, info, "__default__", DeleteIds(("id 1",)))

        async def run(name: str, lsn: int | None = None) -> dict[str, Any]:
            found: dict[str, Any] = {}
            async for line in export_lines(engine.parts, "first", str(tmp_path / name), "", lsn):
                found = line
            result: dict[str, Any] = found["result"]
            return result

        done = await run("a.parquet")
        assert (done["records"], done["lsn"]) == (29, later)
        assert pq.read_table(tmp_path / "a.parquet").num_rows == 29
        assert (await run("b.parquet", later))["lsn"] == later
        with pytest.raises(AlreadyExists, match=r"a\.parquet exists"):
            await run("a.parquet")
        with pytest.raises(FailedPrecondition, match=rf"firndb restore first --to-lsn {lsn}`"):
            await run("c.parquet", lsn)
        with pytest.raises(InvalidRequest, match="is not written yet"):
            await run("c.parquet", later + 1)
        with pytest.raises(FailedPrecondition, match="cannot be written"):
            await run("no/folder.parquet")
        left = await asyncio.to_thread(lambda: sorted(p.name for p in tmp_path.glob("*parquet*")))
        assert left == ["a.parquet", "b.parquet"]
