"""Folding log entries, in order, over what is already in files: the state that a flush makes true.

A namespace's state while folding is an *overlay* (new version or None by id) over *base rows* (rows
of the committed files that are not dead). An id in the overlay has no base row any more: it is
marked dead before anything looks at base rows again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

import msgspec
import numpy as np
from pyroaring import BitMap

from builder.branching.attach import BEGUN_SINCE, NOT_EMPTY, TWICE, Attachments
from core.filters.row import matches
from core.filters.statistics import may_match
from core.log import NO_LSN
from core.operations import (
    Attach,
    CreateNamespace,
    DeleteAll,
    DeleteByFilter,
    DeleteIds,
    DeleteNamespace,
    NamespaceWrite,
    Operation,
    UpdateByFilter,
    UpdateById,
    Upsert,
)
from core.records import StoredRecord
from core.replay import apply_to
from core.turns import step_aside
from storage.file_cache import FileCache
from storage.file_reader import FileReader
from storage.manifest import DataFile, Manifest
from storage.namespace import NamespaceReader

FilterOperation = UpdateByFilter | DeleteByFilter
Step = tuple[int, Operation]
# An update by id is some hundred bytes in the log and a whole record in memory.
STEPS_MAX = 2_000

# Makes a manifest, not committed, of a fold's state so far, its files in the store.
Spill = Callable[["Fold"], Awaitable[Manifest]]


class Fold:
    """One batch over one manifest. `run` once, then read the results.

    exists: whether there is a namespace afterwards; generation: LSN of the first entry of its
    present life (of the last one, if it is gone); attached: the snapshot that this life was made
    of, declared: the fields of its schema, if any. manifest: that of the base rows: the committed
    one, or what was spilled or attached last. overlay: by id the new version, or None. keeps_base:
    False when all base rows are gone; otherwise `dead` has for each file of the manifest its dead
    rows.
    """

    def __init__(
        self,
        cache: FileCache,
        manifest: Manifest | None,
        spill: Spill,
        records_max: int,
        attachments: Attachments,
    ) -> None:
        """`manifest` is None before the namespace's first one. `spill` writes what is there so far
        into files, once the overlay has more than `records_max` entries.
        """
        alive = manifest is not None and not manifest.deleted
        self.exists = alive
        self.generation = NO_LSN if manifest is None else manifest.generation
        self.attached = "" if manifest is None else manifest.attached
        self.declared = None if manifest is None else manifest.declared
        self._attachments = attachments
        self._cache = cache
        self._spill = spill
        self._records_max = records_max
        self._adopt(manifest)
        self.keeps_base = alive

    def _adopt(self, manifest: Manifest | None) -> None:
        """Go on over these base rows with an empty overlay."""
        self.manifest = manifest
        self.keeps_base = True
        self.overlay: dict[str, StoredRecord | None] = {}
        self._files: Sequence[DataFile] = () if manifest is None else manifest.files
        self.dead = [file.dead_rows() for file in self._files]
        self._reader = None if manifest is None else NamespaceReader(self._cache, manifest)
        self._unplaced: set[str] = set()
        self._read: dict[str, tuple[int, int, StoredRecord]] = {}

    async def run(self, writes: Iterable[NamespaceWrite]) -> None:
        for steps, last in _stretches(writes):
            await step_aside()
            await self._read_base(steps)
            await asyncio.to_thread(self._apply, steps)
            self._read.clear()
            await step_aside()
            await self._place()
            await step_aside()
            await self._relieve()
            match last:
                case (lsn, Attach() as entry):
                    await self._attach(lsn, entry)
                case (lsn, operation) if self.exists:
                    await self._apply_filter(lsn, operation)

    async def _relieve(self) -> None:
        if len(self.overlay) > self._records_max:
            self._adopt(await self._spill(self))

    @property
    def _base(self) -> NamespaceReader:
        assert self._reader is not None, "committed rows have a reader"
        return self._reader

    def records(self) -> list[StoredRecord]:
        """What the overlay adds, in the order in which the ids first came."""
        return [stored for stored in self.overlay.values() if stored is not None]

    def _apply(self, steps: Sequence[Step]) -> None:
        for lsn, operation in steps:
            match operation:
                case Upsert(records=records):
                    self._begin(lsn)
                    for record in records:
                        self._put(record.id, StoredRecord(record, lsn))
                case CreateNamespace(declared=declared):
                    self._begin(lsn, declared)
                case UpdateById(id=name) if self.exists:
                    current = self._current(name)
                    if current is not None:
                        after = apply_to(current.record, operation)
                        assert after is not None, "an update deletes nothing"
                        self._put(name, StoredRecord(after, lsn))
                case DeleteIds(ids=ids) if self.exists:
                    for name in ids:
                        self._put(name, None)
                case DeleteAll() if self.exists:
                    self._clear()
                case DeleteNamespace() if self.exists:
                    self._clear()
                    self.exists = False
                case _:
                    pass  # nothing to change in a namespace that is not there

    def _begin(self, lsn: int, declared: tuple[str, ...] | None = None) -> None:
        if not self.exists:
            self.exists = True
            self.generation = lsn
            self.attached = ""
            self.declared = declared

    async def _attach(self, lsn: int, entry: Attach) -> None:
        if self.attached == entry.snapshot_id:
            # Repeated by a restore that died before it saw the first one, or was slow: then a
            # client may have deleted the namespace since, and it does not come back.
            pass
        elif entry.last_begun is not None and self.generation > entry.last_begun:
            # Nor where a life since then hides which snapshot the last but one was made of.
            self._attachments.refuse(lsn, entry, BEGUN_SINCE)
        elif not self._is_empty():
            self._attachments.refuse(lsn, entry, NOT_EMPTY)
        elif self.exists and self.attached:
            self._attachments.refuse(lsn, entry, TWICE)
        else:
            manifest = await self._attachments.take(lsn, entry)
            if manifest is not None:
                self._begin(lsn)
                self.attached = entry.snapshot_id
                if self.declared is None:
                    self.declared = manifest.declared
                # What it has cost to write was another namespace's expense.
                written = 0 if self.manifest is None else self.manifest.written_bytes
                self._adopt(msgspec.structs.replace(manifest, written_bytes=written))

    def _is_empty(self) -> bool:
        if any(stored is not None for stored in self.overlay.values()):
            return False
        files = zip(self._files, self.dead, strict=True)
        return not self.keeps_base or all(len(dead) == file.rows for file, dead in files)

    def _clear(self) -> None:
        self.overlay.clear()
        self._unplaced.clear()
        self._read.clear()
        self.keeps_base = False

    def _put(self, name: str, stored: StoredRecord | None) -> None:
        if self.keeps_base and name not in self.overlay:
            self._unplaced.add(name)
        if stored is None and not self.keeps_base:
            self.overlay.pop(name, None)
        else:
            self.overlay[name] = stored

    def _current(self, name: str) -> StoredRecord | None:
        if name in self.overlay:
            return self.overlay[name]
        if not self.keeps_base or name not in self._read:
            return None
        file, row, stored = self._read[name]
        return None if row in self.dead[file] else stored

    async def _read_base(self, steps: Sequence[Step]) -> None:
        """Base rows of all ids that the stretch may patch, in one batch."""
        if not self.keeps_base:
            return
        wanted = {op.id for _, op in steps if isinstance(op, UpdateById)}
        wanted -= self.overlay.keys() | self._read.keys()
        parts = list((await self._base.find(sorted(wanted))).by_file())
        readers = await self._base.files([file for file, _, _ in parts])
        for (file, _, rows), opened in zip(parts, readers, strict=True):
            taken = await asyncio.to_thread(opened.take, rows)
            for number, row in enumerate(rows.tolist()):
                self._read[taken.ids[number]] = (file, row, taken.stored(number))

    async def _place(self) -> None:
        """Mark dead the base rows of the ids that the overlay has taken over.

        Reads id runs, and no data file but bare ones.
        """
        if self._unplaced and self.keeps_base:
            for file, _, rows in (await self._base.find(sorted(self._unplaced))).by_file():
                self.dead[file] |= BitMap(rows.tolist())
        self._unplaced.clear()

    async def _apply_filter(self, lsn: int, operation: FilterOperation) -> None:
        await asyncio.to_thread(self._filter_overlay, lsn, operation)
        if not self.keeps_base:
            return
        # What is spilled on the way has been filtered already.
        for uuid in [file.uuid for file in self._files]:
            found = [n for n, file in enumerate(self._files) if file.uuid == uuid]
            for number in found:  # none, if all its rows are dead by now
                file = self._files[number]
                if may_match(operation.filter, file.statistics, file.rows):
                    opened = await self._base.file(number)
                    await asyncio.to_thread(self._filter_base, number, opened, lsn, operation)
            await self._relieve()

    def _filter_overlay(self, lsn: int, operation: FilterOperation) -> None:
        for name, stored in list(self.overlay.items()):
            if stored is None or not matches(operation.filter, stored.record.metadata):
                continue
            after = apply_to(stored.record, operation)
            self._put(name, None if after is None else StoredRecord(after, lsn))

    def _filter_base(
        self, number: int, opened: FileReader, lsn: int, operation: FilterOperation
    ) -> None:
        hit = np.flatnonzero(opened.matching(operation.filter)).astype(np.int64)
        rows = np.array([r for r in hit.tolist() if r not in self.dead[number]], dtype=np.int64)
        self.dead[number] |= BitMap(rows.tolist())
        if isinstance(operation, UpdateByFilter) and len(rows):
            taken = opened.take(rows)
            for row in range(len(taken)):
                after = apply_to(taken.stored(row).record, operation)
                assert after is not None, "an update deletes nothing"
                self.overlay[after.id] = StoredRecord(after, lsn)


def _stretches(
    writes: Iterable[NamespaceWrite],
) -> Iterator[tuple[list[Step], tuple[int, FilterOperation | Attach] | None]]:
    """Steps that need ids only, and what ends them, if anything: an operation on whole files."""
    steps: list[Step] = []
    for write in writes:
        for entry in write.entries:
            operation = entry.operation
            if isinstance(operation, UpdateByFilter | DeleteByFilter | Attach):
                yield steps, (write.lsn, operation)
                steps = []
            else:
                steps.append((write.lsn, operation))
                if len(steps) == STEPS_MAX:
                    yield steps, None
                    steps = []
    yield steps, None
