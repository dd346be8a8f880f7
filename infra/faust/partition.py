"""One assigned partition: its place in the log and the records that wait for the handler."""

import asyncio
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from core.log import LogRecord

# What a record costs besides its key, headers and value: objects and buffer slots. It keeps a flood
# of empty records from being free.
RECORD_OVERHEAD_BYTES = 500


@dataclass(frozen=True, slots=True)
class Fetched:
    """A record as it left the Kafka client, with the proof that none before it got lost since.

    `previous`: the next offset wanted just before this record was read; offsets have gaps
    (transactions, compaction), so they alone prove nothing. `epoch`: of the placing it belongs to.
    """

    record: LogRecord
    previous: int
    epoch: int


def cost(record: LogRecord) -> int:
    """Bytes that a waiting record is charged for."""
    headers = sum(len(name) + len(value) for name, value in record.headers)
    return len(record.value or b"") + len(record.key or b"") + headers + RECORD_OVERHEAD_BYTES


class Partition:
    """State of one partition between its assignment and its loss. No I/O; one event loop.

    `wanted`: the next offset to take from the log, None until the handler has said where to start;
    it is ahead of the handler's `applied` by what waits and what is in flight.
    """

    def __init__(self, number: int, *, records_max: int, bytes_max: int) -> None:
        self.number = number
        self.wanted: int | None = None
        self.epoch = -1  # of the placing in force; -1: none, so everything that arrives is stale
        self.waiting_bytes = 0
        self.busy_since: float | None = None  # monotonic; a handler call is under way
        self.task: asyncio.Task[None] | None = None
        self._records_max = records_max
        self._bytes_max = bytes_max
        self._waiting: deque[LogRecord] = deque()
        self._arrived = asyncio.Event()

    @property
    def full(self) -> bool:
        return len(self._waiting) >= self._records_max or self.waiting_bytes >= self._bytes_max

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing is in flight: the handler would take a record at once."""
        return not self._waiting and self.busy_since is None

    def take_in(self, fetched: Fetched) -> bool:
        """Queue a record. False if some before it are missing: the partition must be placed again.

        What belongs to an earlier placing or was seen already is dropped.
        """
        if fetched.epoch != self.epoch or self.wanted is None:
            return True
        if fetched.previous > self.wanted:
            return False
        if fetched.record.offset >= self.wanted:
            self._waiting.append(fetched.record)
            self.waiting_bytes += cost(fetched.record)
            self.wanted = fetched.record.offset + 1
            self._arrived.set()
        return True

    async def next_batch(self, released: asyncio.Event) -> list[LogRecord]:
        """All that waits, at least one record, once `released` is set. It counts until `done`."""
        while not (self._waiting and released.is_set()):
            self._arrived.clear()
            if not self._waiting:
                await self._arrived.wait()
            await released.wait()
        batch = list(self._waiting)
        self._waiting.clear()
        return batch

    def done(self, batch: list[LogRecord]) -> None:
        self.waiting_bytes -= sum(map(cost, batch))

    @contextmanager
    def busy(self) -> Iterator[None]:
        """A handler call is under way; the watchdog times it."""
        self.busy_since = time.monotonic()
        try:
            yield
        finally:
            self.busy_since = None
