"""How much memory the layer may take, and who is marked full when it is used up."""

from dataclasses import dataclass

from freshness.held import HeldNamespace
from freshness.protocol import FreshUsage, NamespaceUsage

# Gateways answer 429 well before 1.0; below half nobody needs to know.
REPORTED_FROM = 0.5
# Over the limit the largest namespace is marked full, and the next one for every further step of
# the limit: the small ones usually fit into what is left up to the hard limit, beyond which whoever
# writes is marked.
MARK_STEP = 0.05
HARD_LIMIT = 1.25


@dataclass(frozen=True, slots=True)
class MemoryLimits:
    """Of one process. size_bytes: 2 million records of 384 dimensions need about 4 GiB.
    pending_operations: filter operations of one namespace; each is evaluated on file rows by every
    query, so some thousands are far too many.
    """

    size_bytes: int = 4 << 30
    namespace_records: int = 2_000_000
    namespace_operations: int = 10_000


class Budget:
    """Follows the size of every namespace held; marks one full when a limit is reached."""

    def __init__(self, limits: MemoryLimits) -> None:
        self.limits = limits
        self._held: dict[HeldNamespace, int] = {}
        # Those to report, in the order in which they came near: usage is asked for with every
        # write, and thousands of namespaces are held.
        self._near: dict[HeldNamespace, None] = {}
        self._total = 0
        self._marks_at = limits.size_bytes

    @property
    def size_bytes(self) -> int:
        return self._total

    def changed(self, held: HeldNamespace) -> None:
        """After every write and eviction."""
        self._total += held.size_bytes - self._held.get(held, 0)
        self._held[held] = held.size_bytes
        if self._fraction(held) >= 1.0:
            held.mark_full()
        limit = self.limits.size_bytes
        if self._total <= limit:
            self._marks_at = limit
        elif self._total > HARD_LIMIT * limit:
            held.mark_full()
        elif self._total > self._marks_at:
            # the largest pays: a small neighbour's answers do not change
            largest = max(self._held, key=lambda h: 0 if h.overflowed else h.size_bytes)
            largest.mark_full()
            self._near[largest] = None
            self._marks_at = self._total + int(MARK_STEP * limit)
        if self._is_near(held):
            self._near[held] = None
        else:
            self._near.pop(held, None)

    def forget(self, held: HeldNamespace) -> None:
        self._total -= self._held.pop(held, 0)
        self._near.pop(held, None)

    def usage(self) -> FreshUsage:
        return FreshUsage(
            fraction=self._total / self.limits.size_bytes,
            size_bytes=self._total,
            namespaces=tuple(
                NamespaceUsage(
                    index_id=h.index_id,
                    namespace=h.namespace,
                    records=h.memory.records,
                    size_bytes=h.size_bytes,
                    fraction=self._fraction(h),
                    overflowed=h.overflowed,
                )
                for h in self._near
                if self._is_near(h)
            ),
        )

    def _is_near(self, held: HeldNamespace) -> bool:
        return held.overflowed or self._fraction(held) >= REPORTED_FROM

    def _fraction(self, held: HeldNamespace) -> float:
        return max(
            held.memory.records / self.limits.namespace_records,
            held.size_bytes / self.limits.size_bytes,
            held.memory.pending_operations / self.limits.namespace_operations,
        )
