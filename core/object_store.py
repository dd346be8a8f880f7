"""The port `ObjectStore`: eight verbs over immutable-by-habit objects named by keys.

Keys are `/`-separated, 1..1024 bytes of ASCII, without `.` or `..` parts, and have no folders
behind them. Yet no key may be the folder of another (`a` beside `a/b`): a store on a file system
refuses that with `InvalidRequest`. Every adapter gives: read-after-write, atomic puts (never a part
of an object to be seen), `put_if_absent` with exactly one winner under any race, listing in
lexicographic order of the whole key, deletion of what is missing succeeds.

Errors: `ObjectNotFound` from `get` and `get_range`; `Unavailable` when the store cannot be reached
or asks to slow down, after which a put may still have taken effect.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    key: str
    size: int
    modified_ms: int


class ObjectStore(ABC):
    """Safe for many concurrent callers on one event loop."""

    @abstractmethod
    async def get(self, key: str) -> bytes: ...

    @abstractmethod
    async def get_range(self, key: str, start: int, end: int) -> bytes:
        """Bytes [start, end), cut at the object's end; `InvalidRequest` if start is beyond it or
        end <= start.
        """

    @abstractmethod
    async def put(self, key: str, data: bytes) -> None:
        """Create or replace; durable when it returns."""

    @abstractmethod
    async def put_if_absent(self, key: str, data: bytes) -> bool:
        """True: created by this call. False: the key existed, nothing changed."""

    @abstractmethod
    def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Objects whose key starts with `prefix` (any string) and is > `start_after`."""

    @abstractmethod
    async def delete(self, key: str) -> None: ...

    @abstractmethod
    async def stat(self, key: str) -> ObjectInfo | None: ...

    @abstractmethod
    async def close(self) -> None: ...

    def local_path(self, key: str) -> Path | None:
        """The file behind a key where the store is a local folder: readers may map it without a
        copy.
        """
        return None
