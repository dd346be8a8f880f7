"""`ManifestFeed` over a log of one partition: in Kafka the compacted topic `firn.manifests`.

The key of a record is what it is news of, so that compaction keeps the newest of each.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

import msgspec

from core.feed import CheckpointEvent, FeedEvent, ManifestEvent
from core.log import Log, LogRecord
from infra.feed.tail import PARTITION, Tail

log = logging.getLogger(__name__)

MANIFEST_KEY = "manifest"
CHECKPOINT_KEY = "checkpoint"


class LogFeed:
    """`start` before anything is heard; the log belongs to the feed, `close` closes it."""

    def __init__(self, topic: Log) -> None:
        self._topic = topic
        self._listeners: dict[object, Callable[[FeedEvent], None]] = {}
        self._tail = Tail(topic, self._hear)

    async def start(self) -> None:
        """Hear everything that is published from now on."""
        await self._tail.start_at_end()

    async def publish(self, event: FeedEvent) -> None:
        """Returns when the log has it; `Unavailable` if not, and then it may still be told."""
        await self._topic.append(PARTITION, _key(event), msgspec.json.encode(event))

    def subscribe(self, listener: Callable[[FeedEvent], None]) -> Callable[[], None]:
        token = object()
        self._listeners[token] = listener

        def unsubscribe() -> None:
            self._listeners.pop(token, None)

        return unsubscribe

    async def close(self) -> None:
        await self._tail.close()
        self._listeners.clear()
        await self._topic.close()

    def _hear(self, records: Sequence[LogRecord]) -> None:
        loop = asyncio.get_running_loop()
        for record in records:
            event = _decode(record)
            if event is not None:
                for listener in self._listeners.values():
                    # In a turn of its own: a listener that fails does not end the news.
                    loop.call_soon(listener, event)


def _key(event: FeedEvent) -> bytes:
    if isinstance(event, ManifestEvent):
        return f"{MANIFEST_KEY}/{event.index_id}/{event.namespace}".encode()
    return f"{CHECKPOINT_KEY}/{event.partition}".encode()


def _decode(record: LogRecord) -> FeedEvent | None:
    """None for what is no news of ours: the topic is open to others."""
    kind = (record.key or b"").split(b"/", 1)[0].decode(errors="replace")
    known: type[FeedEvent]
    if kind == MANIFEST_KEY:
        known = ManifestEvent
    elif kind == CHECKPOINT_KEY:
        known = CheckpointEvent
    else:
        return None
    try:
        return msgspec.json.decode(record.value or b"", type=known)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        log.warning("news at offset %d cannot be read: %s", record.offset, error)
        return None
