"""Plain reads of one Kafka partition, for rebuilds, feeds and tests. The roles consume with Faust.

Blocking, for worker threads.
"""

import threading
import time
from collections.abc import Iterator
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from core.errors import Unavailable
from core.log import LogRecord
from infra.logs.kafka_client import OUT_OF_RANGE, REFUSED, client_settings, told

FETCH_BYTES = 8 << 20
PREFETCH_KBYTES = 16 << 10


class PartitionReader:
    def __init__(self, bootstrap: str, topic: str, partition: int) -> None:
        self._place = f"Kafka at {bootstrap}, topic {topic}"
        self._topic = topic
        self._partition = partition
        settings: dict[str, Any] = {
            **client_settings(bootstrap),
            "group.id": "firndb-reader",  # demanded, never used: nothing joins or commits
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "fetch.message.max.bytes": FETCH_BYTES,
            "queued.max.messages.kbytes": PREFETCH_KBYTES,
            "fetch.wait.max.ms": 100,
            "fetch.error.backoff.ms": 100,
        }
        self._consumer = Consumer(settings)
        self._lock = threading.Lock()
        self._closed = False
        self._next: int | None = None  # the start that continues where the last read ended
        self._kept: Message | None = None  # read ahead, but over the byte limit
        self._passed = 0  # every offset below was delivered or held nothing for us

    def read(
        self, start: int, end: int | None, max_records: int, max_bytes: int, wait_s: float
    ) -> list[LogRecord] | None:
        """Records from `start`. Waits for the first one up to `wait_s`. None: closed meanwhile.

        With `end` (the log's, known to be above `start`) only until all up to there is passed:
        nothing is returned if it held no records but transaction marks and aborted ones;
        `Unavailable` if even that is not known in time. `LogMismatch` where the log does not hold
        `start`.
        """
        with self._lock:
            if self._closed:
                return None
            if start != self._next:
                self._seek(start)
            self._next = None  # until we know: an error has it read again
            messages = self._take(end, max_records, max_bytes, wait_s)
            records = [_record(message) for message in messages]
            self._next = records[-1].offset + 1 if records else start
            return records

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._consumer.close()

    def _seek(self, start: int) -> None:
        self._kept = None
        self._passed = 0
        self._consumer.assign([TopicPartition(self._topic, self._partition, start)])

    def _take(
        self, end: int | None, max_records: int, max_bytes: int, wait_s: float
    ) -> Iterator[Message]:
        message: Message | None = self._first(end, wait_s)
        taken = 0
        while message is not None:
            max_bytes -= len(message)
            if taken and max_bytes < 0:
                self._kept = message
                return
            yield message
            taken += 1
            if taken == max_records:
                return
            message = self._consumer.poll(0)
            if message is not None and (error := message.error()) is not None:
                self._heed(error, message)
                return

    def _first(self, end: int | None, wait_s: float) -> Message | None:
        if self._kept is not None:
            message, self._kept = self._kept, None
            return message
        deadline = time.monotonic() + wait_s
        while end is None or self._passed < end:
            polled = self._consumer.poll(max(0.0, deadline - time.monotonic()))
            if polled is None:
                if end is not None:
                    raise Unavailable(f"{self._place}: nothing came in {wait_s:.0f} s")
                return None
            error = polled.error()
            if error is None:
                return polled
            self._heed(error, polled)
        return None

    def _heed(self, error: KafkaError, message: Message) -> None:
        """What a poll gives besides records; what passes by itself is waited out."""
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            self._passed = max(self._passed, message.offset() or 0)
        elif code in OUT_OF_RANGE or code in REFUSED or error.fatal():
            raise told(error, f"{self._place}, partition {self._partition}")


def _record(message: Message) -> LogRecord:
    offset, partition = message.offset(), message.partition()
    assert offset is not None
    assert partition is not None
    headers = message.headers() or []
    assert isinstance(headers, list)  # a dict can only be given, not got
    return LogRecord(
        partition,
        offset,
        _bytes(message.key()),
        tuple((name, _bytes(value) or b"") for name, value in headers),
        _bytes(message.value()),
        message.timestamp()[1],
    )


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
