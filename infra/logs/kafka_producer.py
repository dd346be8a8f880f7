"""Records to Kafka and their acknowledgements back to the event loop, thousands a second on one
thread.

librdkafka reports deliveries on the thread that polls it. Reports of one burst are handed to the
loop with one wake-up: a wake-up each costs more than the report itself.
"""

import asyncio
import logging
import threading
from collections import deque
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from core.errors import Overloaded, Unavailable
from core.log import Headers
from infra.logs.kafka_client import client_settings, told

logger = logging.getLogger(__name__)

QUEUE_RECORDS_MAX = 20_000
QUEUE_KBYTES_MAX = 64 << 10
BATCH_BYTES_MAX = 1 << 20
POLL_S = 0.5  # a stopping thread is noticed after at most this
RECORD_OVERHEAD_BYTES = 64 << 10  # headers and framing on top of key and value


class AckProducer:
    """Idempotent, acks=all. Connects when made; appends come from one event loop."""

    def __init__(
        self, bootstrap: str, topic: str, *, timeout_s: float, record_bytes_max: int
    ) -> None:
        self._topic = topic
        self._place = f"Kafka at {bootstrap}, topic {topic}"
        self._timeout_s = timeout_s
        self._settings: dict[str, Any] = {
            **client_settings(bootstrap),
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "compression.type": "zstd",
            # Vectors hardly compress; higher levels only cost time.
            "compression.level": 1,
            "delivery.timeout.ms": int(timeout_s * 1000),
            # The writer above has grouped already; this only catches what is sent in the same
            # moment.
            "linger.ms": 1,
            "batch.size": BATCH_BYTES_MAX,
            "message.max.bytes": record_bytes_max + RECORD_OVERHEAD_BYTES,
            "queue.buffering.max.messages": QUEUE_RECORDS_MAX,
            "queue.buffering.max.kbytes": QUEUE_KBYTES_MAX,
        }
        # Now, not at the first append: a record sent in the moment in which the producer is made
        # waits 500 ms for its id from the broker (librdkafka's timer); 100 ms later it takes 3 ms.
        self._session = _Session(self._settings, self._place)
        self._closed = False

    async def append(
        self, partition: int, key: bytes | None, value: bytes | None, headers: Headers
    ) -> int:
        """Offset of the record once it is acknowledged by all in-sync replicas."""
        if self._closed:
            raise Unavailable("the log is closed")
        if self._session.broken:
            # A fatal error (the broker forgot our sequence numbers) ends an idempotent producer.
            self._session.abandon()
            self._session = _Session(self._settings, self._place)
        return await self._session.send(self._topic, partition, key, value, headers)

    async def close(self) -> None:
        """Waits for what is under way, as long as its own deadline."""
        if self._closed:
            return
        self._closed = True
        await asyncio.to_thread(self._session.finish, self._timeout_s)


class _Session:
    """One librdkafka producer and the thread that polls it."""

    def __init__(self, settings: dict[str, Any], place: str) -> None:
        self.broken = False
        self._place = place
        self._producer = Producer(settings)
        self._reports: deque[tuple[asyncio.Future[int], KafkaError | None, int]] = deque()
        self._waking = False
        self._stopping = False
        self._thread = threading.Thread(target=self._poll, name="kafka-acks", daemon=True)
        self._thread.start()

    async def send(
        self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Headers
    ) -> int:
        acknowledged: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def report(error: KafkaError | None, message: Message) -> None:
            offset = message.offset()
            self._report(acknowledged, error, -1 if offset is None else offset)

        try:
            self._producer.produce(
                topic, value, key, partition, on_delivery=report, headers=list(headers) or None
            )
        except BufferError as error:
            raise Overloaded(f"{self._place}: too many records wait; write more slowly") from error
        except KafkaException as error:
            self._check_fatal(error.args[0])
            raise told(error.args[0], self._place) from error
        return await acknowledged

    def finish(self, timeout_s: float) -> None:
        """On a thread of the caller's."""
        self._producer.flush(timeout_s)
        self._stopping = True
        self._thread.join()

    def abandon(self) -> None:
        """What is under way fails now."""
        self._producer.purge()
        self._stopping = True

    def _poll(self) -> None:
        while not self._stopping:
            self._producer.poll(POLL_S)
        self._producer.poll(0)

    def _report(
        self, acknowledged: asyncio.Future[int], error: KafkaError | None, offset: int
    ) -> None:
        """On the polling thread (or the one that flushes)."""
        self._reports.append((acknowledged, error, offset))
        if not self._waking:
            self._waking = True
            acknowledged.get_loop().call_soon_threadsafe(self._resolve)

    def _resolve(self) -> None:
        # First, so that a report from here on wakes us again.
        self._waking = False
        while self._reports:
            acknowledged, error, offset = self._reports.popleft()
            if error is not None:
                self._check_fatal(error)
            if acknowledged.done():
                continue
            if error is None:
                acknowledged.set_result(offset)
            else:
                acknowledged.set_exception(told(error, self._place))

    def _check_fatal(self, error: KafkaError) -> None:
        if error.fatal() or error.code() == KafkaError._FATAL:
            logger.error("%s: a new producer begins after %s", self._place, error.str())
            self.broken = True
