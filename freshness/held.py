"""One namespace as the layer holds it: its memory, what is published of it, and what did not
fit.
"""

import asyncio

from core.log import NO_LSN
from core.operations import Attach, DeleteByFilter, NamespaceWrite, UpdateByFilter
from freshness.namespace import NamespaceMemory
from freshness.protocol import FreshRequest
from freshness.shadow import Shadow

# A filter takes about a microsecond per row.
INLINE_ROWS = 1_000


class HeldNamespace:
    """attach_lsn: of the last attach that no manifest is known to cover, `NO_LSN` for none.
    attaching: what is not held is so because of an attach, which a manifest soon covers.

    A namespace that is full stops holding from `full_from` on; it holds again once a manifest
    covers everything before. What it let pass in between is a hole: readers whose manifest does not
    cover the hole get nothing from above it, and are told.

    An attach entry brings in records that are in files alone: from its LSN on nothing is held
    either, until a manifest covers it.
    """

    def __init__(self, index_id: str, namespace: str, floor_lsn: int) -> None:
        self.index_id = index_id
        self.namespace = namespace
        self.memory = NamespaceMemory(floor_lsn)
        self.last_lsn = NO_LSN
        self.unpublished_since_s: float | None = None
        self.size_bytes = 0
        self._applying = False
        self._full_from: int | None = None
        self._skipped_lsn = NO_LSN
        self._hole_lsn = NO_LSN
        self.attach_lsn = NO_LSN
        self.attaching = False

    @classmethod
    def with_hole(cls, index_id: str, namespace: str, first_lsn: int, end: int) -> "HeldNamespace":
        """Of a namespace whose entries in [first_lsn, end) may be in no manifest and are not here:
        readers whose manifest does not cover them are told.
        """
        held = cls(index_id, namespace, first_lsn - 1)
        held.last_lsn = held._hole_lsn = end - 1
        return held

    @property
    def overflowed(self) -> bool:
        return self._full_from is not None or self._hole_lsn != NO_LSN

    @property
    def applying(self) -> bool:
        """A write is half applied: a long operation by filter is in a thread."""
        return self._applying

    @property
    def is_empty(self) -> bool:
        return self.memory.is_empty and not self.overflowed and not self._applying

    async def apply(self, write: NamespaceWrite, now_s: float) -> None:
        """Gives others a turn only within a long operation by filter, which is done in a thread."""
        self.last_lsn = write.lsn
        if self.unpublished_since_s is None:
            self.unpublished_since_s = now_s
        if any(isinstance(entry.operation, Attach) for entry in write.entries):
            self.attach_lsn = write.lsn
            if self._full_from is None:
                self._full_from, self.attaching = write.lsn, True
        if self._full_from is not None:
            self._skipped_lsn = write.lsn
            return
        self._applying = True
        try:
            for position, entry in enumerate(write.entries):
                operation, found = entry.operation, None
                if isinstance(operation, UpdateByFilter | DeleteByFilter):
                    matching = self.memory.matching(operation)
                    if matching.rows > INLINE_ROWS:
                        found = await asyncio.to_thread(matching.find)
                self.memory.apply(write.lsn, position, operation, found)
        finally:
            self._applying = False
            self.size_bytes = self.memory.size_bytes

    def mark_full(self) -> None:
        """From the next write on."""
        if self._full_from is None:
            self._full_from, self.attaching = self.last_lsn + 1, False

    def learn(self, indexed_lsn: int, now_s: float) -> None:
        """A manifest that covers everything up to `indexed_lsn` is published."""
        self.unpublished_since_s = None if indexed_lsn >= self.last_lsn else now_s
        self.resume(indexed_lsn)

    def resume(self, covered_lsn: int) -> bool:
        """Hold again if a manifest covers the last attach, up to `covered_lsn`; whether it does.

        Everything held is older than what the attach brought in. It is let go without a grace time:
        readers of an older manifest read again.
        """
        if not NO_LSN < self.attach_lsn <= covered_lsn:
            return False
        floor_lsn = min(covered_lsn, self.last_lsn)
        self.memory = NamespaceMemory(floor_lsn)
        self.size_bytes = self.memory.size_bytes
        self._hole_lsn = self._skipped_lsn if self._skipped_lsn > floor_lsn else NO_LSN
        self._full_from, self.attach_lsn = None, NO_LSN
        return True

    def evict(self, upto_lsn: int, max_rows: int) -> bool:
        """True if more is left to do."""
        more = self.memory.evict(upto_lsn, max_rows)
        self.size_bytes = self.memory.size_bytes
        if self._hole_lsn <= upto_lsn:
            self._hole_lsn = NO_LSN
        if not more and self._full_from is not None and upto_lsn >= self._full_from - 1:
            if self._skipped_lsn > upto_lsn:
                self._hole_lsn = self._skipped_lsn
            self._full_from, self.attach_lsn = None, NO_LSN
        return more

    def shadow(self, request: FreshRequest) -> tuple[Shadow | None, int | None]:
        """(what is held above m, the first LSN above m that is not held); None: nothing usable is
        held.
        """
        m = request.manifest_lsn
        if m < self._hole_lsn:
            return None, m + 1
        if self._full_from is not None and m < self._skipped_lsn:
            return (
                (self.memory.shadow(request), self._full_from)
                if m < self._full_from
                else (None, m + 1)
            )
        return self.memory.shadow(request), None
