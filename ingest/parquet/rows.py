"""From columns of a Parquet file to records, judged by the rules of an upsert.

Columns: id string; values list of floats; sparse_values struct of indices (list of integers) and
values (list of floats); metadata string, a JSON object. Nulls are allowed where an upsert may leave
the field out. Other columns are not read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.errors import InvalidRequest
from core.indexes import IndexInfo
from core.limits import METADATA_BYTES_MAX, SPARSE_INDEX_MAX, UPSERT_RECORDS_MAX
from core.records import Record
from ingest import validate
from ingest.bodies import SparseBody, VectorBody

# The types of pyarrow's arrays do not say what their kinds can do.
Column = Any
Numbers = npt.NDArray[Any]

COLUMNS = ("id", "values", "sparse_values", "metadata")
# White space and escapes may make the text of allowed metadata longer, but not without bound.
_METADATA_TEXT_MAX = 16 * METADATA_BYTES_MAX


class BadFile(Exception):
    """The file as a whole is not what it should be."""


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Rows [first_row, first_row + rows): the records among them, and why others are none."""

    first_row: int
    rows: int
    records: Sequence[Record]
    wrong: Sequence[tuple[int, str]]


class RowReader:
    """One file. `BadFile` if its columns are not those of an import into this index."""

    def __init__(self, file: pq.ParquetFile, info: IndexInfo) -> None:
        self._file = file
        self._info = info
        self.rows: int = file.metadata.num_rows
        self._columns = _checked_columns(file.schema_arrow, info)

    def judged(self, skip_rows: int) -> Iterator[Judged]:
        """From row `skip_rows` on, at most 1,000 rows at a time, in the order of the file."""
        at = 0
        for group in range(self._file.metadata.num_row_groups):
            rows = self._file.metadata.row_group(group).num_rows
            if at + rows <= skip_rows:
                at += rows
                continue
            for batch in self._file.iter_batches(
                batch_size=UPSERT_RECORDS_MAX,
                row_groups=[group],
                columns=self._columns,
                use_threads=False,
            ):
                fresh = max(0, min(batch.num_rows, skip_rows - at))
                if fresh < batch.num_rows:
                    yield self._judge(at + fresh, batch.slice(fresh))
                at += batch.num_rows

    def _judge(self, first_row: int, batch: pa.RecordBatch) -> Judged:
        bodies = _bodies(batch, self._info)
        whole = [body for body in bodies if isinstance(body, VectorBody)]
        if len(whole) == len(bodies):
            try:
                records = validate.upsert(whole, self._info).records
                return Judged(first_row, batch.num_rows, records, ())
            except InvalidRequest:
                pass  # one by one, then
        found: list[Record] = []
        wrong: list[tuple[int, str]] = []
        for row, body in enumerate(bodies, first_row):
            if isinstance(body, str):
                wrong.append((row, body))
                continue
            try:
                found += validate.upsert([body], self._info).records
            except InvalidRequest as error:
                wrong.append((row, str(error)))
        return Judged(first_row, batch.num_rows, found, wrong)


def _checked_columns(schema: pa.Schema, info: IndexInfo) -> list[str]:
    dense = info.dimension is not None
    needed = ("id", "values") if dense else ("id", "sparse_values")
    columns: list[str] = []
    for name in COLUMNS:
        count = len(schema.get_all_field_indices(name))
        if count == 0 and name in needed:
            kind = "dense" if dense else "sparse"
            raise BadFile(f"it has no column {name}, which an index of {kind} vectors needs")
        if count > 1:
            raise BadFile(f"it has {count} columns {name}")
        if count == 1:
            kind = schema.field(name).type
            if not _FITS[name](kind):
                raise BadFile(f"its column {name} is {kind}, not {_WANTED[name]}")
            columns.append(name)
    return columns


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_list(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _is_floats(kind: Any) -> bool:
    return _is_list(kind) and pa.types.is_floating(kind.value_type)


def _is_sparse(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind) or {field.name for field in kind} != {"indices", "values"}:
        return False
    indices = kind.field("indices").type
    whole = _is_list(indices) and pa.types.is_integer(indices.value_type)
    return whole and _is_floats(kind.field("values").type)


_FITS = {"id": _is_text, "values": _is_floats, "sparse_values": _is_sparse, "metadata": _is_text}
_WANTED = {
    "id": "a string",
    "values": "a list of floats",
    "sparse_values": "a struct of indices (a list of integers) and values (a list of floats)",
    "metadata": "a string (a JSON object)",
}


def _bodies(batch: pa.RecordBatch, info: IndexInfo) -> list[VectorBody | str]:
    """One for each row; a text says why the row cannot even be judged."""
    rows = batch.num_rows
    names = batch.schema.names
    nothing: list[Any] = [None] * rows
    ids = _texts(batch.column("id"))
    values = _floats(batch.column("values")) if "values" in names else nothing
    sparse = _sparse(batch.column("sparse_values")) if "sparse_values" in names else nothing
    metadata = _texts(batch.column("metadata")) if "metadata" in names else nothing
    return [_body(*row) for row in zip(ids, values, sparse, metadata, strict=True)]


def _body(
    record_id: str | Exception | None,
    values: bytes | Exception | None,
    sparse: SparseBody | Exception | None,
    metadata: str | Exception | None,
) -> VectorBody | str:
    for part in (record_id, values, sparse, metadata):
        if isinstance(part, Exception):
            return str(part)
    if not isinstance(record_id, str):
        return "Vector ID is null."
    assert not isinstance(values, Exception), values
    assert not isinstance(sparse, Exception), sparse
    found: Any = None
    if isinstance(metadata, str):
        if len(metadata) > _METADATA_TEXT_MAX:
            return f"Metadata of {len(metadata)} characters is too long, in vector '{record_id}'."
        try:
            found = orjson.loads(metadata)
        except orjson.JSONDecodeError as error:
            return f"Metadata is not valid JSON: {error}, in vector '{record_id}'."
        if not isinstance(found, dict | None):
            return f"Metadata must be a JSON object, in vector '{record_id}'."
    return VectorBody(id=record_id, values=values, sparse_values=sparse, metadata=found)


def _texts(column: Column) -> list[str | Exception | None]:
    try:
        found: list[str | Exception | None] = column.to_pylist()
        return found
    except UnicodeDecodeError:
        return [_text(cell) for cell in column]


def _text(cell: Any) -> str | Exception | None:
    try:
        text: str | None = cell.as_py()
        return text
    except UnicodeDecodeError:
        return ValueError("A text is not valid UTF-8.")


def _floats(column: Column) -> list[bytes | Exception | None]:
    """Little-endian float32; what is out of their range becomes infinite, and is refused then."""
    flat, offsets, there = _flattened(column)
    numbers: Column = pc.cast(flat, pa.float32(), safe=False)
    packed = _filled(numbers).astype("<f4").tobytes()
    nulls = _nulls_before(numbers)
    return [
        None
        if not is_there
        else _NULL_INSIDE
        if nulls is not None and nulls[end] != nulls[start]
        else packed[4 * start : 4 * end]
        for start, end, is_there in zip(offsets[:-1], offsets[1:], there, strict=True)
    ]


_NULL_INSIDE = ValueError("A list of values contains a null.")


def _sparse(column: Column) -> list[SparseBody | Exception | None]:
    values = _floats(column.field("values"))
    flat, offsets, there = _flattened(column.field("indices"))
    nulls = _nulls_before(flat)
    numbers = _filled(flat)
    valid = column.is_valid().to_pylist()
    found: list[SparseBody | Exception | None] = []
    for row, (start, end) in enumerate(pairwise(offsets)):
        packed = values[row]
        if isinstance(packed, Exception):
            found.append(packed)
        elif not valid[row]:
            found.append(None)
        elif not there[row] or packed is None or (nulls is not None and nulls[end] != nulls[start]):
            found.append(ValueError("Sparse values need both indices and values, without nulls."))
        else:
            found.append(SparseBody(_indices(numbers[start:end]), packed))
    return found


def _indices(numbers: Numbers) -> bytes | list[int]:
    if len(numbers) and (numbers.min() < 0 or numbers.max() > SPARSE_INDEX_MAX):
        return [int(number) for number in numbers]  # for the error's text
    return numbers.astype("<u4").tobytes()


def _flattened(column: Column) -> tuple[Column, list[int], list[bool]]:
    """(all elements, where each row's begin and end, which rows are there)"""
    lengths = _filled(pc.list_value_length(column))
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).tolist()
    return column.flatten(), offsets, column.is_valid().to_pylist()


def _filled(numbers: Column) -> Numbers:
    whole: Column = pc.fill_null(numbers, 0)
    filled: Numbers = whole.to_numpy(zero_copy_only=False)
    return filled


def _nulls_before(numbers: Column) -> Numbers | None:
    """How many nulls there are before each element and the end; None: there are none at all."""
    if numbers.null_count == 0:
        return None
    nulls = numbers.is_null().to_numpy(zero_copy_only=False)
    return np.concatenate([[0], np.cumsum(nulls)])
