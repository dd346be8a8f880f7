"""The log writer: entries in, LSNs out, many requests sharing few log records.

Group commit per namespace, without a timer: what arrives while the namespace's last record is in
flight shares the next one. A quiet namespace pays no delay, a busy one gets few, large records (a
consumer's cost is per record).
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from core.clock import Clock
from core.errors import Overloaded, TooLarge, Unavailable
from core.limits import LOG_RECORD_BYTES_MAX
from core.log import Log
from core.operations import Entry
from core.partition import partition_of
from core.turns import waiting as waiting_elsewhere
from ingest.wire import Encoded, encode_entry, pack

# An envelope around its entries takes 40 bytes at most, besides the two names. It counts: what the
# consumers find oversize would be acknowledged here and become a dead letter there.
FRAME_BYTES = 64
# One project's writes may fill so many times what is still free, 4/5 of the queue when it is alone:
# there is always room for another one's (as for requests in flight, `api.in_flight`).
OF_WHAT_IS_FREE = 4


@dataclass(frozen=True, slots=True)
class WriterSettings:
    """group_bytes: a record is closed once it holds that much; one larger request goes alone.

    1 MiB is where a consumer's cost per record (about 0.5 ms) no longer counts against the bytes.
    queued_bytes_max: of all namespaces, waiting and in flight; beyond it requests are refused. 64
    MiB are 32 upserts of the largest size.
    """

    group_bytes: int = 1 << 20
    queued_bytes_max: int = 64 << 20


class Written(NamedTuple):
    """Where a request went: its record's LSN, and the position of its first entry in the record."""

    lsn: int
    position: int


@dataclass(frozen=True, slots=True)
class WriterStatus:
    """queued_bytes: now. The others count since the start: requests / records is the group size.

    append_seconds: the sum over records, from handing a record to the log to its answer.
    """

    queued_bytes: int
    requests: int
    records: int
    failed_records: int
    append_seconds: float


@dataclass(slots=True)
class _Waiting:
    entries: list[bytes]
    size: int
    owner: str
    done: "asyncio.Future[Written]"


@dataclass(slots=True)
class _Lane:
    """One namespace: what waits, and the task that writes it, there as long as anything waits."""

    index_id: str
    namespace: str
    waiting: deque[_Waiting] = field(default_factory=deque)
    task: "asyncio.Task[None] | None" = None


class LogWriter:
    """Safe for many concurrent callers on one event loop; keeps the order of calls by namespace."""

    def __init__(self, log: Log, clock: Clock, settings: WriterSettings | None = None) -> None:
        self._log = log
        self._clock = clock
        self._settings = settings or WriterSettings()
        self._lanes: dict[tuple[str, str], _Lane] = {}
        self._closed = False
        self._queued_bytes = 0
        self._owned: dict[str, int] = {}
        self._requests = 0
        self._records = 0
        self._failed_records = 0
        self._append_seconds = 0.0

    async def write(
        self, index_id: str, namespace: str, entries: Sequence[Entry], *, owner: str = ""
    ) -> Written:
        """Returns once the entries are durable, all in one record, in this order.

        At least one entry; `namespace` is the canonical name. `owner`: who shares the queue fairly
        with others, the project. Errors: `TooLarge` for more than one record can hold, `Overloaded`
        when too much is queued, of all or of this owner, `Unavailable` from the log: then the
        entries may still take effect. A cancelled call does not take back its entries.
        """
        if self._closed:
            raise Unavailable("The log writer is shutting down; try again.")
        assert entries, "a record without entries would become a dead letter"
        encoded = [encode_entry(entry) for entry in entries]
        size = sum(map(len, encoded))
        frame = FRAME_BYTES + len(index_id) + len(namespace)
        if size + frame > LOG_RECORD_BYTES_MAX:
            raise TooLarge(
                f"The request takes {size + frame} bytes in the log, which exceeds the limit of "
                f"{LOG_RECORD_BYTES_MAX} bytes; send less at once."
            )
        free = self._settings.queued_bytes_max - self._queued_bytes
        # an owner that has nothing there yet may take what is free, however little that is
        mine = self._owned.get(owner, 0)
        if size > free or (mine and mine + size > OF_WHAT_IS_FREE * free):
            raise Overloaded(
                f"More than {self._settings.queued_bytes_max} bytes of writes wait for the log; "
                "slow down and try again."
            )
        self._queued_bytes += size
        self._owned[owner] = mine + size
        self._requests += 1
        done: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        lane = self._lanes.get((index_id, namespace))
        if lane is None:
            lane = self._lanes[index_id, namespace] = _Lane(index_id, namespace)
        lane.waiting.append(_Waiting(encoded, size, owner, done))
        if lane.task is None:
            lane.task = asyncio.create_task(self._drain(lane))
        with waiting_elsewhere():
            return await done

    def status(self) -> WriterStatus:
        return WriterStatus(
            queued_bytes=self._queued_bytes,
            requests=self._requests,
            records=self._records,
            failed_records=self._failed_records,
            append_seconds=self._append_seconds,
        )

    async def close(self) -> None:
        """Refuses new writes and returns once every accepted one has its answer."""
        self._closed = True
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        if tasks:
            await asyncio.wait(tasks)

    async def _drain(self, lane: _Lane) -> None:
        while lane.waiting:
            await self._write_group(lane, self._next_group(lane))
        # no await since the check, so nothing can have come in between
        del self._lanes[lane.index_id, lane.namespace]

    def _next_group(self, lane: _Lane) -> list[_Waiting]:
        group = [lane.waiting.popleft()]
        size = group[0].size
        while lane.waiting and size + lane.waiting[0].size <= self._settings.group_bytes:
            group.append(lane.waiting.popleft())
            size += group[-1].size
        return group

    async def _write_group(self, lane: _Lane, group: list[_Waiting]) -> None:
        entries = [entry for waiting in group for entry in waiting.entries]
        record = pack(lane.index_id, lane.namespace, entries)
        started = self._clock.monotonic()
        # a task of its own, so that whatever the append raises goes to the waiters and not to the
        # lane
        append = asyncio.create_task(self._append(record))
        await asyncio.wait([append])
        self._append_seconds += self._clock.monotonic() - started
        for one in group:
            self._leave(one)
        error = append.exception()
        if error is not None:
            self._failed_records += 1
            for waiting in group:
                if not waiting.done.done():
                    waiting.done.set_exception(error)
            return
        self._records += 1
        position = 0
        for waiting in group:
            if not waiting.done.done():
                waiting.done.set_result(Written(append.result(), position))
            position += len(waiting.entries)

    def _leave(self, waiting: _Waiting) -> None:
        self._queued_bytes -= waiting.size
        left = self._owned[waiting.owner] - waiting.size
        if left:
            self._owned[waiting.owner] = left
        else:
            del self._owned[waiting.owner]

    async def _append(self, record: Encoded) -> int:
        partitions = (await self._log.identity()).partitions
        partition = partition_of(record.key, partitions)
        return await self._log.append(partition, record.key, record.value, record.headers)
