"""Which namespaces are flushed next: what is due, or the biggest while the buffer is full."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import nlargest

from builder.fairness import DueQueue, FlushSlots
from builder.namespace import Buffer, NamespaceWork
from builder.partition import OwnedPartition
from builder.policy import delta_debt, due_in_s, outgrown
from builder.settings import BuilderSettings

# One look for the biggest serves so many flushes: it passes over everything that waits.
BIGGEST = 64

Key = tuple[OwnedPartition, NamespaceWork]


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """A flush that may begin; `small` is what its slot was taken for."""

    owned: OwnedPartition
    work: NamespaceWork
    small: bool


class FlushTurns:
    """Nothing is due in it for good: every change of what is pending must be told."""

    def __init__(self, settings: BuilderSettings, buffer: Buffer) -> None:
        self._settings = settings
        self._buffer = buffer
        self._slots = FlushSlots(settings.flushes)
        self._due: DueQueue[Key] = DueQueue()
        self._biggest: list[Key] = []

    def added(self, owned: OwnedPartition, work: NamespaceWork, now: float) -> None:
        """After an entry was accepted."""
        if len(work.pending) == 1:
            self._due.offer((owned, work), now + self._settings.flush.age_s)
        if outgrown(work.pending.load(now), self._settings.flush):
            self._due.offer((owned, work), now)

    def again(self, owned: OwnedPartition, work: NamespaceWork, now: float) -> None:
        """After a flush, which may have left something."""
        if work.has_entries:
            self._due.offer((owned, work), now)

    def take(self, partitions: Iterable[OwnedPartition], now: float) -> Iterator[Turn]:
        """Flushes that begin now: `work.flushing` is set. Each slot is to be given back."""
        postponed: list[Key] = []
        while self._slots.free:
            key = self._next(partitions, now)
            if key is None:
                break
            owned, work = key
            small = work.is_small(now)
            if self._slots.fits(small):
                self._slots.take(small)
                work.flushing = True
                yield Turn(owned, work, small)
            else:
                postponed.append(key)
        for key in postponed:
            self._due.offer(key, now)

    def give_back(self, turn: Turn) -> None:
        self._slots.give_back(turn.small)

    def _next(self, partitions: Iterable[OwnedPartition], now: float) -> Key | None:
        if self._buffer.full:
            return self._next_biggest(partitions, now)
        limits = self._settings
        while (key := self._due.pop(now)) is not None:
            owned, work = key
            if not _wants(owned, work):
                continue
            debt = 0.0 if work.manifest is None else delta_debt(work.manifest, limits.compaction)
            wait = 0.0  # what is in the log alone waits no longer than it has to
            if work.gap_from is None:
                wait = due_in_s(work.pending.load(now), limits.flush, debt)
            wait = max(wait, work.retry_at - now)
            if wait <= 0:
                return key
            self._due.offer(key, now + wait)
        return None

    def _next_biggest(self, partitions: Iterable[OwnedPartition], now: float) -> Key | None:
        def willing() -> Iterator[Key]:
            for owned in partitions:
                for work in owned.waiting.values():
                    if _wants(owned, work) and now >= work.retry_at:
                        yield owned, work

        if not self._biggest:
            self._biggest = nlargest(BIGGEST, willing(), key=lambda key: self._buffer.share(key[1]))
            self._biggest.reverse()
        while self._biggest:
            owned, work = self._biggest.pop()
            if _wants(owned, work) and now >= work.retry_at:
                return owned, work
        return None


def _wants(owned: OwnedPartition, work: NamespaceWork) -> bool:
    return owned.active and not work.flushing and work.has_entries
