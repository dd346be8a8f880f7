"""A bounded cache before the catalog that goes on for a while when the database is away."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from core.clock import Clock
from core.errors import Unavailable

V = TypeVar("V")
W = TypeVar("W")

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
    value: V
    read_at: float
    ask_again_at: float


class ReadThrough(Generic[V]):
    """`read(key)` returns None for what does not exist, and raises `Unavailable`.

    Keeps `kept_max` answers, and apart from them as many absences: who asks for ever new things
    that do not exist pushes out nothing that does.
    """

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
        # Until when each absence is believed.
        self._absent: dict[str, float] = {}
        self._asking: dict[str, asyncio.Task[V | None]] = {}
        self._told = 0

    async def get(self, key: str) -> V | None:
        """`Unavailable` when the database is away and no answer is young enough."""
        known = self._answers.get(key)
        now = self._clock.monotonic()
        if known is not None and now < known.ask_again_at:
            return known.value
        if known is None and now < self._absent.get(key, now):
            return None
        task = self._ask(key)
        if known is None or not self._may_serve(known):
            return await asyncio.shield(task)
        await asyncio.wait({task}, timeout=PATIENCE_S)
        if task.done() and task.exception() is None:
            return task.result()
        if task.done() and not isinstance(task.exception(), Unavailable):
            return await task
        if self._answers.get(key) is known:  # else somebody has told better meanwhile
            later = self._clock.monotonic() + self._lifetimes.fresh_s
            self._answers[key] = _Answer(known.value, known.read_at, later)
        return known.value

    def put(self, key: str, value: V | None) -> None:
        """What the caller knows to be true now; it outdoes reads that are under way."""
        self._told += 1
        self._keep(key, value)

    def forget(self, which: Callable[[V], bool]) -> None:
        """Answers of which `which` holds, and all absences: the next question of each reaches the
        database.
        """
        self._told += 1
        self._absent.clear()
        for key in [key for key, answer in self._answers.items() if which(answer.value)]:
            del self._answers[key]

    def __contains__(self, key: str) -> bool:
        """Is there an answer, fresh or not."""
        return key in self._answers

    def _keep(self, key: str, value: V | None) -> None:
        now = self._clock.monotonic()
        self._answers.pop(key, None)
        self._absent.pop(key, None)
        if value is None:
            _make_room(self._absent, self._kept_max)
            self._absent[key] = now + self._lifetimes.absent_s
        else:
            _make_room(self._answers, self._kept_max)
            self._answers[key] = _Answer(value, now, now + self._lifetimes.fresh_s)

    def _may_serve(self, known: _Answer[V]) -> bool:
        return self._clock.monotonic() - known.read_at <= self._lifetimes.stale_s

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


def _make_room(kept: dict[str, W], most: int) -> None:
    """The one that was kept longest goes."""
    if len(kept) >= most:
        del kept[next(iter(kept))]
