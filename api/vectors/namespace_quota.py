"""How many namespaces an index may have, asked before a write that could begin one more.

The first write of a namespace creates it, so an exact check would be a read before every write.
Instead their number is known from a count that is a little old, made beside the writes, the more
often the nearer it is to the limit; only an index that is full has a write wait for a look whether
its namespace exists. So a fast writer can pass the limit by what it begins between two counts, and
direct producers, imports and restores are not asked at all.
"""

import asyncio
import logging
from dataclasses import dataclass, field

from api.ports import Reads
from core.clock import Clock
from core.errors import FirnError, NotFound, Unavailable
from core.indexes import IndexInfo
from infra.catalog.quotas import Quota
from query.model import Consistency, ReadOptions

log = logging.getLogger(__name__)

# Seconds between two counts, by the part of the limit that is used. A count asks every partition,
# which is much for an index that is far from its limit, as nearly all are.
PERIODS_S = ((0.1, 1800.0), (0.5, 300.0), (0.9, 30.0), (1.0, 5.0))
FULL_S = 1.0
COUNTS_AT_ONCE = 2
# Indexes that are counted, and namespaces of a full one that are known to exist: 100 bytes each.
INDEXES_MAX = 10_000
EXISTING_MAX = 10_000
_NOW = ReadOptions(Consistency.EVENTUAL)


@dataclass(slots=True)
class _Counted:
    """`count` None: not known yet. `existing`: names that were seen to exist since it is full."""

    count: int | None = None
    again_at_s: float = 0.0
    counting: bool = False
    existing: set[str] = field(default_factory=set)


class NamespaceQuota:
    """Every write that can begin a namespace asks `admit`."""

    def __init__(self, reads: Reads, quota: Quota, clock: Clock) -> None:
        self._reads = reads
        self._quota = quota
        self._clock = clock
        self._indexes: dict[str, _Counted] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(COUNTS_AT_ONCE)

    async def admit(self, index: IndexInfo, namespace: str) -> None:
        """`QuotaExceeded` if the index is full and the namespace does not exist."""
        known = self._known(index.index_id)
        if self._clock.monotonic() >= known.again_at_s and not known.counting:
            known.counting = True
            task = asyncio.create_task(self._recount(index, known))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        if known.count is None or known.count < self._quota.most or namespace in known.existing:
            return
        try:
            await self._reads.describe_namespace(index, namespace, _NOW)
        except NotFound:
            raise self._quota.exceeded(f"index {index.name}") from None
        except Unavailable:  # a write needs the log, and nothing that reads
            return
        if len(known.existing) >= EXISTING_MAX:
            known.existing.clear()
        known.existing.add(namespace)

    async def counted(self) -> None:
        """Until no count is under way."""
        await asyncio.gather(*self._running, return_exceptions=True)

    async def close(self) -> None:
        for task in self._running:
            task.cancel()
        await self.counted()

    def _known(self, index_id: str) -> _Counted:
        known = self._indexes.pop(index_id, None)
        if known is None:
            known = _Counted()
            if len(self._indexes) >= INDEXES_MAX:
                del self._indexes[next(iter(self._indexes))]
        self._indexes[index_id] = known  # the longest unused one is the first
        return known

    async def _recount(self, index: IndexInfo, known: _Counted) -> None:
        try:
            async with self._turns:
                result = await self._reads.namespaces(index, "", 1, None, _NOW)
            known.count = result.total
            known.existing.clear()
        except FirnError as error:
            log.info("the namespaces of index %s cannot be counted for now: %s", index.name, error)
        finally:
            known.again_at_s = self._clock.monotonic() + self._period_s(known.count)
            known.counting = False

    def _period_s(self, count: int | None) -> float:
        used = (count or 0) / self._quota.most
        return next((period for part, period in PERIODS_S if used < part), FULL_S)
