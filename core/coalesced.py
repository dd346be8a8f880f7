"""Many who ask the same at the same time: few requests, and answers of after the question."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Coalesced(Generic[K, V]):
    """One request in flight per key. Callers who arrive while one is under way share the one that
    follows it: an answer that was on its way already may miss what they know to have happened.
    """

    def __init__(self, ask: Callable[[K], Awaitable[V]]) -> None:
        self._ask_one = ask
        self._running: dict[K, asyncio.Task[V]] = {}
        self._following: dict[K, asyncio.Task[V]] = {}

    async def ask(self, key: K) -> V:
        """As of some moment during this call; raises what the request raises."""
        following = self._following.get(key)
        if following is not None:
            return await asyncio.shield(following)
        running = self._running.get(key)
        if running is None:
            task = self._running[key] = asyncio.create_task(self._ask(key))
            task.add_done_callback(_seen)
            return await asyncio.shield(task)
        task = self._following[key] = asyncio.create_task(self._ask_after(running, key))
        task.add_done_callback(_seen)
        return await asyncio.shield(task)

    async def _ask(self, key: K) -> V:
        try:
            return await self._ask_one(key)
        finally:
            self._running.pop(key, None)

    async def _ask_after(self, running: asyncio.Task[V], key: K) -> V:
        await asyncio.wait((running,))
        # from here on it is the running one; who arrives now waits for another
        self._running[key] = self._following.pop(key)
        return await self._ask(key)


def _seen(task: asyncio.Task[V]) -> None:
    """Takes the error of a task that nobody waits for any more."""
    if not task.cancelled():
        task.exception()
