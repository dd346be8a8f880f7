"""A store that fails where it is told to: for tests of the Nth failing request, and chaos runs."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from core.errors import Unavailable
from core.object_store import ObjectInfo, ObjectStore

T = TypeVar("T")

Verb = Literal["get", "get_range", "put", "put_if_absent", "list", "delete", "stat"]
WRITES: tuple[Verb, ...] = ("put", "put_if_absent", "delete")


@dataclass(frozen=True, slots=True)
class Fault:
    """Strikes the `nth` matching call after it was injected; with `for_good` also all later ones.

    `after`: the call takes effect and its answer is lost (a list breaks off behind its first
    entry). `hang`: it does not answer until the store is healed, and fails then. `error`: what is
    raised; one that nobody catches plays the death of the process at this call.
    """

    nth: int = 1
    verbs: tuple[Verb, ...] = ()  # of these; none given: of all
    prefix: str = ""
    for_good: bool = False
    after: bool = False
    hang: bool = False
    error: type[BaseException] = Unavailable

    def matches(self, verb: Verb, key: str) -> bool:
        return (not self.verbs or verb in self.verbs) and key.startswith(self.prefix)


class FaultyStore(ObjectStore):
    """Fails as a store does that is away, unless a fault says how."""

    def __init__(self, inner: ObjectStore) -> None:
        self._inner = inner
        self._faults: dict[Fault, int] = {}  # and how many calls matched it
        self._healed = asyncio.Event()
        self.struck = 0  # calls that failed here

    def inject(self, fault: Fault) -> None:
        """Counted from now on; several faults may wait at the same time."""
        self._faults[fault] = 0

    def heal(self) -> None:
        """No more faults. What hangs fails now."""
        self._faults.clear()
        self._healed.set()
        self._healed = asyncio.Event()

    async def get(self, key: str) -> bytes:
        return await self._call("get", key, lambda: self._inner.get(key))

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        return await self._call("get_range", key, lambda: self._inner.get_range(key, start, end))

    async def put(self, key: str, data: bytes) -> None:
        await self._call("put", key, lambda: self._inner.put(key, data))

    async def put_if_absent(self, key: str, data: bytes) -> bool:
        return await self._call("put_if_absent", key, lambda: self._inner.put_if_absent(key, data))

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        fault = self._next("list", prefix)
        if fault is not None and not fault.after:
            await self._strike(fault, "list", prefix)
        async for info in self._inner.list(prefix, start_after=start_after):
            yield info
            if fault is not None:
                break
        if fault is not None:
            await self._strike(fault, "list", prefix)

    async def delete(self, key: str) -> None:
        await self._call("delete", key, lambda: self._inner.delete(key))

    async def stat(self, key: str) -> ObjectInfo | None:
        return await self._call("stat", key, lambda: self._inner.stat(key))

    def local_path(self, key: str) -> Path | None:
        return self._inner.local_path(key)

    async def close(self) -> None:
        await self._inner.close()

    async def _call(self, verb: Verb, key: str, act: Callable[[], Awaitable[T]]) -> T:
        fault = self._next(verb, key)
        if fault is None:
            return await act()
        if fault.after:
            await act()
        await self._strike(fault, verb, key)
        raise AssertionError("a strike raises")

    def _next(self, verb: Verb, key: str) -> Fault | None:
        """The fault that this call meets, if any. Every fault that matches has counted it."""
        met = None
        for fault in list(self._faults):
            if not fault.matches(verb, key):
                continue
            self._faults[fault] += 1
            if self._faults[fault] >= fault.nth:
                met = fault
                if not fault.for_good:
                    del self._faults[fault]
        return met

    async def _strike(self, fault: Fault, verb: Verb, key: str) -> None:
        self.struck += 1
        if fault.hang:
            await self._healed.wait()
        raise fault.error(f"injected: {verb} {key} fails")
