"""A bounded cache before the catalog that goes on for a while when the database is away."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from core.clock import Clock
from core.errors import Unavailable

V = TypeVar("V")

# With an old answer at hand, a silent database (its own timeouts are 5 to 10 s) holds nobody up
# longer than this.
PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """`fresh_s`: an answer is not asked for again. `absent_s`: the same for "there is none".

    `stale_s`: how old an answer may become while the database is away.
    """

    fresh_s: float
    absent_s: float
    stale_s: float


@dataclass(frozen=True, slots=True)
class _Answer(Generic[V]):
    value: V | None
    read_at: float
    ask_again_at: float


class ReadThrough(Generic[V]):
    """`read(key)` returns None for what does not exist, and raises `Unavailable`."""

    def __init__(
        self,
        read: Callable[[str], Awaitable[V | None]],
        lifetimes: Lifetimes,
        kept_max: int,
        clock: Clock,
    ) -> None:
        self._read = read
        self._lifetimes = lifetimes
        self._kept_max = kept_max
        self._clock = clock
        self._answers: dict[str, _Answer[V]] = {}
        self._asking: dict[str, asyncio.Task[V | None]] = {}
        self._told = 0

    async def get(self, key: str) -> V | None:
        """`Unavailable` when the database is away and no answer is young enough."""
        known = self._answers.get(key)
        if known is not None and self._clock.monotonic() < known.ask_again_at:
            return known.value
        task = self._ask(key)
        if known is None or not self._may_serve(known):
            return await asyncio.shield(task)
        await asyncio.wait({task}, timeout=PATIENCE_S)
        if task.done() and task.exception() is None:
            return task.result()
        if task.done() and not isinstance(task.exception(), Unavailable):
            return await task
        later = self._clock.monotonic() + self._lifetimes.fresh_s
        self._answers[key] = _Answer(known.value, known.read_at, later)
        return known.value

    def put(self, key: str, value: V | None) -> None:
        """What the caller knows to be true now; it outdoes reads that are under way."""
        self._told += 1
        self._keep(key, value)

    def clear(self) -> None:
        """Forget everything: the next question of each key reaches the database."""
        self._told += 1
        self._answers.clear()

    def _keep(self, key: str, value: V | None) -> None:
        now = self._clock.monotonic()
        fresh_s = self._lifetimes.absent_s if value is None else self._lifetimes.fresh_s
        self._answers.pop(key, None)
        if len(self._answers) >= self._kept_max:
            del self._answers[next(iter(self._answers))]
        self._answers[key] = _Answer(value, now, now + fresh_s)

    def _may_serve(self, known: _Answer[V]) -> bool:
        age = self._clock.monotonic() - known.read_at
        return known.value is not None and age <= self._lifetimes.stale_s

    def _ask(self, key: str) -> asyncio.Task[V | None]:
        """One question at a time per key, shared by all who wait; nobody's giving up ends it."""
        task = self._asking.get(key)
        if task is None:
            task = asyncio.create_task(self._ask_and_keep(key))
            self._asking[key] = task
            task.add_done_callback(lambda done: self._asked(key, done))
        return task

    def _asked(self, key: str, task: asyncio.Task[V | None]) -> None:
        del self._asking[key]
        if not task.cancelled():
            task.exception()  # seen by those who wait; asyncio warns of one that nobody looked at

    async def _ask_and_keep(self, key: str) -> V | None:
        while True:
            told = self._told
            value = await self._read(key)
            if told == self._told:  # else the value may be from before a put or a clear
                self._keep(key, value)
                return value
