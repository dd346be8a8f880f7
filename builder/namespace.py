"""What the builder holds of one namespace while there is work for it."""

import asyncio
from dataclasses import dataclass, field

from builder.fairness import is_small
from builder.pending import PendingWrites
from storage.manifest import Manifest, memory_of

NamespaceKey = tuple[str, str]

# One namespace may fill so much of the buffer; then the log of its own partition waits for it.
SHARE_MAX = 0.5


@dataclass(slots=True, eq=False)
class NamespaceWork:
    """lock: held from choosing a batch to its commit, and for a compaction's commit: one at a time.

    manifest: the newest one known, None before it was read or if there is none. retry_at: no flush
    before this time of the monotonic clock. paused: why the namespace waits for a person, "" if it
    does not. gap_from: its entries from this LSN on are not in `pending` but have to be read from
    the log again, None if all are. counted: (bytes, records) that the buffer's total includes.
    """

    index_id: str
    namespace: str
    pending: PendingWrites = field(default_factory=PendingWrites)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    manifest: Manifest | None = None
    flushing: bool = False
    compacting: bool = False
    retry_at: float = 0.0
    compact_at: float = 0.0
    failures: int = 0
    paused: str = ""
    gap_from: int | None = None
    counted: tuple[int, int] = (0, 0)

    @property
    def key(self) -> NamespaceKey:
        return self.index_id, self.namespace

    @property
    def first_lsn(self) -> int | None:
        """The lowest LSN that may not be in a manifest; None if all are."""
        first = self.pending.first_lsn()
        return self.gap_from if first is None else first

    @property
    def has_entries(self) -> bool:
        """To be flushed, once they are read."""
        return self.first_lsn is not None

    def is_small(self, now: float) -> bool:
        """Its next flush needs neither much memory nor much of a processor, for all that is
        known.
        """
        return self.gap_from is None and is_small(self.pending.load(now))

    @property
    def idle(self) -> bool:
        """Nothing is lost by forgetting it."""
        return not (self.has_entries or self.flushing or self.compacting or self.lock.locked())


Works = dict[NamespaceKey, NamespaceWork]


class IdleNamespaces:
    """Namespaces without work that stay in memory with their manifests: those that had some last,
    within bounds.
    """

    def __init__(self, count_max: int, bytes_max: int) -> None:
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self._idle: dict[NamespaceWork, tuple[Works, int]] = {}

    def add(self, works: Works, work: NamespaceWork) -> None:
        """The oldest ones are taken out of their `works` if there are too many."""
        self.discard(work)
        size = 0 if work.manifest is None else memory_of(work.manifest)
        self._idle[work] = works, size
        self._bytes += size
        while len(self._idle) > self._count_max or self._bytes > self._bytes_max:
            oldest = next(iter(self._idle))
            self._idle[oldest][0].pop(oldest.key, None)
            self.discard(oldest)

    def discard(self, work: NamespaceWork) -> None:
        _, size = self._idle.pop(work, (None, 0))
        self._bytes -= size


class Buffer:
    """The bound of entries accepted and not yet flushed, over all namespaces.

    Paused namespaces have a bound of their own, so that they do not stop the others.
    """

    def __init__(self, bytes_max: int, records_max: int) -> None:
        self._bytes_max = bytes_max
        self._records_max = records_max
        self.bytes = 0
        self.records = 0

    def recount(self, work: NamespaceWork) -> None:
        """After any change of `work.pending` or `work.paused`."""
        now = (0, 0) if work.paused else (work.pending.bytes, work.pending.records)
        self.bytes += now[0] - work.counted[0]
        self.records += now[1] - work.counted[1]
        work.counted = now

    def forget(self, work: NamespaceWork) -> None:
        self.bytes -= work.counted[0]
        self.records -= work.counted[1]
        work.counted = (0, 0)

    def share(self, work: NamespaceWork) -> float:
        """Of the nearer bound."""
        size, records = work.counted
        return max(size / self._bytes_max, records / self._records_max)

    def hogged_by(self, work: NamespaceWork) -> bool:
        """It holds so much that namespaces of other partitions would wait for it."""
        return self.share(work) > SHARE_MAX

    @property
    def full(self) -> bool:
        return self.bytes > self._bytes_max or self.records > self._records_max
