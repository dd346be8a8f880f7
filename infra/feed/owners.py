"""`OwnerBoard` over a log of one partition: in Kafka the compacted topic `firn.owners`.

The key is the partition, the value the worker's URL; an empty value is a withdrawal. A process
reads the topic from its beginning, then follows it.
"""

import re
from collections.abc import Sequence

from core.log import Log, LogRecord
from infra.feed.tail import PARTITION, Tail

PARTITION_KEY = re.compile(rb"\d{1,9}")


class LogOwners:
    """`start` before `owner_of` knows anybody; the log belongs to the board, `close` closes it."""

    def __init__(self, topic: Log) -> None:
        self._topic = topic
        self._owners: dict[int, str] = {}
        self._tail = Tail(topic, self._hear)

    async def start(self) -> None:
        """Returns when everything announced so far is known."""
        await self._tail.start_at_beginning()

    async def announce(self, partition: int, url: str) -> None:
        await self._topic.append(PARTITION, str(partition).encode(), url.encode())

    async def withdraw(self, partition: int, url: str) -> None:
        if self._owners.get(partition) == url:
            await self._topic.append(PARTITION, str(partition).encode(), b"")

    def owner_of(self, partition: int) -> str | None:
        return self._owners.get(partition)

    async def close(self) -> None:
        await self._tail.close()
        await self._topic.close()

    def _hear(self, records: Sequence[LogRecord]) -> None:
        for record in records:
            if record.key is None or not PARTITION_KEY.fullmatch(record.key):
                continue  # not one of ours
            if record.value:
                self._owners[int(record.key)] = record.value.decode(errors="replace")
            else:
                self._owners.pop(int(record.key), None)
