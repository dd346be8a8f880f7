"""The asyncio driver of the embedded deployment: feeds a `LogConsumer` from a `Log`, one task per
partition.
"""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from core.consumer import LogConsumer
from core.errors import Unavailable
from core.log import Log, LogRecord

T = TypeVar("T")

logger = logging.getLogger(__name__)

BATCH_RECORDS = 500
BATCH_BYTES = 8 << 20
# An idle partition wakes up once an hour: the log itself wakes the reader when there is something
# to read.
IDLE_WAIT_S = 3600.0
BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 5.0
WARN_EVERY = 12  # a line a minute and partition in a long outage


async def run_log_loop(
    log: Log,
    consumer: LogConsumer,
    partitions: Sequence[int],
    *,
    stop: asyncio.Event,
    batch_records: int = BATCH_RECORDS,
    batch_bytes: int = BATCH_BYTES,
) -> None:
    """Assign all partitions and feed them until `stop` is set; then revoke them (not lost) and
    return.

    `Unavailable` from the log or the consumer is retried for ever, with back-off and a warning. Any
    other error (`LogMismatch`, `Fenced`, a defect) ends every partition, revokes them as lost, and
    is raised. Cancelling revokes them as lost, too.
    """
    feeds = [
        asyncio.create_task(
            _Feed(log, consumer, partition, stop, batch_records, batch_bytes).run(),
            name=f"log-loop-{type(consumer).__name__}-{partition}",
        )
        for partition in partitions
    ]
    lost = True
    try:
        done, _ = await asyncio.wait(feeds, return_when=asyncio.FIRST_EXCEPTION)
        for feed in done:
            feed.result()
        lost = False
    finally:
        for feed in feeds:
            feed.cancel()
        await asyncio.gather(*feeds, return_exceptions=True)
        await consumer.revoke(partitions, lost=lost)


class _Feed:
    def __init__(
        self,
        log: Log,
        consumer: LogConsumer,
        partition: int,
        stop: asyncio.Event,
        batch_records: int,
        batch_bytes: int,
    ) -> None:
        self._log = log
        self._consumer = consumer
        self._partition = partition
        self._stop = stop
        self._batch_records = batch_records
        self._batch_bytes = batch_bytes

    async def run(self) -> None:
        stopped = asyncio.create_task(self._stop.wait())
        try:
            position = await self._retried("assign", lambda: self._consumer.assign(self._partition))
            while not self._stop.is_set():
                position = await self._step(position, stopped)
        except _Stopped:
            return
        finally:
            stopped.cancel()

    async def _step(self, position: int, stopped: asyncio.Task[bool]) -> int:
        """Read and apply one batch, or wait for one; the next position."""
        reading = asyncio.create_task(self._retried("read", lambda: self._read(position)))
        try:
            # The stop interrupts the wait for records, never an apply.
            await asyncio.wait((reading, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                raise _Stopped
        finally:
            reading.cancel()
        records = reading.result()
        if not records:
            return position
        await self._retried("apply", lambda: self._consumer.apply(self._partition, records))
        return records[-1].offset + 1

    def _read(self, position: int) -> Awaitable[Sequence[LogRecord]]:
        return self._log.read(
            self._partition,
            position,
            max_records=self._batch_records,
            max_bytes=self._batch_bytes,
            wait_s=IDLE_WAIT_S,
        )

    async def _retried(self, verb: str, act: Callable[[], Awaitable[T]]) -> T:
        """`act` until it is not `Unavailable`; `_Stopped` when told to stop in between."""
        wait_s = BACKOFF_FIRST_S
        for attempt in itertools.count():
            try:
                return await act()
            except Unavailable as error:
                name = type(self._consumer).__name__
                logger.log(
                    logging.DEBUG if attempt % WARN_EVERY else logging.WARNING,
                    "%s: %s of partition %d waits %.1f s: %s",
                    *(name, verb, self._partition, wait_s, error),
                )
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), wait_s)
                raise _Stopped
            wait_s = min(2 * wait_s, BACKOFF_MAX_S)
        raise AssertionError("the count has no end")


class _Stopped(Exception):
    """Leaves a partition's loop on request."""
