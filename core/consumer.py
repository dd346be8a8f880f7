"""The protocol between the drivers (Faust agent, asyncio loop) and the log's consumers."""

from collections.abc import Sequence
from typing import Protocol

from core.log import LogRecord


class LogConsumer(Protocol):
    """Fed by a driver. Calls for one partition never overlap; calls for several partitions may."""

    async def assign(self, partition: int) -> int:
        """Take the partition over; returns the next offset wanted. May do seconds of I/O."""

    async def apply(self, partition: int, records: Sequence[LogRecord]) -> None:
        """Records of the partition in offset order. Returns when accepted, so it is the
        back-pressure.

        Idempotent by offset: what is below `applied` is dropped.
        """

    async def revoke(self, partitions: Sequence[int], *, lost: bool) -> None:
        """Partitions that are no longer ours. After it returns nothing of them is written.

        `lost`: the group has already given them away, so there is no time for a last flush.
        """

    def applied(self, partition: int) -> int:
        """The next offset wanted: last accepted + 1."""

    def committable(self, partition: int) -> int:
        """The offset (exclusive) up to which the work is durable; a group's offset may follow."""
