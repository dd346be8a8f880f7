"""The port `Log`: one topic of the write-ahead log, split into partitions.

Offsets are the LSNs. A *next offset* (`start`, `end`, a reading position) is exclusive of what it
has passed; an *LSN* names one record and is inclusive. `NO_LSN` (-1) means "nothing yet", so
`next = lsn + 1` always holds. Offsets grow but may have gaps (transactions, compaction): nobody
computes with their density.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

NO_LSN = -1

Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record as a reader gets it; `value is None` is Kafka's null value."""

    partition: int
    offset: int
    key: bytes | None
    headers: Headers
    value: bytes | None
    timestamp_ms: int

    def header(self, name: str) -> bytes | None:
        """The last header of that name, or None."""
        return next((v for k, v in reversed(self.headers) if k == name), None)


@dataclass(frozen=True, slots=True)
class LogIdentity:
    """What makes LSNs comparable: Kafka's topic id, a uuid in SQLite; and the partition count."""

    log_id: str
    partitions: int


class Log(ABC):
    """One topic. Safe for many concurrent callers on one event loop.

    Errors: `Unavailable` when the log cannot be reached in time (an append may then still take
    effect); `TooLarge` when one record is over the log's record limit.
    """

    @abstractmethod
    async def identity(self) -> LogIdentity: ...

    @abstractmethod
    async def append(
        self, partition: int, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> int:
        """Append one record; returns its LSN once durable. Concurrent appends share a commit."""

    @abstractmethod
    async def read(
        self,
        partition: int,
        start: int,
        *,
        max_records: int = 500,
        max_bytes: int = 8 << 20,
        wait_s: float = 0.0,
    ) -> Sequence[LogRecord]:
        """Records with offset >= start, in order; at least one if any is there, whatever its size.

        Waits up to `wait_s` for the first one, then returns an empty sequence. `LogMismatch` when
        `start` lies below the log's start or above its end.
        """

    @abstractmethod
    async def start_offset(self, partition: int) -> int:
        """The lowest offset that is kept."""

    @abstractmethod
    async def end_offset(self, partition: int) -> int:
        """The next offset to be written (committed data only); asked afresh at every call."""

    def end_of_key(self, partition: int, key: bytes) -> int | None:
        """An offset above every durable record of that key, and mostly not above newer ones of
        other keys; None: not known, as others append as well.
        """
        return None

    @abstractmethod
    async def trim(self, partition: int, before: int) -> None:
        """Forget records with offset < before."""

    @abstractmethod
    async def close(self) -> None: ...
