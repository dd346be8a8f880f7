"""The Arrow object of a cluster file or delta: its columns, row for row, read without a copy.

An Arrow IPC file with one record batch, uncompressed. Columns: id utf8; lsn int64; metadata binary
(a msgpack map, empty for empty metadata); sparse_indices list<uint32> and sparse_values
list<float32>, left out where no row has sparse values; vector fixed_size_list<float32> in deltas;
inverted binary in cluster files: the bitmaps of `core.filters.inverted` in row 0, no bytes in
others. The schema's metadata says whose file it is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from core.errors import CorruptData
from core.filters.inverted import encode as encode_inverted
from core.metric import F32
from core.records import Metadata, SparseValues
from core.sparse import SparseColumns
from storage.layout import NamespaceSchema
from storage.rows import Rows

FORMAT = "1"
# A file's bitmaps: 5 % of it, and of the largest files so much that they are read in no time.
INVERTED_BYTES_MAX = 64 << 10
_INVERTED_SHARE = 20

_metadata_encoder = msgspec.msgpack.Encoder()
_metadata_decoder = msgspec.msgpack.Decoder(Metadata)
# pyarrow's type stubs lag behind it: its arrays are handled untyped here, and nowhere else.
_Array = Any
_Offsets = npt.NDArray[np.int32]


def encode_columns(rows: Rows, schema: NamespaceSchema, kind: str, *, with_vectors: bool) -> bytes:
    """The file of n >= 1 rows; `kind` is cluster or delta."""
    if len(rows) == 0:
        raise ValueError("a data file needs at least one row")
    metadata = [_metadata_encoder.encode(m) if m else b"" for m in rows.metadata]
    columns: dict[str, _Array] = {
        "id": pa.array(rows.ids, type=pa.string()),
        "lsn": pa.array(rows.lsns, type=pa.int64()),
        "metadata": pa.array(metadata, type=pa.binary()),
    }
    if kind == "cluster":
        # Deltas are folded soon: not worth their bitmaps.
        size = sum(map(len, metadata)) + (0 if rows.vectors is None else rows.vectors.nbytes)
        inverted = encode_inverted(rows.metadata, min(size // _INVERTED_SHARE, INVERTED_BYTES_MAX))
        if inverted:
            columns["inverted"] = pa.array([inverted] + [b""] * (len(rows) - 1), type=pa.binary())
    if any(sparse is not None for sparse in rows.sparse):
        columns |= _sparse_arrays(rows.sparse)
    if with_vectors and rows.vectors is not None:
        flat = np.ascontiguousarray(rows.vectors, dtype="<f4").reshape(-1)
        columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(flat), rows.vectors.shape[1])
    batch = pa.record_batch(list(columns.values()), names=list(columns))
    batch = batch.replace_schema_metadata(_header(schema, kind))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    encoded: bytes = sink.getvalue().to_pybytes()
    return encoded


def _header(schema: NamespaceSchema, kind: str) -> dict[str, str]:
    return {
        "firn.format": FORMAT,
        "firn.kind": kind,
        "firn.index": schema.index_id,
        "firn.namespace": schema.namespace,
        "firn.metric": schema.metric.value,
        "firn.dimension": str(schema.dimension or 0),
    }


def _sparse_arrays(sparse: Sequence[SparseValues | None]) -> dict[str, _Array]:
    columns = SparseColumns.build(sparse)
    offsets: _Array = pa.array(columns.indptr.astype(np.int32))
    indices: _Array = pa.array(columns.indices)
    values: _Array = pa.array(columns.values)
    return {
        "sparse_indices": pa.ListArray.from_arrays(offsets, indices),
        "sparse_values": pa.ListArray.from_arrays(offsets, values),
    }


@dataclass(frozen=True, slots=True, eq=False)
class _Strings:
    """A utf8 or binary column: value i is data[offsets[i]:offsets[i + 1]]."""

    offsets: _Offsets
    data: memoryview

    def one(self, row: int) -> bytes:
        return bytes(self.data[self.offsets[row] : self.offsets[row + 1]])

    def some(self, rows: Iterable[int]) -> Iterable[bytes]:
        data, offsets = self.data, self.offsets
        return (bytes(data[offsets[row] : offsets[row + 1]]) for row in rows)

    def every(self) -> list[bytes]:
        data = bytes(self.data)
        bounds = self.offsets.tolist()
        return [data[start:end] for start, end in pairwise(bounds)]


class ColumnsFile:
    """The opened columns of n rows: views into `data`, which stays alive as long as they do."""

    def __init__(self, data: pa.Buffer, where: str) -> None:
        """`CorruptData` naming `where` if the bytes are no such file of a known format."""
        self.data = data
        try:
            batch = pa.ipc.open_file(pa.BufferReader(data)).get_batch(0)
            self.header = {k.decode(): v.decode() for k, v in batch.schema.metadata.items()}
            if self.header["firn.format"] != FORMAT:
                raise CorruptData(
                    f"{where} has format {self.header['firn.format']}; this build reads {FORMAT}"
                )
            self.rows: int = batch.num_rows
            self.lsns: npt.NDArray[np.int64] = batch.column("lsn").to_numpy()
            self._ids = _strings(batch.column("id"))
            self._metadata = _strings(batch.column("metadata"))
            self._sparse = _sparse(batch)
            self.vectors = _vectors(batch)
            self.inverted = _inverted(batch)
        except (pa.ArrowException, KeyError, AttributeError, UnicodeDecodeError) as error:
            raise CorruptData(f"{where} is not a columns file: {error!r}") from error

    @property
    def sparse(self) -> SparseColumns | None:
        return self._sparse

    @property
    def metadata_bytes(self) -> int:
        return len(self._metadata.data)

    def id(self, row: int) -> str:
        return self._ids.one(row).decode()

    def ids(self, rows: Iterable[int]) -> list[str]:
        return [value.decode() for value in self._ids.some(rows)]

    def all_ids(self) -> list[str]:
        text = bytes(self._ids.data).decode()
        if len(text) == len(self._ids.data):  # ASCII: byte offsets are character offsets
            return [text[start:end] for start, end in pairwise(self._ids.offsets.tolist())]
        return [value.decode() for value in self._ids.every()]

    def metadata(self, rows: Iterable[int]) -> list[Metadata]:
        decode = _metadata_decoder.decode
        return [decode(value) if value else {} for value in self._metadata.some(rows)]

    def metadata_sizes(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """Encoded bytes, row for row."""
        offsets = self._metadata.offsets
        sizes: npt.NDArray[np.int32] = offsets[rows + 1] - offsets[rows]
        return sizes

    def all_metadata(self) -> list[Metadata]:
        decode = _metadata_decoder.decode
        return [decode(value) if value else {} for value in self._metadata.every()]


def _strings(column: _Array) -> _Strings:
    _, offsets, data = column.buffers()
    bounds = np.frombuffer(offsets, dtype="<i4", count=len(column) + 1)
    return _Strings(bounds, memoryview(data if data is not None else b"")[: bounds[-1]])


def _sparse(batch: pa.RecordBatch) -> SparseColumns | None:
    if "sparse_indices" not in batch.schema.names:
        return None
    indices: _Array = batch.column("sparse_indices")
    values: _Array = batch.column("sparse_values")
    return SparseColumns(
        indices.offsets.to_numpy().astype(np.int64),
        indices.values.to_numpy(),
        values.values.to_numpy(),
    )


def _inverted(batch: pa.RecordBatch) -> memoryview | None:
    """What `core.filters.inverted.Inverted` takes; None in deltas and older files."""
    if "inverted" not in batch.schema.names:
        return None
    column = _strings(batch.column("inverted"))
    return column.data[column.offsets[0] : column.offsets[1]]


def _vectors(batch: pa.RecordBatch) -> F32 | None:
    if "vector" not in batch.schema.names:
        return None
    column: _Array = batch.column("vector")
    flat: F32 = column.values.to_numpy(zero_copy_only=True)
    return flat.reshape(len(column), column.type.list_size)
