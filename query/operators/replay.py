"""replay: pending operations above the manifest, on one record or on all rows of a file."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.filters.columns import MetadataColumns
from core.operations import DeleteByFilter, UpdateByFilter, UpdateById
from core.records import Metadata, Record, StoredRecord
from core.replay import apply_to
from core.scan import Mask, RowNumbers
from freshness.protocol import Pending
from storage.file_reader import FileReader

# An overlay of a file of some thousand rows takes a few hundred kilobytes at most.
OVERLAYS_MAX = 256

_OverlayKey = tuple[str, str, tuple[tuple[int, int], ...]]


def replayed(stored: StoredRecord, operations: Sequence[Pending]) -> StoredRecord | None:
    """The record after the operations, which are sorted here; None if one of them deletes it."""
    record: Record | None = stored.record
    lsn = stored.lsn
    for pending in sorted(operations, key=lambda p: (p.lsn, p.position)):
        after = apply_to(record, pending.operation)
        if after is None:
            return None
        if after is not record:
            lsn = pending.lsn
        record = after
    return None if record is None else StoredRecord(record, lsn)


@dataclass(frozen=True, slots=True, eq=False)
class Overlay:
    """What filter operations make of a file's rows. gone: rows they delete. changed: rows with
    other metadata, ascending, with that metadata, its columns and the LSN of the last change, row
    for row.
    """

    gone: RowNumbers
    changed: RowNumbers
    metadata: Sequence[Metadata]
    lsns: Sequence[int]
    columns: MetadataColumns

    def mask(self, unchanged: Mask, condition_mask: Mask) -> Mask:
        """The filter's truth for all rows, from its truth of the file's own metadata and of the
        changed rows'.
        """
        result = unchanged.copy()
        result[self.changed] = condition_mask
        return result


def overlay(reader: FileReader, operations: Sequence[Pending]) -> Overlay | None:
    """None if no row is touched. A row that no operation's filter matches in its stored form is
    never changed by any of them: the first change needs a match of the stored form.
    """
    affected = np.zeros(reader.rows, dtype=np.bool_)
    for pending in operations:
        assert not isinstance(pending.operation, UpdateById)
        affected |= reader.matching(pending.operation.filter)
    rows = np.flatnonzero(affected)
    if len(rows) == 0:
        return None
    gone: list[int] = []
    changed: list[int] = []
    metadata: list[Metadata] = []
    lsns: list[int] = []
    own_lsns = reader.lsns[rows].tolist()
    for row, own, lsn in zip(rows.tolist(), reader.metadata(rows), own_lsns, strict=True):
        after = replayed(StoredRecord(Record("", None, None, own), lsn), operations)
        if after is None:
            gone.append(row)
        elif after.lsn != lsn:
            changed.append(row)
            metadata.append(after.record.metadata)
            lsns.append(after.lsn)
    return Overlay(
        gone=np.array(gone, dtype=np.int64),
        changed=np.array(changed, dtype=np.int64),
        metadata=metadata,
        lsns=lsns,
        columns=MetadataColumns.build(metadata),
    )


class OverlayCache:
    """Overlays by file and pending operations: they stay the same until the next flush or filter
    write.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[_OverlayKey, Overlay | None] = OrderedDict()

    async def get(
        self, prefix: str, reader: FileReader, operations: Sequence[Pending]
    ) -> Overlay | None:
        """`prefix`: of the namespace that is read; LSNs name operations only within one, and a
        branch shares its files.
        """
        key = (prefix, reader.uuid, tuple((p.lsn, p.position) for p in operations))
        if key not in self._kept:
            made = await asyncio.to_thread(overlay, reader, operations)
            self._kept[key] = made
            while len(self._kept) > OVERLAYS_MAX:
                self._kept.popitem(last=False)
            return made
        self._kept.move_to_end(key)
        return self._kept[key]


def filters_of(operations: Sequence[Pending]) -> list[UpdateByFilter | DeleteByFilter]:
    return [p.operation for p in operations if not isinstance(p.operation, UpdateById)]
