"""Rows as a Parquet file that an import takes, handed out a row group at a time."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from core.records import SparseValues
from storage.rows import Rows

VALUES = pa.field("values", pa.list_(pa.float32()))
SPARSE = pa.field(
    "sparse_values",
    pa.struct([("indices", pa.list_(pa.int64())), ("values", pa.list_(pa.float32()))]),
)


class GroupWriter:
    """`dimension` None: of a sparse index. Each call gives the bytes that follow those before."""

    def __init__(self, dimension: int | None, about: dict[bytes | str, bytes | str]) -> None:
        dense = [] if dimension is None else [VALUES]
        fields = [
            pa.field("id", pa.string(), nullable=False),
            *dense,
            SPARSE,
            pa.field("metadata", pa.string()),
        ]
        self._schema = pa.schema(fields, metadata=about)
        self._out = io.BytesIO()
        self._writer = pq.ParquetWriter(
            pa.PythonFile(_Sink(self._out), mode="w"),
            self._schema,
            compression="zstd",
            # Ids and vectors do not repeat; a dictionary would only be thrown away again.
            use_dictionary=False,
        )

    def group(self, rows: Rows) -> bytes:
        """At least one row. CPU-bound: off the event loop."""
        columns: dict[str, Any] = {"id": list(rows.ids)}
        if rows.vectors is not None:
            count, dimension = rows.vectors.shape
            offsets: Any = pa.array(np.arange(count + 1, dtype=np.int32) * dimension)
            flat: Any = pa.array(np.ascontiguousarray(rows.vectors).ravel())
            columns["values"] = pa.ListArray.from_arrays(offsets, flat)
        columns["sparse_values"] = _sparse(rows.sparse)
        columns["metadata"] = [orjson.dumps(m).decode() if m else None for m in rows.metadata]
        self._writer.write_table(pa.table(columns, schema=self._schema), row_group_size=len(rows))
        return self._taken()

    def end(self) -> bytes:
        """The footer. The file without it is none."""
        self._writer.close()
        return self._taken()

    def _taken(self) -> bytes:
        data = self._out.getvalue()
        self._out.seek(0)
        self._out.truncate()
        return data


class _Sink(io.RawIOBase):
    """Counts where the file is, and keeps only what was not taken yet."""

    def __init__(self, out: io.BytesIO) -> None:
        super().__init__()
        self._out = out
        self._at = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        count = self._out.write(data)
        self._at += count
        return count


def _sparse(column: Sequence[SparseValues | None]) -> Any:
    return pa.array(
        [
            None if one is None else {"indices": one.indices.astype(np.int64), "values": one.values}
            for one in column
        ],
        SPARSE.type,
    )
