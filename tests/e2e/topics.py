"""The Kafka topics of a deployment, seen by a plain client that is no part of FirnDB."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, TopicPartition

QUIET_LOOKS = 5
LOOK_S = 0.2
LOOKS_MAX = 300


@contextmanager
def reader(services: Mapping[str, str]) -> Iterator[Consumer]:
    """A consumer that joins no group."""
    consumer = Consumer(
        {
            "bootstrap.servers": services["FIRNDB_KAFKA"],
            "group.id": "nobody",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    try:
        yield consumer
    finally:
        consumer.close()


def topic(services: Mapping[str, str], name: str) -> str:
    return f"{services['FIRNDB_KAFKA_PREFIX']}.{name}"


def ends(consumer: Consumer, name: str) -> list[int]:
    """The next offset of each partition."""
    partitions = consumer.list_topics(name, timeout=30).topics[name].partitions
    return [
        consumer.get_watermark_offsets(TopicPartition(name, number), timeout=30)[1]
        for number in sorted(partitions)
    ]


def wait_until_quiet(services: Mapping[str, str]) -> None:
    """Until nothing was appended to the log for a second.

    What a killed gateway had sent is with the broker, which may write it a moment later.
    """
    name = topic(services, "wal")
    with reader(services) as consumer:
        seen: list[list[int]] = []
        for _ in range(LOOKS_MAX):
            seen.append(ends(consumer, name))
            if len(seen) >= QUIET_LOOKS and all(s == seen[-1] for s in seen[-QUIET_LOOKS:]):
                return
            time.sleep(LOOK_S)
    raise AssertionError(f"the log does not become quiet: {seen[-3:]}")


def read_all(services: Mapping[str, str], name: str) -> list[Message]:
    """Every record of the topic's one partition, as of now."""
    found: list[Message] = []
    with reader(services) as consumer:
        consumer.assign([TopicPartition(topic(services, name), 0, OFFSET_BEGINNING)])
        while True:
            message = consumer.poll(30)
            assert message is not None, "the broker does not answer"
            error = message.error()
            if error is None:
                found.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                return found
            else:
                raise AssertionError(str(error))
