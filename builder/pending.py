"""Entries of one namespace that are accepted and not yet in a manifest, in log order."""

from collections import deque
from collections.abc import Sequence

from builder.policy import PendingLoad
from core.operations import (
    Attach,
    DeleteByFilter,
    DeleteIds,
    NamespaceWrite,
    Operation,
    UpdateByFilter,
    Upsert,
)


class PendingWrites:
    """A queue that keeps what a flush works on until the flush is durable."""

    def __init__(self) -> None:
        self._writes: deque[tuple[NamespaceWrite, float]] = deque()
        self.records = 0
        self.bytes = 0
        self.filter_operations = 0
        self.attaches = 0

    def __len__(self) -> int:
        return len(self._writes)

    def add(self, write: NamespaceWrite, now: float) -> None:
        assert not self._writes or self._writes[-1][0].lsn < write.lsn, "log order"
        self._writes.append((write, now))
        self._count(write, 1)

    def load(self, now: float) -> PendingLoad:
        age = now - self._writes[0][1] if self._writes else 0.0
        return PendingLoad(
            self.records, self.bytes, age, self.filter_operations, attaches=self.attaches
        )

    def batch(self, bytes_max: int) -> Sequence[NamespaceWrite]:
        """The oldest entries, at least one if there is any; they stay in the queue."""
        taken: list[NamespaceWrite] = []
        room = bytes_max
        for write, _ in self._writes:
            room -= write.value_bytes
            if taken and room < 0:
                break
            taken.append(write)
        return taken

    def done(self, lsn: int) -> None:
        """Everything up to `lsn` (inclusive) is durable."""
        while self._writes and self._writes[0][0].lsn <= lsn:
            self._count(self._writes.popleft()[0], -1)

    def let_go(self) -> None:
        """Forget everything: the log still has it."""
        for write, _ in self._writes:
            self._count(write, -1)
        self._writes.clear()

    def first_lsn(self) -> int | None:
        return self._writes[0][0].lsn if self._writes else None

    def _count(self, write: NamespaceWrite, sign: int) -> None:
        self.bytes += sign * write.value_bytes
        for entry in write.entries:
            self.records += sign * _records(entry.operation)
            if isinstance(entry.operation, UpdateByFilter | DeleteByFilter):
                self.filter_operations += sign
            self.attaches += sign * isinstance(entry.operation, Attach)


def _records(operation: Operation) -> int:
    match operation:
        case Upsert(records=records):
            return len(records)
        case DeleteIds(ids=ids):
            return len(ids)
        case _:
            return 1
