"""A log in memory whose appends can be held back and made to fail."""

import asyncio
from collections.abc import Sequence

from core.log import Headers, Log, LogIdentity, LogRecord


class MemoryLog(Log):
    """`gate` closed: appends wait. `failures`: errors for the next appends, None lets one pass."""

    def __init__(self, partitions: int = 4) -> None:
        self.records: list[LogRecord] = []
        self.failures: list[Exception | None] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.appending = 0
        self._partitions = partitions

    async def identity(self) -> LogIdentity:
        return LogIdentity("memory", self._partitions)

    async def append(
        self, partition: int, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> int:
        self.appending += 1
        try:
            await self.gate.wait()
        finally:
            self.appending -= 1
        error = self.failures.pop(0) if self.failures else None
        if error is not None:
            raise error
        offset = len(self.records)
        self.records.append(LogRecord(partition, offset, key, headers, value, 0))
        return offset

    async def read(
        self,
        partition: int,
        start: int,
        *,
        max_records: int = 500,
        max_bytes: int = 8 << 20,
        wait_s: float = 0.0,
    ) -> Sequence[LogRecord]:
        found = [r for r in self.records if r.partition == partition and r.offset >= start]
        return found[:max_records]

    async def start_offset(self, partition: int) -> int:
        return 0

    async def end_offset(self, partition: int) -> int:
        return len(self.records)

    async def trim(self, partition: int, before: int) -> None:
        raise NotImplementedError

    async def close(self) -> None: ...
