"""What every client of the brokers shares: its settings, its log lines, and its errors in our
words.
"""

import asyncio
import logging
from concurrent.futures import Future
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException

from core.errors import ConfigError, FirnError, InvalidRequest, LogMismatch, TooLarge, Unavailable

T = TypeVar("T")

logger = logging.getLogger("infra.logs.kafka.client")

REFUSED = frozenset(
    (
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError._AUTHENTICATION,
        KafkaError._SSL,
        KafkaError._RESOLVE,
        KafkaError._INVALID_ARG,
    )
)
TOO_LARGE = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE)
OUT_OF_RANGE = (KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET)
NO_PARTITION = (KafkaError._UNKNOWN_PARTITION,)


def client_settings(bootstrap: str) -> dict[str, Any]:
    return {
        "bootstrap.servers": bootstrap,
        "client.id": "firndb",
        # librdkafka's 10 s between two tries would outlast many a broker's restart.
        "reconnect.backoff.max.ms": 1000,
        "socket.keepalive.enable": True,
        "logger": logger,
        # Connections that come and go are told by the calls that fail, not by a line each.
        "log_level": 2,
        "error_cb": _note,
    }


def _note(error: KafkaError) -> None:
    logger.debug("Kafka: %s", error)


def told(error: KafkaError, place: str) -> FirnError:
    """`place`: "Kafka at host:port, topic name"."""
    code = error.code()
    if code in TOO_LARGE:
        return TooLarge(f"{place}: a record is over the topic's max.message.bytes")
    if code in OUT_OF_RANGE or code in NO_PARTITION:
        return LogMismatch(f"{place}: {error.str()}")
    if code == KafkaError.INVALID_RECORD:
        return InvalidRequest(f"{place}: {error.str()}; a compacted topic wants a key")
    if code in REFUSED:
        return ConfigError(f"{place}: {error.str()}")
    return Unavailable(f"{place}: {error.str()}")


async def answer(future: "Future[T]", place: str) -> T:
    """Of the admin client, which would stumble on its future being cancelled."""
    try:
        return await asyncio.shield(asyncio.wrap_future(future))
    except KafkaException as error:
        raise told(error.args[0], place) from error
