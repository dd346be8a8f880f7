"""An object store in memory that counts, lies and fails on demand: a remote store's worst days."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

from core.errors import ObjectNotFound, Unavailable
from core.object_store import ObjectInfo, ObjectStore


class MemoryStore(ObjectStore):
    """`objects` may be changed by a test at will. Every verb gives other tasks a turn first.

    now_ms: the store's time, which a test moves; what is put gets it.

    damaged_reads: key -> how many of the next gets return wrong bytes. failing: verb -> how many of
    the next calls raise `Unavailable` and do nothing. lost_answers: verb -> how many of the next
    calls take effect and raise `Unavailable` all the same.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.modified_ms: dict[str, int] = {}
        self.now_ms = 0
        self.calls: Counter[str] = Counter()
        self.damaged_reads: Counter[str] = Counter()
        self.failing: Counter[str] = Counter()
        self.lost_answers: Counter[str] = Counter()

    async def get(self, key: str) -> bytes:
        await self._begin("get")
        if key not in self.objects:
            raise ObjectNotFound(f"there is no object {key}")
        data = self.objects[key]
        if self.damaged_reads[key]:
            self.damaged_reads[key] -= 1
            return data[:-1] + bytes([data[-1] ^ 1])
        return data

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        return (await self.get(key))[start:end]

    async def put(self, key: str, data: bytes) -> None:
        await self._begin("put")
        self.objects[key] = data
        self.modified_ms[key] = self.now_ms
        self._end("put")

    async def put_if_absent(self, key: str, data: bytes) -> bool:
        await self._begin("put_if_absent")
        created = key not in self.objects
        if created:
            self.objects[key] = data
            self.modified_ms[key] = self.now_ms
        self._end("put_if_absent")
        return created

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        await self._begin("list")
        for key in sorted(self.objects):
            if key.startswith(prefix) and key > start_after:
                yield self._info(key)

    async def delete(self, key: str) -> None:
        await self._begin("delete")
        self.objects.pop(key, None)

    async def stat(self, key: str) -> ObjectInfo | None:
        await self._begin("stat")
        return self._info(key) if key in self.objects else None

    async def close(self) -> None:
        """Nothing to do."""

    def _info(self, key: str) -> ObjectInfo:
        return ObjectInfo(key, len(self.objects[key]), self.modified_ms.get(key, 0))

    async def _begin(self, verb: str) -> None:
        await asyncio.sleep(0)
        self.calls[verb] += 1
        if self.failing[verb]:
            self.failing[verb] -= 1
            raise Unavailable(f"{verb} fails as the test asked")

    def _end(self, verb: str) -> None:
        if self.lost_answers[verb]:
            self.lost_answers[verb] -= 1
            raise Unavailable(f"the answer of {verb} was lost as the test asked")
