"""One namespace's memory of the log above the files: pure and synchronous.

An id is known in one of three ways: as a complete current version (`_records`), as gone (`_gone`),
or by updates whose base is in the files (`_patches`). Filter operations act at once on what is
complete, and are kept for the file rows. Everything carries the LSN that made it, so a reader at m
sees just what is above m.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile

from core.filters.model import Filter
from core.filters.row import matches
from core.log import NO_LSN
from core.operations import (
    Attach,
    CreateNamespace,
    DeleteAll,
    DeleteByFilter,
    DeleteIds,
    DeleteNamespace,
    Operation,
    UpdateByFilter,
    UpdateById,
    Upsert,
)
from core.records import StoredRecord
from core.replay import apply_to
from freshness.protocol import FreshRequest, Pending
from freshness.segments import RecordTable, SegmentView, row_count
from freshness.shadow import Shadow
from freshness.touched import TouchLog
from storage.checksum import id_hashes

# A tombstone: its key, its slot, its number. A pending operation: the objects; its values are
# counted on top.
TOMBSTONE_BYTES = 200
PENDING_BYTES = 500


@dataclass(frozen=True, slots=True, eq=False)
class Matching:
    """The complete versions that match a filter, as of one moment."""

    views: tuple[SegmentView, ...]
    filter: Filter

    @property
    def rows(self) -> int:
        return row_count(self.views)

    def find(self) -> list[StoredRecord]:
        """In any thread; about a microsecond per row."""
        found: list[StoredRecord] = []
        for view in self.views:
            metadata = view.segment.metadata
            live = view.live[: view.count].nonzero()[0].tolist()
            found += [view.stored(i) for i in live if matches(self.filter, metadata[i])]
        return found


class NamespaceMemory:
    """`floor_lsn`: what lies at or below it may be missing here."""

    def __init__(self, floor_lsn: int) -> None:
        self.floor_lsn = floor_lsn
        self._records = RecordTable()
        self._gone: dict[str, int] = {}
        self._patches: dict[str, list[Pending]] = {}
        self._pending_bytes = 0
        self._filter_ops: list[Pending] = []
        self._touched = TouchLog()
        self._cleared_lsn = NO_LSN
        self._exists = False
        self._exists_lsn = NO_LSN
        self._ended_lsn = NO_LSN
        self._declared: tuple[str, ...] | None = None
        self._declared_lsn = NO_LSN

    @property
    def records(self) -> int:
        """Everything that a bound on records counts: versions, tombstones, patched ids."""
        return len(self._records) + len(self._gone) + len(self._patches)

    @property
    def pending_operations(self) -> int:
        return len(self._filter_ops)

    @property
    def size_bytes(self) -> int:
        tombstones = TOMBSTONE_BYTES * len(self._gone)
        return (
            self._records.size_bytes + tombstones + self._pending_bytes + self._touched.size_bytes
        )

    @property
    def is_empty(self) -> bool:
        """Nothing held says anything: the namespace may be forgotten."""
        nothing = not (len(self._records) or self._gone or self._patches or self._filter_ops)
        return nothing and self._cleared_lsn == NO_LSN and self._exists_lsn == NO_LSN

    @property
    def exists(self) -> bool | None:
        """None if nothing held says."""
        return None if self._exists_lsn == NO_LSN else self._exists

    def apply(
        self,
        lsn: int,
        position: int,
        operation: Operation,
        found: Sequence[StoredRecord] | None = None,
    ) -> None:
        """Entries come in the order of (lsn, position), each once.

        found: for an operation by filter, what its `Matching` gave, nothing having been applied
        since.
        """
        match operation:
            case Upsert():
                self._upsert(lsn, operation)
            case UpdateById():
                self._update(lsn, position, operation)
            case DeleteIds(ids=ids):
                self._delete(lsn, ids)
            case UpdateByFilter() | DeleteByFilter():
                self._by_filter(lsn, position, operation, found)
            case DeleteAll():
                self._clear(lsn)
            case CreateNamespace(declared=declared):
                # where nothing is held, readers whose manifest has the namespace pass this over
                if not self.exists:
                    self._set_exists(lsn, True)
                    self._declared, self._declared_lsn = declared, lsn
            case DeleteNamespace():
                self._clear(lsn)
                self._set_exists(lsn, False)
                self._declared, self._ended_lsn = None, lsn
            case Attach():
                raise AssertionError("from an attach on nothing is held here")

    def shadow(self, request: FreshRequest) -> Shadow:
        """What is above the request's m, frozen now: `Shadow.answer` may run in a thread."""
        m = request.manifest_lsn
        cleared = self._cleared_lsn > m
        asked: Iterable[str] = self._patches if request.patches_of_all else request.ids
        patches: dict[str, tuple[Pending, ...]] = {}
        if not cleared:
            for record_id in asked:
                above = tuple(p for p in self._patches.get(record_id, ()) if p.lsn > m)
                if above:
                    patches[record_id] = above
        return Shadow(
            request=request,
            floor_lsn=self.floor_lsn,
            cleared=cleared,
            exists=self._exists if self._exists_lsn > m else None,
            ended=self._ended_lsn > m,
            declared=self._declared if self._declared_lsn > m else None,
            views=self._records.views(),
            touched=self._touched.above(m),
            current=self._current(request.ids, m),
            patches=patches,
            filter_ops=() if cleared else tuple(p for p in self._filter_ops if p.lsn > m),
        )

    def evict(self, upto_lsn: int, max_rows: int) -> bool:
        """Forgets what is at or below `upto_lsn`, at most `max_rows` (>= 1) each of versions,
        tombstones and patched ids; True if more may be left.

        The floor rises first, so that the rest may go later: readers ignore it from now on.
        """
        self.floor_lsn = max(self.floor_lsn, upto_lsn)
        if self._cleared_lsn <= upto_lsn:
            self._cleared_lsn = NO_LSN
        if self._exists_lsn <= upto_lsn:
            self._exists_lsn = NO_LSN
        if self._ended_lsn <= upto_lsn:
            self._ended_lsn = NO_LSN
        if self._declared_lsn <= upto_lsn:
            self._declared, self._declared_lsn = None, NO_LSN
        self._filter_ops = self._kept(self._filter_ops, upto_lsn)
        self._touched.forget(upto_lsn)
        # tombstones are in log order: whoever is deleted again moves to the end
        old = takewhile(lambda i: self._gone[i] <= upto_lsn, self._gone)
        gone = list(islice(old, max_rows))
        for record_id in gone:
            del self._gone[record_id]
        patched = (i for i, pending in self._patches.items() if pending[0].lsn <= upto_lsn)
        patches = list(islice(patched, max_rows))
        for record_id in patches:
            kept = self._kept(self._patches.pop(record_id), upto_lsn)
            if kept:
                self._patches[record_id] = kept
        doomed = list(islice(self._records.ids_up_to(upto_lsn), max_rows))
        self._records.remove(doomed)
        if len(self._records) == 0:
            self._records.clear()
        return max_rows in (len(gone), len(patches), len(doomed))

    def _kept(self, pendings: list[Pending], upto_lsn: int) -> list[Pending]:
        """Those above; the others are no longer counted."""
        self._pending_bytes -= sum(_pending_bytes(p) for p in pendings if p.lsn <= upto_lsn)
        return [p for p in pendings if p.lsn > upto_lsn]

    def _upsert(self, lsn: int, operation: Upsert) -> None:
        newest = {record.id: record for record in operation.records}
        for record_id in newest:
            self._forget_id(record_id)
        self._records.put(list(newest.values()), lsn)
        self._touched.add(lsn, id_hashes(list(newest)))
        self._set_exists(lsn, True)

    def _update(self, lsn: int, position: int, operation: UpdateById) -> None:
        current = self._records.get(operation.id)
        if current is not None:
            self._change(lsn, [current], operation)
            return
        # after a clearing everything that exists is held, so what is not held does not exist
        if operation.id in self._gone or self._cleared_lsn != NO_LSN:
            return
        pending = Pending(lsn, position, operation)
        self._patches.setdefault(operation.id, []).append(pending)
        self._pending_bytes += _pending_bytes(pending)
        self._touched.add(lsn, id_hashes([operation.id]))

    def _delete(self, lsn: int, ids: Iterable[str]) -> None:
        for record_id in ids:
            self._forget_id(record_id)
            self._gone[record_id] = lsn
        self._records.remove(ids)
        self._touched.add(lsn, id_hashes(list(ids)))

    def _by_filter(
        self,
        lsn: int,
        position: int,
        operation: UpdateByFilter | DeleteByFilter,
        found: Sequence[StoredRecord] | None,
    ) -> None:
        before = self.matching(operation).find() if found is None else found
        # what was dropped since it was found is in the files, where the operation is replayed
        self._change(lsn, [s for s in before if s.record.id in self._records], operation)
        if self._cleared_lsn == NO_LSN:
            pending = Pending(lsn, position, operation)
            self._filter_ops.append(pending)
            self._pending_bytes += _pending_bytes(pending)

    def matching(self, operation: UpdateByFilter | DeleteByFilter) -> "Matching":
        return Matching(self._records.views(), operation.filter)

    def _change(self, lsn: int, before: Sequence[StoredRecord], operation: Operation) -> None:
        """Makes the new versions of complete records that the operation is about."""
        for stored in before:
            record = apply_to(stored.record, operation)
            if record is None:
                self._records.remove([stored.record.id])
                self._gone[stored.record.id] = lsn
            else:
                self._records.put([record], lsn)
        self._touched.add(lsn, id_hashes([stored.record.id for stored in before]))

    def _clear(self, lsn: int) -> None:
        self._records.clear()
        self._gone = {}
        self._patches = {}
        self._filter_ops = []
        self._pending_bytes = 0
        self._touched = TouchLog()
        self._cleared_lsn = lsn

    def _forget_id(self, record_id: str) -> None:
        self._gone.pop(record_id, None)
        for pending in self._patches.pop(record_id, ()):
            self._pending_bytes -= _pending_bytes(pending)

    def _set_exists(self, lsn: int, exists: bool) -> None:
        self._exists, self._exists_lsn = exists, lsn

    def _current(self, ids: Iterable[str], m: int) -> dict[str, StoredRecord | None]:
        current: dict[str, StoredRecord | None] = {}
        for record_id in ids:
            stored = self._records.get(record_id)
            if stored is not None:
                if stored.lsn > m:
                    current[record_id] = stored
            elif self._gone.get(record_id, NO_LSN) > m:
                current[record_id] = None
        return current


def _pending_bytes(pending: Pending) -> int:
    operation = pending.operation
    values = operation.values if isinstance(operation, UpdateById) else None
    return PENDING_BYTES + (0 if values is None else values.nbytes)
