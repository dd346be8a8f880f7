"""Where the log ends: asked after a query arrived, one request in flight per partition."""

import asyncio
from typing import Protocol

from core.log import Log


class Positions(Protocol):
    """What a read that promises to see acknowledged writes waits for."""

    async def end_lsn(self, partition: int, key: bytes | None = None) -> int:
        """The LSN (inclusive) of the newest durable record, as of some moment during this call;
        NO_LSN if there is none. `key`: only records of that key count, if the log can tell.

        `Unavailable` when the log is away.
        """


class LogPositions:
    """Asks the log. Callers who arrive while a request is under way share the one that follows it:
    an answer that was on its way already may miss the write that they have seen acknowledged.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._running: dict[int, asyncio.Task[int]] = {}
        self._following: dict[int, asyncio.Task[int]] = {}

    async def end_lsn(self, partition: int, key: bytes | None = None) -> int:
        known = None if key is None else self._log.end_of_key(partition, key)
        if known is not None:
            return known - 1
        following = self._following.get(partition)
        if following is not None:
            return await asyncio.shield(following)
        running = self._running.get(partition)
        if running is None:
            task = self._running[partition] = asyncio.create_task(self._ask(partition))
            task.add_done_callback(_seen)
            return await asyncio.shield(task)
        task = self._following[partition] = asyncio.create_task(self._ask_after(running, partition))
        task.add_done_callback(_seen)
        return await asyncio.shield(task)

    async def _ask(self, partition: int) -> int:
        try:
            return await self._log.end_offset(partition) - 1
        finally:
            self._running.pop(partition, None)

    async def _ask_after(self, running: asyncio.Task[int], partition: int) -> int:
        await asyncio.wait((running,))
        # from here on it is the running one; who arrives now waits for another
        self._running[partition] = self._following.pop(partition)
        return await self._ask(partition)


def _seen(task: asyncio.Task[int]) -> None:
    """Takes the error of a task that nobody waits for any more."""
    if not task.cancelled():
        task.exception()
