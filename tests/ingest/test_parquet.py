"""Parquet files as records.

At stake: a row that an upsert would refuse comes in by an import; a hostile file takes the server's
memory, or its life.
"""

import io
import json
import os
import tempfile
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import InvalidRequest
from core.indexes import IndexInfo, IndexState, VectorType
from core.limits import IMPORT_READER_BYTES_MAX
from core.metric import Metric
from core.records import Record
from ingest import validate
from ingest.bodies import SparseBody, VectorBody
from ingest.parquet.reader import BadRow, ParquetReader, RecordBatch

DENSE = IndexInfo("i", "p", "n", 3, Metric.COSINE, VectorType.DENSE, IndexState.READY)
HYBRID = IndexInfo("i", "p", "n", 3, Metric.DOTPRODUCT, VectorType.DENSE, IndexState.READY)
SPARSE = IndexInfo("i", "p", "n", None, Metric.DOTPRODUCT, VectorType.SPARSE, IndexState.READY)
SPARSE_TYPE = pa.struct([("indices", pa.list_(pa.int64())), ("values", pa.list_(pa.float32()))])

Open = Callable[..., ParquetReader]


@pytest.fixture
async def reader_of() -> AsyncIterator[Open]:
    made: list[ParquetReader] = []

    def reader(info: IndexInfo = DENSE, *, abort: bool = False) -> ParquetReader:
        made.append(ParquetReader(info, abort=abort))
        return made[-1]

    yield reader
    for one in made:
        await one.close()


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, **options)
    return out.getvalue()


def descriptor(data: bytes) -> int:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        return os.dup(file.fileno())


async def batches(reader: ParquetReader, data: bytes, skip_rows: int = 0) -> list[RecordBatch]:
    await reader.open(descriptor(data), skip_rows)
    found: list[RecordBatch] = []
    while (batch := await reader.next()) is not None:
        found.append(batch)
    return found


async def records(reader: ParquetReader, data: bytes) -> list[Record]:
    return [record for batch in await batches(reader, data) for record in batch.records]


def rows(count: int) -> dict[str, Any]:
    return {
        "id": [f"r{n}" for n in range(count)],
        "values": pa.array([[n, 1, 2] for n in range(count)], pa.list_(pa.float32())),
    }


async def test_all_columns_and_their_nulls(reader_of: Open) -> None:
    wanted = {"a": "text", "b": 1.5, "c": True, "d": ["x", "y"], "e": 3}
    sparse = [{"indices": [7, 2], "values": [0.5, 1.5]}, None, {"indices": [1], "values": [2.0]}]
    columns = {
        **rows(3),
        "sparse_values": pa.array(sparse, SPARSE_TYPE),
        "metadata": [json.dumps(wanted), None, "null"],
        "another": [1, 2, 3],
    }
    first, second, third = await records(reader_of(HYBRID), parquet(columns))
    assert first.id == "r0"
    assert first.values is not None
    np.testing.assert_array_equal(first.values, np.array([0, 1, 2], np.float32))
    assert first.metadata == {**wanted, "e": 3.0}
    assert isinstance(first.metadata["e"], float)
    assert first.sparse is not None
    assert (first.sparse.indices.tolist(), first.sparse.values.tolist()) == ([2, 7], [1.5, 0.5])
    assert (second.sparse, second.metadata, third.metadata) == (None, {}, {})


async def test_a_sparse_index(reader_of: Open) -> None:
    columns = {
        "id": ["a", "b"],
        "sparse_values": pa.array([{"indices": [9], "values": [1.0]}, None], SPARSE_TYPE),
    }
    (batch,) = await batches(reader_of(SPARSE), parquet(columns))
    assert [record.id for record in batch.records] == ["a"]
    assert batch.reasons == ("row 1: Sparse indexes need sparse values; Vector ID 'b' has none.",)


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float64()),
        pa.large_list(pa.float32()),
        pa.list_(pa.float32(), 3),
        pa.list_(pa.float16()),
    ],
)
async def test_lists_of_every_kind_of_float(reader_of: Open, kind: pa.DataType) -> None:
    values = pa.array([np.array([1, 2, 3], np.float16)] * 2, pa.list_(pa.float16())).cast(kind)
    found = await records(reader_of(), parquet({"id": ["a", "b"], "values": values}))
    assert [r.values.tolist() for r in found if r.values is not None] == [[1, 2, 3]] * 2


WRONG: list[tuple[dict[str, Any], VectorBody | None]] = [
    ({"id": ""}, VectorBody(id="", values=[1, 2, 3])),
    ({"id": "é"}, VectorBody(id="é", values=[1, 2, 3])),
    ({"id": "x" * 513}, VectorBody(id="x" * 513, values=[1, 2, 3])),
    ({"id": None}, None),
    ({"values": [1.0, 2.0]}, VectorBody(id="a", values=[1, 2])),
    ({"values": None}, VectorBody(id="a")),
    ({"values": [0.0, 0.0, 0.0]}, VectorBody(id="a", values=[0, 0, 0])),
    ({"values": [1.0, float("nan"), 0.0]}, VectorBody(id="a", values=[1, float("nan"), 0])),
    ({"values": [1.0, None, 0.0]}, None),
    ({"metadata": "{"}, None),
    ({"metadata": "[1]"}, None),
    ({"metadata": '{"a": null}'}, VectorBody(id="a", values=[1, 2, 3], metadata={"a": None})),
    ({"metadata": '{"a": {}}'}, VectorBody(id="a", values=[1, 2, 3], metadata={"a": {}})),
    ({"metadata": '{"$a": 1}'}, VectorBody(id="a", values=[1, 2, 3], metadata={"$a": 1})),
    (
        {"metadata": json.dumps({"a": "x" * 50_000})},
        VectorBody(id="a", values=[1, 2, 3], metadata={"a": "x" * 50_000}),
    ),
    ({"metadata": json.dumps({"a": "x" * 700_000})}, None),
    (
        {"sparse_values": {"indices": [1, 1], "values": [1.0, 2.0]}},
        VectorBody(id="a", values=[1, 2, 3], sparse_values=SparseBody([1, 1], [1, 2])),
    ),
    (
        {"sparse_values": {"indices": [-1], "values": [1.0]}},
        VectorBody(id="a", values=[1, 2, 3], sparse_values=SparseBody([-1], [1])),
    ),
    (
        {"sparse_values": {"indices": [1 << 32], "values": [1.0]}},
        VectorBody(id="a", values=[1, 2, 3], sparse_values=SparseBody([1 << 32], [1])),
    ),
    (
        {"sparse_values": {"indices": [1, 2], "values": [1.0]}},
        VectorBody(id="a", values=[1, 2, 3], sparse_values=SparseBody([1, 2], [1])),
    ),
    ({"sparse_values": {"indices": None, "values": [1.0]}}, None),
]


async def test_rows_are_judged_as_an_upsert_judges_records(reader_of: Open) -> None:
    """Same rules, same texts; `continue` leaves the wrong ones out and tells where they are."""
    right = {"values": [1.0, 2.0, 3.0], "metadata": None, "sparse_values": None}
    given = [{"id": "a", **right}, *({"id": "a", **right, **wrong} for wrong, _ in WRONG)]
    columns = {
        "id": [row["id"] for row in given],
        "values": pa.array([row["values"] for row in given], pa.list_(pa.float32())),
        "sparse_values": pa.array([row["sparse_values"] for row in given], SPARSE_TYPE),
        "metadata": [row["metadata"] for row in given],
    }
    (batch,) = await batches(reader_of(HYBRID), parquet(columns))
    assert [record.id for record in batch.records] == ["a"]
    assert batch.skipped == len(WRONG)
    for number, (reason, (_, body)) in enumerate(zip(batch.reasons, WRONG, strict=False), 1):
        assert reason.startswith(f"row {number}: ")
        if body is not None:
            with pytest.raises(InvalidRequest) as raised:
                validate.upsert([body], HYBRID)
            assert reason == f"row {number}: {raised.value}"


async def test_abort_ends_with_the_first_wrong_row(reader_of: Open) -> None:
    columns = rows(2500)
    columns["id"][1700] = ""
    reader = reader_of(abort=True)
    await reader.open(descriptor(parquet(columns)))
    assert (await reader.next()) is not None
    with pytest.raises(BadRow, match=r"row 1700: Vector ID must be between"):
        await reader.next()


async def test_whoever_goes_on_gets_the_rest_once(reader_of: Open) -> None:
    data = parquet(rows(3210), row_group_size=700)
    reader = reader_of()
    whole = await batches(reader, data)
    assert [batch.next_row for batch in whole] == [700, 1400, 2100, 2800, 3210]
    for skip in (0, 1, 699, 700, 701, 2100, 3209, 3210):
        found = await batches(reader, data, skip)
        ids = [record.id for batch in found for record in batch.records]
        assert ids == [f"r{n}" for n in range(skip, 3210)]


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"values": [[1.0, 2.0, 3.0]]}, "no column id"),
        ({"id": ["a"]}, "no column values"),
        ({"id": [1], "values": [[1.0, 2.0, 3.0]]}, "column id is int64"),
        ({"id": ["a"], "values": ["x"]}, "column values is string"),
        ({"id": ["a"], "values": [[1, 2, 3]]}, "column values is list"),
        ({"id": ["a"], "values": [[1.0]], "metadata": [{"a": 1}]}, "column metadata is struct"),
        ({"id": ["a"], "values": [[1.0]], "sparse_values": ["{}"]}, "column sparse_values is"),
    ],
)
async def test_other_columns_are_refused_by_name(
    reader_of: Open, columns: dict[str, Any], why: str
) -> None:
    reader = reader_of()
    with pytest.raises(InvalidRequest, match=why):
        await reader.open(descriptor(parquet(columns)))
    assert len(await records(reader, parquet(rows(2)))) == 2, "the next file is read as ever"


def damaged() -> list[bytes]:
    whole = parquet(rows(5000))
    middle = bytearray(whole)
    middle[4 : len(whole) // 2] = os.urandom(len(whole) // 2 - 4)
    footer = bytearray(whole)
    footer[-200:-8] = bytes(192)
    encrypted = whole[:-4] + b"PARE"
    return [
        b"",
        b"PAR1",
        whole[:-1],
        whole[: len(whole) // 2],
        bytes(middle),
        bytes(footer),
        encrypted,
    ]


async def test_damaged_files_are_clear_errors(reader_of: Open) -> None:
    reader = reader_of()
    for data in damaged():
        with pytest.raises(InvalidRequest, match=r"Parquet|decode"):
            await batches(reader, data)
    assert len(await records(reader, parquet(rows(2)))) == 2


async def test_a_small_file_that_decodes_to_gigabytes_is_refused(
    reader_of: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here 256 MB of zeros in a few kilobytes, of a process that may take 64 MB more than it has at
    its start; in earnest it is a gigabyte.
    """
    assert IMPORT_READER_BYTES_MAX == 1 << 30
    monkeypatch.setattr("ingest.parquet.reader.IMPORT_READER_BYTES_MAX", 64 << 20)
    zeros = pa.array(np.zeros(1 << 26, np.float32))
    values = pa.ListArray.from_arrays(pa.array([0, 1 << 26], pa.int32()), zeros)
    data = parquet({"id": ["a"], "values": values}, compression="zstd")
    assert len(data) < 1 << 20
    reader = reader_of()
    with pytest.raises(InvalidRequest, match=r"memory to decode|process that decodes it end"):
        await batches(reader, data)
    assert len(await records(reader, parquet(rows(2)))) == 2
