"""Follows partition 0 of a log from a position on, for as long as the process runs."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from core.errors import FirnError, LogMismatch
from core.log import Log, LogRecord

log = logging.getLogger(__name__)

PARTITION = 0
WAIT_S = 30.0
BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 5.0


class Tail:
    """Hands every record to `listener`, in order, on the loop; survives the log being away."""

    def __init__(self, source: Log, listener: Callable[[Sequence[LogRecord]], None]) -> None:
        self._source = source
        self._listener = listener
        self._position = 0
        self._task: asyncio.Task[None] | None = None

    async def start_at_end(self) -> None:
        """Follow what comes from now on. `Unavailable` if the log cannot say where it ends."""
        self._position = await self._source.end_offset(PARTITION)
        self._follow()

    async def start_at_beginning(self) -> None:
        """Returns when all that is there now has been handed over; goes on following."""
        self._position = await self._source.start_offset(PARTITION)
        end = await self._source.end_offset(PARTITION)
        while self._position < end:
            records = await self._source.read(PARTITION, self._position)
            if not records:
                break  # nothing but offsets that compaction or transactions left empty
            self._hand_over(records)
        self._follow()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _follow(self) -> None:
        self._task = asyncio.create_task(self._run(), name="tail")

    async def _run(self) -> None:
        wait_s = BACKOFF_FIRST_S
        while True:
            try:
                records = await self._source.read(PARTITION, self._position, wait_s=WAIT_S)
            except LogMismatch as error:
                # a topic that was made anew: what it says from now on counts
                log.warning("news start over: %s", error)
                await self._start_over()
            except FirnError as error:
                log.warning("no news for %.1f s: %s", wait_s, error)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, BACKOFF_MAX_S)
            else:
                wait_s = BACKOFF_FIRST_S
                self._hand_over(records)

    async def _start_over(self) -> None:
        try:
            self._position = await self._source.start_offset(PARTITION)
        except FirnError:
            await asyncio.sleep(BACKOFF_MAX_S)

    def _hand_over(self, records: Sequence[LogRecord]) -> None:
        if records:
            self._position = records[-1].offset + 1
            self._listener(records)
