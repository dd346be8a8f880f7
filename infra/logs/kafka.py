"""`Log` in a Kafka topic, for the distributed deployment. LSNs are Kafka's offsets, so they may
have gaps.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from core.errors import ConfigError, LogMismatch, TooLarge, Unavailable
from core.log import Headers, Log, LogIdentity, LogRecord
from infra.logs.coalesced import Coalesced
from infra.logs.kafka_client import answer, client_settings
from infra.logs.kafka_producer import AckProducer
from infra.logs.kafka_reader import PartitionReader
from infra.logs.kafka_topics import described

RECORD_BYTES_MAX = 8 << 20
# Of an append, all of librdkafka's repetitions included: below the 30 s that clients wait for us.
APPEND_TIMEOUT_S = 20.0
REQUEST_TIMEOUT_S = 5.0
# Partitions read at the same time; each is a client of its own with up to 16 MB read ahead.
READERS_MAX = 16
LEADER_WAIT_S = 0.05
READ_TURN_S = 0.5  # a thread's longest wait for records, before another partition has its turn
# Without types in confluent-kafka.
EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]
READ_TIMEOUT_S = 15.0  # for records that are known to be there


class KafkaLog(Log):
    """Used on one event loop. Brokers that were away are found again by librdkafka itself."""

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        *,
        append_timeout_s: float = APPEND_TIMEOUT_S,
        record_bytes_max: int = RECORD_BYTES_MAX,
    ) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._place = f"Kafka at {bootstrap}, topic {topic}"
        self._record_bytes_max = record_bytes_max
        self._producer = AckProducer(
            bootstrap, topic, timeout_s=append_timeout_s, record_bytes_max=record_bytes_max
        )
        self._admin: AdminClient | None = None
        self._ends: dict[int, Coalesced[int]] = {}
        self._readers: OrderedDict[int, PartitionReader] = OrderedDict()
        self._threads = ThreadPoolExecutor(READERS_MAX, thread_name_prefix="kafka-read")
        self._closed = False

    async def identity(self) -> LogIdentity:
        """`ConfigError` when the topic does not exist."""
        found = await described(self._administrator(), self._topic, self._place)
        if found is None:
            raise ConfigError(f"{self._place}: there is no such topic")
        return LogIdentity(str(found.topic_id), len(found.partitions))

    async def append(
        self, partition: int, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> int:
        size = len(key or b"") + len(value or b"") + sum(len(n) + len(v) for n, v in headers)
        if size > self._record_bytes_max:
            raise TooLarge(
                f"a log record of {size} bytes is over the limit of {self._record_bytes_max}"
            )
        return await self._producer.append(partition, key, value, headers)

    async def read(
        self,
        partition: int,
        start: int,
        *,
        max_records: int = 500,
        max_bytes: int = 8 << 20,
        wait_s: float = 0.0,
    ) -> Sequence[LogRecord]:
        deadline = time.monotonic() + wait_s
        limits = (max_records, max_bytes)
        # What has come already needs no question.
        records = await self._read(partition, start, None, *limits, 0.0)
        if records:
            return records
        end = await self.end_offset(partition)
        if start > end:
            raise LogMismatch(
                f"{self._place}: offset {start} of partition {partition} is above its end {end}"
            )
        if start < end:
            records = await self._read(partition, start, end, *limits, READ_TIMEOUT_S)
        while not records and (left_s := deadline - time.monotonic()) > 0:
            records = await self._read(partition, start, None, *limits, min(left_s, READ_TURN_S))
        return records

    async def start_offset(self, partition: int) -> int:
        return await self._offset(partition, EARLIEST)

    async def end_offset(self, partition: int) -> int:
        """The last stable offset: what a reader of committed data can reach.

        Callers at the same time share a request, but never one that was sent before they asked.
        """
        if partition not in self._ends:
            self._ends[partition] = Coalesced(lambda: self._offset(partition, LATEST))
        return await self._ends[partition]()

    async def trim(self, partition: int, before: int) -> None:
        """At most up to the end."""
        before = min(before, await self.end_offset(partition))
        if before <= await self.start_offset(partition):
            return
        position = TopicPartition(self._topic, partition, before)
        futures = self._administrator().delete_records(
            [position], request_timeout=REQUEST_TIMEOUT_S
        )
        await answer(futures[position], self._place)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self._producer.close()
        readers = list(self._readers.values())
        self._readers.clear()
        for reader in readers:
            await asyncio.to_thread(reader.close)
        await asyncio.to_thread(self._threads.shutdown)
        self._admin = None

    def _administrator(self) -> AdminClient:
        if self._closed:
            raise Unavailable("the log is closed")
        if self._admin is None:
            self._admin = AdminClient(client_settings(self._bootstrap))
        return self._admin

    async def _offset(self, partition: int, which: OffsetSpec) -> int:
        """Asked again while leaders move: the admin client itself goes by what it last knew."""
        deadline = time.monotonic() + REQUEST_TIMEOUT_S
        while True:
            try:
                return await self._offset_as_known(partition, which)
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(LEADER_WAIT_S)
            await self._refresh_leaders()

    async def _offset_as_known(self, partition: int, which: OffsetSpec) -> int:
        position = TopicPartition(self._topic, partition)
        futures = self._administrator().list_offsets(
            {position: which},
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=REQUEST_TIMEOUT_S,
        )
        found = await answer(futures[position], self._place)
        offset = int(found.offset)
        if offset < 0:
            # Seen while a broker restarts: no error, and -1001 for "unknown".
            raise Unavailable(f"{self._place}: partition {partition} has no leader now")
        return offset

    async def _refresh_leaders(self) -> None:
        admin = self._administrator()
        with suppress(KafkaException):  # the next request tells
            await asyncio.to_thread(admin.list_topics, self._topic, timeout=REQUEST_TIMEOUT_S)

    async def _read(
        self,
        partition: int,
        start: int,
        end: int | None,
        max_records: int,
        max_bytes: int,
        wait_s: float,
    ) -> list[LogRecord]:
        loop = asyncio.get_running_loop()
        while True:
            reader = await self._reader(partition)
            records = await loop.run_in_executor(
                self._threads, reader.read, start, end, max_records, max_bytes, wait_s
            )
            if records is not None:
                return records
            # Closed meanwhile, in favour of other partitions.

    async def _reader(self, partition: int) -> PartitionReader:
        if self._closed:
            raise Unavailable("the log is closed")
        if partition not in self._readers:
            self._readers[partition] = PartitionReader(self._bootstrap, self._topic, partition)
        reader = self._readers[partition]
        self._readers.move_to_end(partition)
        if len(self._readers) > READERS_MAX:
            _, oldest = self._readers.popitem(last=False)
            await asyncio.to_thread(oldest.close)
        return reader
