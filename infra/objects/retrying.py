"""Tries again what a store could not do for now: back-off, jitter, one deadline for all tries."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from core.clock import Clock, SystemClock
from core.errors import DeadlineExceeded, Unavailable
from core.object_store import ObjectInfo, ObjectStore
from core.turns import waiting

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """Waits double from `first_s` to `longest_s`, each cut by a random factor in [0.5, 1] so that
    many callers do not come back together. No try begins after `deadline_s`, none runs past it.
    """

    first_s: float = 0.05
    longest_s: float = 2.0
    deadline_s: float = 20.0


class RetryingStore(ObjectStore):
    """Only `Unavailable` is tried again. A `put_if_absent` whose first try took effect unseen
    answers False on the second: whoever must know compares what is there with what it put.
    """

    def __init__(
        self,
        inner: ObjectStore,
        settings: RetrySettings | None = None,
        clock: Clock | None = None,
        source: random.Random | None = None,
    ) -> None:
        self._inner = inner
        self._settings = settings or RetrySettings()
        self._clock = clock or SystemClock()
        self._random = source or random.Random()
        self.retries = 0

    async def get(self, key: str) -> bytes:
        return await self._tried(lambda: self._inner.get(key), f"get {key}")

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        return await self._tried(lambda: self._inner.get_range(key, start, end), f"get {key}")

    async def put(self, key: str, data: bytes) -> None:
        await self._tried(lambda: self._inner.put(key, data), f"put {key}")

    async def put_if_absent(self, key: str, data: bytes) -> bool:
        return await self._tried(lambda: self._inner.put_if_absent(key, data), f"put {key}")

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        """Goes on behind the last key that was seen, so a failure in the middle repeats nothing."""
        last, what = start_after, f"list {prefix}"
        tries = _Tries(self, what)
        while True:
            entries = aiter(self._inner.list(prefix, start_after=last))
            try:
                while True:
                    async with asyncio.timeout(tries.left_s):
                        info = await anext(entries, None)
                    if info is None:
                        return
                    last = info.key
                    yield info
                    tries = _Tries(self, what)  # progress: the deadline is for each next entry
            except Unavailable as error:
                await tries.wait_after(error)
            except TimeoutError as error:
                raise self._too_late(what) from error

    async def delete(self, key: str) -> None:
        await self._tried(lambda: self._inner.delete(key), f"delete {key}")

    async def stat(self, key: str) -> ObjectInfo | None:
        return await self._tried(lambda: self._inner.stat(key), f"stat {key}")

    def local_path(self, key: str) -> Path | None:
        return self._inner.local_path(key)

    async def close(self) -> None:
        await self._inner.close()

    async def _tried(self, act: Callable[[], Awaitable[T]], what: str) -> T:
        tries = _Tries(self, what)
        while True:
            try:
                with waiting():
                    async with asyncio.timeout(tries.left_s):
                        return await act()
            except Unavailable as error:
                await tries.wait_after(error)
            except TimeoutError as error:
                raise self._too_late(what) from error

    def _too_late(self, what: str) -> DeadlineExceeded:
        return DeadlineExceeded(f"the object store did not {what} in {self._settings.deadline_s} s")


class _Tries:
    """The tries of one operation: how much time is left, how long to wait before the next."""

    def __init__(self, store: RetryingStore, what: str) -> None:
        self._store = store
        self._what = what
        self._wait_s = store._settings.first_s
        self._end = store._clock.monotonic() + store._settings.deadline_s

    @property
    def left_s(self) -> float:
        return max(0.0, self._end - self._store._clock.monotonic())

    async def wait_after(self, error: Unavailable) -> None:
        """Wait before another try; raises `error` where there is no time for one."""
        store, settings = self._store, self._store._settings
        wait_s = max(self._wait_s * store._random.uniform(0.5, 1.0), 0.0)
        self._wait_s = min(2 * self._wait_s, settings.longest_s)
        if wait_s >= self.left_s:
            raise error
        store.retries += 1
        log.info("object store: %s again in %.2f s: %s", self._what, wait_s, error)
        await store._clock.sleep(wait_s)
