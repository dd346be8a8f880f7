"""Counts what is asked of a store: requests and bytes, for metrics, benchmarks and tests."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from core.object_store import ObjectInfo, ObjectStore

# One LIST request of S3 returns at most this many keys.
KEYS_PER_LIST = 1000


@dataclass(slots=True)
class StoreCounts:
    """Since the store was opened. A list is a request per 1,000 keys, as S3 charges it."""

    gets: int = 0
    puts: int = 0
    lists: int = 0
    deletes: int = 0
    stats: int = 0
    read_bytes: int = 0
    written_bytes: int = 0

    @property
    def requests(self) -> int:
        return self.gets + self.puts + self.lists + self.deletes + self.stats


class CountingStore(ObjectStore):
    """Put innermost, below retries and caches, so that what is counted is what is really asked."""

    def __init__(self, inner: ObjectStore, kind_of: Callable[[str], str] | None = None) -> None:
        """`kind_of` a key: by what written bytes are counted apart, a few words."""
        self._inner = inner
        self._kind_of = kind_of or (lambda _: "object")
        self._counts = StoreCounts()
        self.written_by_kind: Counter[str] = Counter()

    def counts(self) -> StoreCounts:
        """A copy, so that a caller can subtract an earlier one."""
        return replace(self._counts)

    async def get(self, key: str) -> bytes:
        self._counts.gets += 1
        data = await self._inner.get(key)
        self._counts.read_bytes += len(data)
        return data

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        self._counts.gets += 1
        data = await self._inner.get_range(key, start, end)
        self._counts.read_bytes += len(data)
        return data

    async def put(self, key: str, data: bytes) -> None:
        self._wrote(key, data)
        await self._inner.put(key, data)

    async def put_if_absent(self, key: str, data: bytes) -> bool:
        self._wrote(key, data)
        return await self._inner.put_if_absent(key, data)

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        self._counts.lists += 1
        seen = 0
        async for info in self._inner.list(prefix, start_after=start_after):
            seen += 1
            if seen % KEYS_PER_LIST == 0:
                self._counts.lists += 1
            yield info

    async def delete(self, key: str) -> None:
        self._counts.deletes += 1
        await self._inner.delete(key)

    async def stat(self, key: str) -> ObjectInfo | None:
        self._counts.stats += 1
        return await self._inner.stat(key)

    def local_path(self, key: str) -> Path | None:
        return self._inner.local_path(key)

    async def close(self) -> None:
        await self._inner.close()

    def _wrote(self, key: str, data: bytes) -> None:
        self._counts.puts += 1
        self._counts.written_bytes += len(data)
        self.written_by_kind[self._kind_of(key)] += len(data)
