"""The gateway's way into the log: refuses what the freshness layer could not hold, then appends."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from core.clock import Clock
from core.errors import Overloaded, Unavailable
from core.indexes import IndexInfo
from core.operations import Entry, Operation
from core.partition import partition_of, wal_key
from freshness.protocol import FreshReader, FreshUsage
from ingest.writer import LogWriter

log = logging.getLogger(__name__)

# How old a usage may be: at 60 MB/s of writes half a second is 30 MB, small against the headroom.
USAGE_FRESH_S = 0.5
# A worker that does not answer costs a write a second: not each one of them.
UNKNOWN_FOR_S = 5.0
# Writes are refused from here on, so that what is in flight still fits.
FULL = 0.9


@dataclass(frozen=True, slots=True)
class _Known:
    usage: FreshUsage | None
    until_s: float


class LogWrites:
    """`api.ports.Writes` over the log writer, with back-pressure from the freshness layer.

    The bound holds for writes through the gateway; direct producers can pass it, and the freshness
    layer then marks that one namespace as overflowed.
    """

    def __init__(
        self, writer: LogWriter, fresh: FreshReader, partitions: int, clock: Clock
    ) -> None:
        self._writer = writer
        self._fresh = fresh
        self._partitions = partitions
        self._clock = clock
        self._known: dict[int, _Known] = {}

    async def write(
        self,
        index: IndexInfo,
        namespace: str,
        operations: Sequence[Operation],
        *,
        request_id: str,
    ) -> int:
        await self._check_room(index.index_id, namespace)
        entries = [Entry(operation, request_id) for operation in operations]
        written = await self._writer.write(
            index.index_id, namespace, entries, owner=index.project_id
        )
        return written.lsn

    async def _check_room(self, index_id: str, namespace: str) -> None:
        """`Overloaded` when the worker's memory or this namespace's share of it is nearly full."""
        partition = partition_of(wal_key(index_id, namespace), self._partitions)
        usage = await self._usage(partition)
        if usage is None:
            return
        if usage.fraction >= FULL:
            raise Overloaded(
                f"{usage.size_bytes} bytes of writes wait to be indexed, near the limit "
                "(FIRNDB_FRESHNESS_MEMORY_BYTES); slow down and try again",
                retry_after_s=2.0,
            )
        for one in usage.namespaces:
            if (one.index_id, one.namespace) == (index_id, namespace) and one.fraction >= FULL:
                raise Overloaded(
                    f"{one.records} records of this namespace wait to be indexed, near the limit; "
                    "slow down and try again",
                    retry_after_s=2.0,
                )

    async def _usage(self, partition: int) -> FreshUsage | None:
        """None while nobody can say: a write needs the log, not the freshness layer."""
        known = self._known.get(partition)
        if known is not None and self._clock.monotonic() < known.until_s:
            return known.usage
        usage, kept_s = None, UNKNOWN_FOR_S
        try:
            usage, kept_s = await self._fresh.usage(partition), USAGE_FRESH_S
        except Unavailable as error:
            log.info("the memory left for partition %d is not known: %s", partition, error)
        self._known[partition] = _Known(usage, self._clock.monotonic() + kept_s)
        return usage
