"""Faust's Kafka transport with positions, completeness and errors taken into our own hands.

All that knows the inside of Faust (0.15) and aiokafka (0.14) is here and in `watchdog`. What is
overridden, and which fact made it necessary: docs/decisions/0002-faust-driver.md.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, ClassVar, TypeVar, cast

import aiokafka
import faust
from aiokafka.errors import (
    CommitFailedError,
    ConsumerStoppedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)
from aiokafka.structs import ConsumerRecord, OffsetAndMetadata, TopicPartition
from faust.app.base import BootStrategy
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage
from mode.threads import WorkerThread

from core.errors import LogMismatch, Unavailable
from core.log import LogRecord
from infra.faust.assignment import Assignment
from infra.faust.partition import Fetched
from infra.faust.settings import FaustSettings

logger = logging.getLogger(__name__)

T = TypeVar("T")

# While some partition waits for its handler, the client is asked again this often: its own wait
# (1 s) does not end when such a partition becomes free.
BLOCKED_POLL_S = 0.05
# A fetch hands over at most this many records, so that their 2 tasks each do not hog the loop.
POLL_RECORDS_MAX = 64
FETCH_WAIT_MS = 250  # the broker's wait for new data; it also bounds how long a new position waits


class DaemonThread(WorkerThread):
    """Faust's thread must neither keep the process alive nor be joined on the event loop."""

    def __init__(self, service: Any, **options: Any) -> None:
        super().__init__(service, **options)
        self.daemon = True

    def stop(self) -> None:
        """Faust blocks the event loop here until the thread is gone; it ends on its own."""


class ClientThread(driver.AIOKafkaConsumerThread):
    """The thread that runs aiokafka: heartbeats go on while the main loop is busy."""

    Worker = DaemonThread
    app: "FirnApp"

    def __post_init__(self) -> None:
        super().__post_init__()
        # Of each placed partition: the epoch, and the next offset wanted from the client.
        self.cursor: dict[TopicPartition, tuple[int, int]] = {}

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        settings = self.app.worker_settings
        self._assignor = self.app.assignor
        return aiokafka.AIOKafkaConsumer(
            client_id=settings.client_id,
            group_id=settings.group,
            bootstrap_servers=settings.bootstrap.split(","),
            partition_assignment_strategy=[self._assignor],
            enable_auto_commit=False,
            auto_offset_reset="none",  # never jump: an offset out of range is an error
            isolation_level="read_committed",  # Faust offers it to its own transactions only
            max_partition_fetch_bytes=settings.fetch_partition_bytes,
            fetch_max_bytes=settings.fetch_bytes_max,
            fetch_max_wait_ms=FETCH_WAIT_MS,
            max_poll_records=POLL_RECORDS_MAX,
            # A worker that holds everything back does not poll; the watchdog finds real stalls.
            max_poll_interval_ms=24 * 3600 * 1000,
            session_timeout_ms=int(settings.session_timeout_s * 1000),
            heartbeat_interval_ms=int(settings.session_timeout_s * 1000 / 5),
            rebalance_timeout_ms=int(settings.rebalance_timeout_s * 1000),
            request_timeout_ms=int(settings.request_timeout_s * 1000),
        )

    async def _fetch_records(
        self,
        consumer: aiokafka.AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,
        max_records: int | None = None,
    ) -> Mapping[Any, list[Fetched]]:
        """Next records of the partitions that may be read now. `Fetched` goes on in their place."""
        if not self.consumer.flow_active:
            return {}
        fetcher = consumer._fetcher
        if consumer._closed or fetcher._closed:
            raise ConsumerStoppedError
        blocked = self.app.assignment.blocked
        readable = {tp for tp in active_partitions if tp.partition not in blocked}
        if not readable:  # an empty set would mean all of them
            await asyncio.sleep(BLOCKED_POLL_S)
            return {}
        if len(readable) < len(active_partitions):
            timeout = BLOCKED_POLL_S
        try:
            # Faust never asks; an error of the group would park the coordinator for ever.
            consumer._coordinator.check_errors()
            drained = await fetcher.fetched_records(readable, timeout, max_records)
        except NoOffsetForPartitionError:
            return {}  # the group knows no offset; we place every partition ourselves
        except OffsetOutOfRangeError as error:
            self.app.fail(LogMismatch(f"The log does not hold what is wanted next: {error}"))
            return {}
        except KafkaError as error:
            self.app.fail(error)
            return {}
        return {tp: self._chain(tp, records) for tp, records in drained.items()}

    def _chain(self, tp: TopicPartition, records: Iterable[ConsumerRecord]) -> list[Fetched]:
        if tp not in self.cursor:
            return []
        epoch, expected = self.cursor[tp]
        chained = []
        for record in records:
            chained.append(Fetched(to_log_record(record), expected, epoch))
            expected = record.offset + 1
        self.cursor[tp] = (epoch, expected)
        return chained

    def hold(self, assigned: Iterable[TopicPartition]) -> None:
        """In the thread: nothing of a new assignment is read before `place` says from where."""
        self.cursor.clear()
        consumer = self._ensure_consumer()
        for tp in assigned:
            consumer.seek(tp, 0)  # a valid position, so that aiokafka looks for no other
            consumer.pause(tp)

    async def place(self, tp: TopicPartition, offset: int, epoch: int) -> bool:
        """In the thread: read on from `offset`."""
        consumer = self._ensure_consumer()
        try:
            consumer.seek(tp, offset)
            self.cursor[tp] = (epoch, offset)
            if tp in consumer.paused():
                consumer.resume(tp)
        except IllegalStateError:  # given away meanwhile
            return False
        return True

    async def bounds(self, tps: list[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        """In the thread: first and end offset (committed data) of partitions, asked afresh."""
        consumer = self._ensure_consumer()
        try:
            first = await consumer.beginning_offsets(tps)
            end = await consumer.end_offsets(tps)
        except KafkaError as error:
            raise Unavailable(f"Kafka does not tell the log's bounds: {error!r}") from error
        return {tp: (first[tp], end[tp]) for tp in tps}

    async def commit_hint(self, offsets: Mapping[TopicPartition, int]) -> None:
        """In the thread: move the group's offsets. Nothing depends on it: failures are logged."""
        try:
            consumer = self._ensure_consumer()
            ours = {tp: offset for tp, offset in offsets.items() if tp in consumer.assignment()}
            if ours:
                await consumer.commit({tp: OffsetAndMetadata(o, "") for tp, o in ours.items()})
        except (CommitFailedError, IllegalStateError) as error:
            logger.info("group offsets not moved: %s", error)
        except KafkaError as error:
            logger.warning("group offsets not moved: %r", error)

    def fetch_position(self, tp: TopicPartition) -> int | None:
        """Next offset that aiokafka fetches; from any thread."""
        subscription = self._ensure_consumer()._subscription.subscription
        state = subscription and subscription.assignment and subscription.assignment.state_value(tp)
        return state._position if state else None

    async def run(self, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """Run `work` in the thread from the main loop; `Unavailable` after `timeout_s`.

        Faust's own way into the thread has two workers, one of them held by the fetch; a
        commit that waits for a lost coordinator would keep everything else out.
        """
        future = asyncio.run_coroutine_threadsafe(work, self.thread_loop)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), timeout_s)
        except TimeoutError:
            raise Unavailable(f"Kafka gave no answer within {timeout_s:g} s") from None

    def close(self) -> None:
        """Faust closes the client from the wrong loop here, so that it never leaves the group."""

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust compares a wall clock with a monotonic one here; the watchdog does it instead."""


class RebalanceListener(driver.ConsumerRebalanceListener):
    """Called by aiokafka in its thread."""

    _thread: ClientThread

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._thread.hold(assigned)
        await super().on_partitions_assigned(assigned)


class NoMemory(defaultdict[TP, int | None]):
    """In place of Faust's last offsets: what is below them it drops silently, even after a seek."""

    def __init__(self) -> None:
        super().__init__(lambda: None)

    def __setitem__(self, tp: TP, offset: int | None) -> None:
        """Nothing is kept."""

    def __missing__(self, tp: TP) -> None:
        return None


class Consumer(driver.Consumer):
    """Faust's consumer; it decides about no position and commits nothing."""

    RebalanceListener: ClassVar[type[RebalanceListener]] = RebalanceListener
    app: "FirnApp"
    _thread: ClientThread

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._read_offset = NoMemory()

    def _new_consumer_thread(self) -> ClientThread:
        return ClientThread(self, loop=self.loop, beacon=self.beacon)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        self.app.assignment.suspend()
        await super().on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        # aiokafka sends no heartbeat until this returns, so it must not wait for a handler.
        self.app.assignment.reconcile(generation_id, {tp.partition for tp in assigned})
        await super().on_partitions_assigned(assigned, generation_id)

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Faust's last word on positions after every rebalance: none."""
        return {}

    def _to_message(self, tp: TP, record: Fetched) -> ConsumerMessage:
        """Faust carries the record as an opaque value, so null values and headers pass as is."""
        plain = record.record
        return ConsumerMessage(
            tp.topic, tp.partition, plain.offset, plain.timestamp_ms / 1000, 0, None, None,
            cast(Any, record), None, 0, 0, tp, generation_id=self.app.consumer_generation_id,
        )  # fmt: skip


class Transport(driver.Transport):
    Consumer = Consumer


class FirnApp(faust.App):
    """One Faust app of one worker: a consumer and an agent, no producer, no web server."""

    worker_settings: FaustSettings
    assignment: Assignment
    fail: Callable[[BaseException], None]

    class BootStrategy(BootStrategy):
        enable_kafka_producer = False
        enable_web = False

    def _new_transport(self) -> Transport:
        return Transport(self.conf.broker_consumer, self)

    @property
    def thread(self) -> ClientThread | None:
        """The client's thread once Faust has made its consumer."""
        return None if self._consumer is None else cast(Consumer, self._consumer)._thread


def to_log_record(record: ConsumerRecord) -> LogRecord:
    return LogRecord(
        partition=record.partition,
        offset=record.offset,
        key=record.key,
        headers=record.headers,
        value=record.value,
        timestamp_ms=record.timestamp,
    )
