"""Where the log ends: asked after a query arrived, one request in flight per partition."""

from typing import Protocol

from core.coalesced import Coalesced
from core.log import Log


class Positions(Protocol):
    """What a read that promises to see acknowledged writes waits for."""

    async def end_lsn(self, partition: int, key: bytes | None = None) -> int:
        """The LSN (inclusive) of the newest durable record, as of some moment during this call;
        NO_LSN if there is none. `key`: only records of that key count, if the log can tell.

        `Unavailable` when the log is away.
        """


class LogPositions:
    """Asks the log."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._ends = Coalesced(log.end_offset)

    async def end_lsn(self, partition: int, key: bytes | None = None) -> int:
        known = None if key is None else self._log.end_of_key(partition, key)
        if known is not None:
            return known - 1
        return await self._ends.ask(partition) - 1
