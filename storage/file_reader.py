"""`FileReader`: one data file (cluster file or delta) opened, read by row and by column.

Rows that died since are the manifest's business (`DataFile.dead`): one reader serves many
manifests, so whoever combines the two drops them. All is read in place, out of private copies: the
object may be damaged or removed meanwhile. No file descriptor is held.
"""

import threading
from collections.abc import Callable, Sequence
from copy import copy
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from annoy import AnnoyIndex
from pyroaring import BitMap

from core.errors import CorruptData
from core.filters.columns import Mask, MetadataColumns
from core.filters.inverted import Inverted
from core.filters.model import Filter
from core.log import NO_LSN
from core.metric import F32, Metric, row_norms
from core.records import Metadata, SparseValues
from core.sparse import SparseColumns
from storage.annoy_file import annoy_vectors, open_annoy, scratch_file
from storage.checksum import IdHashes, id_hashes
from storage.columns_file import ColumnsFile
from storage.layout import namespace_prefix
from storage.manifest import DataFile
from storage.rows import Rows

T = TypeVar("T")
RowNumbers = npt.NDArray[np.integer] | Sequence[int]

# Metadata columns are Python lists turned into arrays and string tables: about this many bytes per
# encoded one.
_COLUMNS_BYTES_PER_ENCODED = 3
# `SparseColumns` sorts its values by term at the first score: row int32, value float32, some terms.
_SPARSE_BYTES_PER_VALUE = 12


class FileReader:
    """Immutable; safe to share among threads. What is lazy is built once, by whoever asks first.

    Off the event loop: `columns`, `matching`, `hashes`, `norms`, `by_id`, `annoy` at their first
    use, and reading many rows.
    """

    def __init__(
        self,
        file: DataFile,
        prefix: str,
        metric: Metric,
        dimension: int | None,
        columns: pa.Buffer,
        vectors: pa.Buffer | None,
    ) -> None:
        """Of verified bytes. `CorruptData` if they say that they are not what was asked for."""
        self.uuid = file.uuid
        self.metric = metric
        self.dimension = dimension or None
        self._columns_file = ColumnsFile(columns, prefix + file.columns.name)
        self._vectors_data = vectors
        self._lock = threading.RLock()
        self._decoded_rows = 0
        self._built: dict[str, tuple[object, int]] = {}
        self._lsn_as = NO_LSN
        self._base: FileReader | None = None  # of a view: the cache knows only it
        self._check(file, prefix)
        self._vectors = self._view()

    def counted_as(self, lsn: int) -> "FileReader":
        """The same file, everything shared, all rows having this LSN; `NO_LSN`: their own."""
        if lsn == self._lsn_as:
            return self
        view = copy(self)
        view._lsn_as = lsn
        view._base = self
        return view

    @property
    def rows(self) -> int:
        return self._columns_file.rows

    @property
    def is_delta(self) -> bool:
        return self._columns_file.header["firn.kind"] == "delta"

    @property
    def vectors(self) -> F32 | None:
        """float32 (n, d), a read-only view, strided in cluster files: use `V @ q`, never `np.dot`.

        None in a sparse index.
        """
        return self._vectors

    @property
    def lsns(self) -> npt.NDArray[np.int64]:
        """int64 (n,), read-only."""
        if self._lsn_as != NO_LSN:
            return np.broadcast_to(np.int64(self._lsn_as), self.rows)
        return self._columns_file.lsns

    @property
    def all_ids(self) -> list[str]:
        """n strings, decoded at each call (0.1 us each)."""
        return self._columns_file.all_ids()

    def id(self, row: int) -> str:
        return self._columns_file.id(row)

    def ids(self, rows: RowNumbers) -> list[str]:
        return self._columns_file.ids(_numbers(rows))

    def metadata(self, rows: RowNumbers) -> list[Metadata]:
        """Decoded afresh: the dicts are the caller's own. About 0.3 us per record."""
        return self._columns_file.metadata(_numbers(rows))

    @property
    def sparse(self) -> SparseColumns | None:
        """n rows; None where no row of the file has sparse values."""
        return self._columns_file.sparse

    def sparse_values(self, rows: RowNumbers) -> list[SparseValues | None]:
        """Views into the file."""
        sparse = self.sparse
        return [None if sparse is None else sparse.row(row) for row in _numbers(rows)]

    def take(self, rows: RowNumbers) -> Rows:
        """Those rows, in that order; vectors are copied."""
        numbers = np.asarray(rows, dtype=np.int64)
        vectors = None if self.vectors is None else np.ascontiguousarray(self.vectors[numbers])
        return Rows(
            ids=self.ids(numbers),
            lsns=self.lsns[numbers],
            vectors=vectors,
            sparse=self.sparse_values(numbers),
            metadata=self.metadata(numbers),
        )

    @property
    def metadata_bytes(self) -> int:
        """Of all rows' metadata as it is stored."""
        return self._columns_file.metadata_bytes

    def sizes(self, rows: npt.NDArray[np.int64]) -> list[int]:
        """About how many bytes those rows' records take, without decoding them."""
        sizes = self._columns_file.metadata_sizes(rows).astype(np.int64)
        if self.sparse is not None:
            bounds = self.sparse.indptr
            sizes += 8 * (bounds[rows + 1] - bounds[rows])
        found: list[int] = (sizes + 4 * (self.dimension or 0)).tolist()
        return found

    @property
    def columns(self) -> MetadataColumns:
        """The metadata of all rows for filters; `matching` often needs only some of it."""
        size = self._columns_file.metadata_bytes * _COLUMNS_BYTES_PER_ENCODED
        return self._once("columns", self._all_columns, size)

    def _all_columns(self) -> MetadataColumns:
        self._decoded_rows += self.rows
        return MetadataColumns.build(self._columns_file.all_metadata())

    def matching(self, f: Filter, among: Mask | None = None) -> Mask:
        """bool (n,): which rows of `among` (None: of all) match; the caller's own array.

        Bitmaps answer what they can. The metadata is decoded of the rows that they leave open: one
        by one where these are few, of the whole file once they were half of it.
        """
        sure, possible = self._bounds(f)
        result = np.zeros(self.rows, dtype=np.bool_)
        result[_row_numbers(sure)] = True
        open_rows = _row_numbers(possible - sure)
        if among is not None:
            result &= among
            open_rows = open_rows[among[open_rows]]
        if len(open_rows):
            result[open_rows] = self._decoded_mask(f, open_rows)
        return result

    @property
    def decoded_rows(self) -> int:
        """How many rows' metadata was decoded for filters so far."""
        return self._decoded_rows

    def _bounds(self, f: Filter) -> tuple[BitMap, BitMap]:
        inverted = self._inverted
        return (BitMap(), BitMap(range(self.rows))) if inverted is None else inverted.bounds(f)

    def _decoded_mask(self, f: Filter, rows: npt.NDArray[np.uint32]) -> Mask:
        """bool (len(rows),)."""
        if "columns" in self._built or 2 * (self._decoded_rows + len(rows)) > self.rows:
            return self.columns.mask(f)[rows]
        self._decoded_rows += len(rows)
        return MetadataColumns.build(self.metadata(rows)).mask(f)

    @property
    def _inverted(self) -> Inverted | None:
        data = self._columns_file.inverted
        if data is None:
            return None
        return self._once("inverted", lambda: Inverted(data, self.rows), 0)

    @property
    def norms(self) -> F32 | None:
        """float32 (n,): what `core.metric.ranking` takes; None where it takes none."""
        vectors = self.vectors
        if vectors is None or self.metric is Metric.DOTPRODUCT:
            return None
        return self._once("norms", lambda: row_norms(self.metric, vectors), 4 * self.rows)

    @property
    def hashes(self) -> IdHashes:
        """uint64 (n,): `storage.checksum.id_hash` of each id."""
        return self._once("hashes", lambda: id_hashes(self.all_ids), 8 * self.rows)

    @property
    def by_id(self) -> npt.NDArray[np.int32]:
        """int32 (n,): the row numbers in ascending order of their ids."""
        return self._once("by_id", self._sorted_by_id, 4 * self.rows)

    def annoy(self) -> AnnoyIndex:
        """The trees of a dense cluster file; `ValueError` for any other file, which has none."""
        size = 0 if self._vectors_data is None else self._vectors_data.size
        return self._once("annoy", self._open_annoy, size)

    @property
    def heap_bytes(self) -> int:
        """What was built lazily so far, estimated; without the bytes given."""
        sparse = 0 if self.sparse is None else _SPARSE_BYTES_PER_VALUE * self.sparse.values.size
        built, _ = self._built.get("inverted", (None, 0))
        inverted = built.heap_bytes if isinstance(built, Inverted) else 0
        return sparse + inverted + sum(size for _, size in list(self._built.values()))

    def _once(self, name: str, build: Callable[[], T], size: int) -> T:
        found = self._built.get(name)
        if found is None:
            with self._lock:
                found = self._built.get(name)
                if found is None:
                    found = self._built[name] = (build(), size)
        return found[0]  # type: ignore[return-value]  # each name has one builder

    def _sorted_by_id(self) -> npt.NDArray[np.int32]:
        ids = self.all_ids
        return np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int32)

    def _view(self) -> F32 | None:
        if self.dimension is None:
            return None
        if self._vectors_data is None:
            return self._columns_file.vectors
        return annoy_vectors(as_bytes(self._vectors_data), self.rows, self.dimension, self.metric)

    def _open_annoy(self) -> AnnoyIndex:
        """Annoy knows only paths and keeps the mapping of what is there, so it gets a copy in
        memory; only files beyond some 20,000 rows are searched by their trees.
        """
        if self._vectors_data is None or self.dimension is None:
            raise ValueError(f"file {self.uuid} has no Annoy object")
        with scratch_file() as path:
            path.write_bytes(self._vectors_data)
            return open_annoy(path, self.dimension, self.metric)

    def _check(self, file: DataFile, prefix: str) -> None:
        header, name = self._columns_file.header, prefix + file.columns.name
        try:
            owner = namespace_prefix(header["firn.index"], header["firn.namespace"])
            metric, dimension = header["firn.metric"], int(header["firn.dimension"])
        except (KeyError, ValueError, AssertionError) as error:
            raise CorruptData(f"{name} does not say whose it is: {error!r}") from error
        if owner != prefix:
            raise CorruptData(f"{name} says it belongs to another namespace")
        if (metric, dimension or None) != (self.metric.value, self.dimension):
            raise CorruptData(
                f"{name} has {metric}/{dimension}, not {self.metric}/{self.dimension}"
            )
        if self.rows != file.rows:
            raise CorruptData(f"{name} has {self.rows} rows, the manifest says {file.rows}")
        stored = self._columns_file.vectors
        if self.dimension and self._vectors_data is None and stored is None:
            raise CorruptData(f"{name} has no vectors")
        if stored is not None and stored.shape[1] != self.dimension:
            raise CorruptData(f"{name} has vectors of dimension {stored.shape[1]}")


def as_bytes(data: pa.Buffer) -> npt.NDArray[np.uint8]:
    """uint8 view that keeps the buffer alive."""
    return np.frombuffer(memoryview(data), dtype=np.uint8)


def _row_numbers(rows: BitMap) -> npt.NDArray[np.uint32]:
    return np.frombuffer(rows.to_array(), dtype=np.uint32)


def _numbers(rows: RowNumbers) -> list[int]:
    return rows.tolist() if isinstance(rows, np.ndarray) else list(rows)
