"""Topics are made here, never by a producer's accident: their settings are part of our promise."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    NewTopic,
    TopicDescription,
)

from core.errors import ConfigError, Unavailable
from infra.logs.kafka_client import client_settings, told

BROKER_DEFAULT = -1
SETTLE_S = 0.1
REQUEST_TIMEOUT_S = 5.0

# The log is the truth that everything else can be rebuilt from: no age or size limit deletes of it.
KEEP_ALL = {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"}
KEEP_NEWEST_OF_KEY = {"cleanup.policy": "compact"}


@dataclass(frozen=True, slots=True)
class TopicSpec:
    name: str
    partitions: int
    settings: Mapping[str, str] = field(default_factory=lambda: KEEP_ALL)
    replication: int = BROKER_DEFAULT


async def create_topics(
    bootstrap: str, specs: Sequence[TopicSpec], *, timeout_s: float = 20.0
) -> None:
    """Returns when every partition has a leader. What exists stays as it is, its settings included.

    `ConfigError` when one exists with another number of partitions; `Unavailable` when no broker
    answers in time.
    """
    admin = AdminClient(client_settings(bootstrap))
    place = f"Kafka at {bootstrap}"
    missing = [
        NewTopic(spec.name, spec.partitions, spec.replication, config=dict(spec.settings))
        for spec in specs
    ]
    made = admin.create_topics(missing, request_timeout=timeout_s, operation_timeout=timeout_s)
    for future in made.values():
        try:
            await asyncio.shield(asyncio.wrap_future(future))
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise told(error.args[0], place) from error
    deadline = time.monotonic() + timeout_s
    for spec in specs:
        found = await described(admin, spec.name, place)
        while found is None or any(p.leader is None or p.leader.id < 0 for p in found.partitions):
            if time.monotonic() > deadline:
                raise Unavailable(f"{place}: topic {spec.name} has no leaders yet")
            await asyncio.sleep(SETTLE_S)
            found = await described(admin, spec.name, place)
        if len(found.partitions) != spec.partitions:
            raise ConfigError(
                f"{place}: topic {spec.name} has {len(found.partitions)} partitions, not"
                f" {spec.partitions}; the number cannot change"
            )


async def described(admin: AdminClient, topic: str, place: str) -> TopicDescription | None:
    """None when there is no such topic."""
    futures = admin.describe_topics(TopicCollection([topic]), request_timeout=REQUEST_TIMEOUT_S)
    try:
        return await asyncio.shield(asyncio.wrap_future(futures[topic]))
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return None
        raise told(error.args[0], place) from error
