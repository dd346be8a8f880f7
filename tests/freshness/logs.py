"""A log in memory with offsets per partition, and a clock that a test moves."""

import asyncio
from collections.abc import Sequence

from core.log import Headers, Log, LogIdentity, LogRecord


class PartitionedLog(Log):
    """`first`: offset of the first record, as if what was before had been trimmed. `markers`: how
    many offsets at the end no reader is ever given, as after a transaction.
    """

    def __init__(self, partitions: int = 1, first: int = 0) -> None:
        self.log_id = "log"
        self.first = first
        self.markers = 0
        self.ends_asked = 0
        self._records: dict[int, list[LogRecord]] = {p: [] for p in range(partitions)}

    async def identity(self) -> LogIdentity:
        return LogIdentity(self.log_id, len(self._records))

    async def append(
        self, partition: int, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> int:
        records = self._records[partition]
        offset = self.first + len(records)
        records.append(LogRecord(partition, offset, key, headers, value, 0))
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
        return self._records[partition][start - self.first :][:max_records]

    async def start_offset(self, partition: int) -> int:
        return self.first

    async def end_offset(self, partition: int) -> int:
        self.ends_asked += 1
        await asyncio.sleep(0)
        return self.first + len(self._records[partition]) + self.markers

    async def trim(self, partition: int, before: int) -> None:
        raise NotImplementedError

    async def close(self) -> None: ...


class TestClock:
    """Time stands still until a test moves it; sleeping only gives others a turn."""

    __test__ = False

    def __init__(self) -> None:
        self.now_s = 1000.0

    def now_ms(self) -> int:
        return int(self.now_s * 1000)

    def monotonic(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        await asyncio.Event().wait()
