"""Whose turn it is: flushes and compactions of many namespaces side by side. Pure but for its own
bookkeeping.

The trade-offs: a flush waits for its due time and then in that order, so that the age of a write
bounds its delay whoever else is busy; while memory is short the biggest goes first, because nothing
is accepted until some is free. Compaction jobs differ by a factor of 10,000 in their work, so there
the one goes whose waiting is longest in proportion to it: a small namespace overtakes a big one's
endless jobs, and a big one's turn comes all the same.
"""

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Generic, TypeVar

from builder.policy import PendingLoad

K = TypeVar("K", bound=Hashable)

# A flush of less is bound by the store's round trips and not by computing.
SMALL_FLUSH_BYTES = 1 << 20
# Round trips that small flushes wait for at the same time: the local store has as many threads.
SMALL_FLUSHES = 16
# What any compaction job costs on top of its bytes: some round trips, at 100 MB/s of rewriting.
JOB_BYTES = 1 << 20


def is_small(load: PendingLoad) -> bool:
    """The flush needs neither much memory nor much of a processor. An operation by filter may
    change a whole namespace.
    """
    return load.bytes <= SMALL_FLUSH_BYTES and not load.filter_operations


class FlushSlots:
    """How many flushes run at once: some big ones, which need memory and a processor, and more
    small ones, which wait for the store.
    """

    def __init__(self, big: int) -> None:
        self._big_max = big
        self._max = max(big, SMALL_FLUSHES)
        self._big = 0
        self._taken = 0

    @property
    def free(self) -> bool:
        """There is room for a small one."""
        return self._taken < self._max

    def fits(self, small: bool) -> bool:
        return self.free and (small or self._big < self._big_max)

    def take(self, small: bool) -> None:
        assert self.fits(small)
        self._taken += 1
        self._big += not small

    def give_back(self, small: bool) -> None:
        """`small`: as it was taken."""
        self._taken -= 1
        self._big -= not small


class DueQueue(Generic[K]):
    """Keys with the time at which each is due; the earliest comes first, in the order of offers
    where times are equal.
    """

    def __init__(self) -> None:
        self._due: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._due)

    def __iter__(self) -> Iterator[K]:
        return iter(self._due)

    def offer(self, key: K, at: float) -> None:
        """Due at `at`, or earlier if it is so already."""
        if at < self._due.get(key, float("inf")):
            self._due[key] = at
            heappush(self._heap, (at, next(self._numbers), key))
            if len(self._heap) > 2 * len(self._due) + 1_000:
                self._heap = [entry for entry in self._heap if self._due.get(entry[2]) == entry[0]]
                heapify(self._heap)

    def discard(self, key: K) -> None:
        self._due.pop(key, None)

    def pop(self, now: float) -> K | None:
        """The next one that is due, taken out; None if none is."""
        while self._heap and self._heap[0][0] <= now:
            at, _, key = heappop(self._heap)
            if self._due.get(key) == at:
                del self._due[key]
                return key
        return None


@dataclass(frozen=True, slots=True)
class Claim(Generic[K]):
    """since: from when on it waits, in seconds. bytes: about what its next job rewrites."""

    key: K
    since: float
    bytes: int


def next_turn(claims: Iterable[Claim[K]], now: float) -> K | None:
    """The claim that has waited longest in proportion to its work; None if there is none.

    Whoever waits gets its turn: its share grows without an end, while that of one with as much work
    that came later is always smaller.
    """

    def share(claim: Claim[K]) -> float:
        return (now - claim.since) / (claim.bytes + JOB_BYTES)

    best = max(claims, key=share, default=None)
    return None if best is None else best.key
