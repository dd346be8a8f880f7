"""The partitions of this worker across rebalances: taken over, fed, kept or dropped."""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from core.consumer import LogConsumer
from core.errors import LogMismatch, Unavailable
from infra.faust.errors import ConsumerStuck
from infra.faust.partition import Fetched, Partition
from infra.faust.settings import FaustSettings

T = TypeVar("T")

logger = logging.getLogger(__name__)

BOUNDS_RETRY_S = 1.0
RETRY_FIRST_S = 0.1
RETRY_MAX_S = 5.0


class LogReader(Protocol):
    """What the assignment needs of the Kafka client."""

    async def place(self, partition: int, offset: int, epoch: int) -> bool:
        """Read on from `offset`, marking records with `epoch`. False if it is not assigned now."""

    async def bounds(self, partition: int) -> tuple[int, int]:
        """First offset kept, next offset to be written (committed data); or `Unavailable`."""


class Assignment:
    """Feeds every assigned partition in a task of its own, so that a slow one stops no other.

    Rebalances are eager: all partitions are revoked, then some come back. So `suspend` only stops
    new deliveries; `reconcile` keeps what came back and drops the rest.
    """

    def __init__(
        self,
        consumer: LogConsumer,
        reader: LogReader,
        settings: FaustSettings,
        fail: Callable[[BaseException], None],
    ) -> None:
        self.partitions: dict[int, Partition] = {}
        self.blocked: set[int] = set()  # not to be read now; looked at from the client's thread
        self.holes = 0
        self.suspended = False
        self._consumer = consumer
        self._reader = reader
        self._settings = settings
        self._fail = fail
        self._generation = -1
        self._epochs = itertools.count()
        self._released = asyncio.Event()
        self._released.set()
        self._waiting_bytes = 0
        self._crowded = False
        self._retiring: dict[int, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # keeps running tasks from being collected

    def suspend(self) -> None:
        """A rebalance began. What is in flight goes on; nothing new is handed to the handler."""
        self.suspended = True
        self._released.clear()

    def reconcile(self, generation: int, assigned: Iterable[int]) -> None:
        """The group settled on `assigned`. Returns at once; hand-overs go on in tasks.

        A partition is kept only if the generation follows the one before: then nobody else can
        have owned it in between. After a gap (session lost, a round missed) all are taken anew.
        What is dropped here is somebody else's by now, hence `lost`.
        """
        mine = set(assigned)
        kept = mine & self.partitions.keys() if generation == self._generation + 1 else set()
        self._generation = generation
        dropped = sorted(self.partitions.keys() - kept)
        logger.info(
            "generation %d: %d partitions kept, %d new, %d dropped",
            generation, len(kept), len(mine - kept), len(dropped),
        )  # fmt: skip
        self._drop(dropped, lost=True)
        for number in sorted(mine - kept):
            self._take_over(number)
        for number in kept:
            if self.partitions[number].wanted is not None:
                self._spawn(self._place(self.partitions[number]))
        self.suspended = False
        self._released.set()

    def take_in(self, fetched: Fetched) -> None:
        """One record from the client, in any state. What is missing before it is read again."""
        partition = self.partitions.get(fetched.record.partition)
        if partition is None:
            return
        before = partition.waiting_bytes
        if not partition.take_in(fetched):
            self.holes += 1
            logger.warning(
                "partition %d: offsets %s to %d got lost within the transport; reading them again",
                partition.number, partition.wanted, fetched.previous - 1,
            )  # fmt: skip
            partition.epoch = -1  # what still arrives of the broken run is stale
            self._spawn(self._place(partition))
        self._account(partition, partition.waiting_bytes - before)

    async def close(self) -> None:
        """Give every partition back while it is ours; returns when the handler let go of all."""
        self.suspend()
        self._drop(sorted(self.partitions), lost=False)
        if self._retiring:
            await asyncio.wait(set(self._retiring.values()))

    def committable(self) -> dict[int, int]:
        """What the group's offsets may follow, of the partitions whose handler has started."""
        started = [p.number for p in self.partitions.values() if p.wanted is not None]
        return {number: self._consumer.committable(number) for number in started}

    def _take_over(self, number: int) -> None:
        settings = self._settings
        partition = self.partitions[number] = Partition(
            number,
            records_max=settings.partition_records_max,
            bytes_max=settings.partition_bytes_max,
        )
        partition.task = self._spawn(self._serve(partition, after=self._retiring.get(number)))

    async def _serve(self, partition: Partition, after: asyncio.Task[None] | None) -> None:
        """Life of a partition: assign once, then one `apply` after the other until cancelled."""
        number = partition.number
        if after is not None:  # calls for one partition never overlap
            await asyncio.wait([after])
        start = await self._retried(partition, "assign", lambda: self._consumer.assign(number))
        await self._check_range(number, start)
        partition.wanted = start
        await self._place(partition)
        while True:
            batch = await partition.next_batch(self._released)
            await self._retried(partition, "apply", partial(self._consumer.apply, number, batch))
            if (applied := self._consumer.applied(number)) <= batch[-1].offset:
                raise RuntimeError(
                    f"partition {number}: {batch[-1].offset} was applied, applied() is {applied}"
                )
            before = partition.waiting_bytes
            partition.done(batch)
            self._account(partition, partition.waiting_bytes - before)

    async def _retried(self, partition: Partition, verb: str, act: Callable[[], Awaitable[T]]) -> T:
        """`act` until it is not `Unavailable`: the catalog or the store may be away for minutes,
        and a worker that ended for it would take its other partitions along.
        """
        wait_s = RETRY_FIRST_S
        while True:
            try:
                with partition.busy():
                    return await act()
            except Unavailable as error:
                logger.warning(
                    "partition %d: %s waits %.1f s: %s", partition.number, verb, wait_s, error
                )
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, RETRY_MAX_S)

    async def _check_range(self, number: int, start: int) -> None:
        """`LogMismatch` unless the log still holds, or will write next, what the handler wants."""
        while True:
            try:
                first, end = await self._reader.bounds(number)
                break
            except Unavailable as error:
                logger.warning("partition %d: %s", number, error)
                await asyncio.sleep(BOUNDS_RETRY_S)
        if not first <= start <= end:
            raise LogMismatch(
                f"Partition {number} of {self._settings.topic} holds offsets {first} to {end - 1}, "
                f"but {start} is wanted next: not the log that was indexed, or trimmed too far."
            )

    async def _place(self, partition: Partition) -> None:
        """Point the client at `wanted`. If it is not ours just now, `reconcile` does it again."""
        assert partition.wanted is not None
        partition.epoch = next(self._epochs)
        await self._reader.place(partition.number, partition.wanted, partition.epoch)

    def _drop(self, numbers: Sequence[int], *, lost: bool) -> None:
        if not numbers:
            return
        gone = [self.partitions.pop(number) for number in numbers]
        for partition in gone:
            self._account(partition, -partition.waiting_bytes)
        self.blocked.difference_update(numbers)
        retiring = self._spawn(self._retire(gone, lost=lost))
        self._retiring.update(dict.fromkeys(numbers, retiring))

    async def _retire(self, gone: Sequence[Partition], *, lost: bool) -> None:
        tasks = [p.task for p in gone if p.task is not None]
        for task in tasks:
            task.cancel()
        numbers = [p.number for p in gone]
        limit_s = self._settings.handler_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                await asyncio.wait(tasks)
                await self._consumer.revoke(numbers, lost=lost)
        except TimeoutError:
            raise ConsumerStuck(
                f"Partitions {numbers}: the handler has not let go of them for {limit_s:.0f} s."
            ) from None

    def _account(self, partition: Partition, added_bytes: int) -> None:
        """Keep `blocked` in step with the buffers: its own bounds, and the common one."""
        self._waiting_bytes += added_bytes
        crowded = self._waiting_bytes >= self._settings.buffer_bytes_max
        changed = self.partitions.values() if crowded != self._crowded else [partition]
        self._crowded = crowded
        for each in changed:
            if each.full or (crowded and each.waiting_bytes > 0):
                self.blocked.add(each.number)
            else:
                self.blocked.discard(each.number)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A failed hand-over or handler call ends the worker: silence would be a stall."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)
