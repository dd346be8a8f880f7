"""The complete fresh records of one namespace, in columns that only ever grow.

A row's content never changes: a new version of a record is a new row, and the old one dies. Rows
live in segments; a search takes a view (the rows so far, and which of them live) and may read it in
a thread while writes go on: appended rows are beyond the view, and a live mask that a view holds is
copied before it changes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.filters.columns import MetadataColumns
from core.metric import F32, Metric
from core.records import Metadata, Record, SparseValues, StoredRecord
from core.scan import Place
from core.sparse import SparseColumns

# Small namespaces stay small; 4096 rows (6 MB at 384 dimensions) make the cost of a segment (20 us
# a scan) vanish, and bound what is rebuilt when the columns of an open segment are asked for again.
FIRST_CAPACITY = 64
CAPACITY_MAX = 4096
# A full segment with fewer live rows than this share is emptied into the open one.
COMPACT_BELOW = 0.25
# Python's own overhead for a row: list slots, the dict entry, the id.
ROW_OVERHEAD_BYTES = 300


class Segment:
    """Up to `capacity` rows. Written by one thread; read by others up to a view's count."""

    def __init__(self, serial: int, capacity: int, dimension: int | None) -> None:
        self.serial = serial
        self.capacity = capacity
        self.count = 0
        self.live_count = 0
        self.size_bytes = 0
        self.vectors: F32 | None = None
        self.norms: F32 | None = None
        self.longest = 0.0
        if dimension is not None:
            self.vectors = np.empty((capacity, dimension), dtype=np.float32)
            self.norms = np.empty(capacity, dtype=np.float32)
        self.lsns = np.empty(capacity, dtype=np.int64)
        self.ids: list[str] = []
        self.sparse: list[SparseValues | None] = []
        self.metadata: list[Metadata] = []
        self.live = np.zeros(capacity, dtype=np.bool_)
        self._viewed = False
        self._any_sparse = False
        self._metadata_columns: tuple[int, MetadataColumns] | None = None
        self._sparse_columns: tuple[int, SparseColumns] | None = None

    @property
    def full(self) -> bool:
        return self.count == self.capacity

    def append(self, records: Sequence[Record], lsns: "int | npt.NDArray[np.int64]") -> range:
        """At most as many as there is room for; their rows. lsns: one for all, or one of each."""
        rows = range(self.count, self.count + len(records))
        size = len(records) * ROW_OVERHEAD_BYTES
        size += sum(metadata_bytes(record.metadata) for record in records)
        if self.vectors is not None and self.norms is not None:
            vectors = self.vectors[rows.start : rows.stop]
            vectors[:] = [record.values for record in records]
            norms = self.norms[rows.start : rows.stop]
            with np.errstate(over="ignore"):
                np.sqrt(np.einsum("ij,ij->i", vectors, vectors), out=norms)
            self.longest = max(self.longest, float(norms.max()))
            size += vectors.nbytes
        for record in records:
            sparse = record.sparse
            if sparse is not None:
                # copied: what was decoded is a view that keeps the whole log record in memory
                sparse = SparseValues(sparse.indices.copy(), sparse.values.copy())
                self._any_sparse = True
                size += 8 * len(sparse.indices) + 200
            self.sparse.append(sparse)
        self.lsns[rows.start : rows.stop] = lsns
        self.ids += [record.id for record in records]
        self.metadata += [record.metadata for record in records]
        self._own_live()
        self.live[rows.start : rows.stop] = True
        self.count = rows.stop
        self.live_count += len(records)
        self.size_bytes += size
        return rows

    def kill(self, rows: Sequence[int]) -> None:
        """Rows that live, each once."""
        self._own_live()
        assert self.live[rows].all(), rows
        self.live[rows] = False
        self.live_count -= len(rows)

    def record(self, row: int) -> Record:
        values = None if self.vectors is None else self.vectors[row]
        return Record(self.ids[row], values, self.sparse[row], self.metadata[row])

    def view(self) -> "SegmentView":
        self._viewed = True
        return SegmentView(self, self.count, self.live)

    def _own_live(self) -> None:
        if self._viewed:
            self.live = self.live.copy()
            self._viewed = False

    def metadata_columns(self, count: int) -> MetadataColumns:
        """Of the first `count` rows; the newest ones asked for are kept."""
        kept = self._metadata_columns
        if kept is None or kept[0] != count:
            kept = self._metadata_columns = (count, MetadataColumns.build(self.metadata[:count]))
        return kept[1]

    def sparse_columns(self, count: int) -> SparseColumns | None:
        """None if no row has sparse values."""
        if not self._any_sparse:
            return None
        kept = self._sparse_columns
        if kept is None or kept[0] != count:
            kept = self._sparse_columns = (count, SparseColumns.build(self.sparse[:count]))
        return kept[1]


@dataclass(frozen=True, slots=True, eq=False)
class SegmentView:
    """`count` rows of a segment and which of them live, frozen at one moment."""

    segment: Segment
    count: int
    live: npt.NDArray[np.bool_]

    def above(self, lsn: int) -> npt.NDArray[np.bool_]:
        """bool (count,): live rows written above that LSN."""
        return self.live[: self.count] & (self.segment.lsns[: self.count] > lsn)

    def place(self, metric: Metric, *, with_sparse: bool) -> Place:
        """The rows for a scan."""
        segment, norms = self.segment, None
        if segment.norms is not None and metric is not Metric.DOTPRODUCT:
            norms = segment.norms[: self.count]
            norms = norms * norms if metric is Metric.EUCLIDEAN else norms
        return Place(
            vectors=None if segment.vectors is None else segment.vectors[: self.count],
            norms=norms,
            longest=segment.longest,
            sparse=segment.sparse_columns(self.count) if with_sparse else None,
        )

    def stored(self, row: int, *, include_values: bool = True) -> StoredRecord:
        record = self.segment.record(row)
        if not include_values:
            record = Record(record.id, None, None, record.metadata)
        return StoredRecord(record, int(self.segment.lsns[row]))


class RecordTable:
    """id -> current complete version. At most one live row per id."""

    def __init__(self) -> None:
        self._segments: dict[int, Segment] = {}
        self._open: Segment | None = None
        self._next_serial = 0
        self._places: dict[str, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, record_id: str) -> bool:
        return record_id in self._places

    @property
    def size_bytes(self) -> int:
        return sum(segment.size_bytes for segment in self._segments.values())

    def get(self, record_id: str) -> StoredRecord | None:
        place = self._places.get(record_id)
        if place is None:
            return None
        segment = self._segments[place[0]]
        return StoredRecord(segment.record(place[1]), int(segment.lsns[place[1]]))

    def put(self, records: Sequence[Record], lsn: int) -> None:
        """Of different ids. A batch at a time: numpy's cost is per call."""
        self.remove([record.id for record in records])
        self._append(records, lsn)

    def remove(self, ids: Iterable[str]) -> None:
        """Those that are not there are passed over."""
        doomed: dict[int, list[int]] = {}
        for record_id in ids:
            place = self._places.pop(record_id, None)
            if place is not None:
                doomed.setdefault(place[0], []).append(place[1])
        for serial, rows in doomed.items():
            self._segments[serial].kill(rows)
        # only now: what moves on must not be what is to go, and may take other segments with it
        for serial in doomed:
            segment = self._segments.get(serial)
            if segment is not None and segment is not self._open:
                self._thin_out(segment)

    def clear(self) -> None:
        """Views keep what they hold."""
        self._segments = {}
        self._open = None
        self._places = {}

    def views(self) -> tuple[SegmentView, ...]:
        return tuple(segment.view() for segment in self._segments.values())

    def ids_up_to(self, lsn: int) -> Iterator[str]:
        """Of live rows written at or below that LSN; do not change the table meanwhile."""
        for segment in self._segments.values():
            old = segment.live[: segment.count] & (segment.lsns[: segment.count] <= lsn)
            for row in np.flatnonzero(old).tolist():
                yield segment.ids[row]

    def _append(self, records: Sequence[Record], lsns: "int | npt.NDArray[np.int64]") -> None:
        done = 0
        while done < len(records):
            segment = self._open
            if segment is None or segment.full:
                segment = self._grown(records[done])
            upto = min(len(records), done + segment.capacity - segment.count)
            part = records[done:upto]
            rows = segment.append(part, lsns if isinstance(lsns, int) else lsns[done:upto])
            serial = segment.serial
            self._places.update((r.id, (serial, row)) for r, row in zip(part, rows, strict=True))
            done = upto

    def _grown(self, record: Record) -> Segment:
        previous = self._open
        capacity = FIRST_CAPACITY if previous is None else 2 * previous.capacity
        dimension = None if record.values is None else len(record.values)
        segment = Segment(self._next_serial, min(capacity, CAPACITY_MAX), dimension)
        self._next_serial += 1
        self._segments[segment.serial] = segment
        self._open = segment
        if previous is not None:
            self._thin_out(previous)
        return segment

    def _thin_out(self, segment: Segment) -> None:
        """Gives back a sealed segment of mostly dead rows; its live ones move on with their
        LSNs.
        """
        if segment.live_count >= COMPACT_BELOW * segment.capacity:
            return
        rows = np.flatnonzero(segment.live[: segment.count]).tolist()
        del self._segments[segment.serial]
        self._append([segment.record(row) for row in rows], segment.lsns[rows])


def metadata_bytes(metadata: Metadata) -> int:
    """About what a metadata dict takes in memory."""
    total = 64
    for key, value in metadata.items():
        total += 100 + len(key)
        if isinstance(value, str):
            total += len(value)
        elif isinstance(value, list):
            total += 60 * len(value) + sum(map(len, value))
    return total


def row_count(views: Sequence[SegmentView]) -> int:
    return sum(view.count for view in views)
