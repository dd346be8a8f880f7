"""Fair turns: few requests work at once, and who has worked least is next.

One process serves all tenants from one event loop and a few cores. Were everybody let in at once, a
flood of one tenant would stand between any two steps of another's request. So requests queue by
project and namespace; a project that works more than others waits longer (start-time fair queueing,
Goyal, Vin and Cheng 1996: every tenant has a clock of the work it got, the one furthest behind is
next, and a tenant that comes back starts at the present, without credit for its absence).

Python has one interpreter, so two who work at once slow each other. Who has worked more of late
steps aside, between two steps, for as long as one who has worked less is at work: max-min fair
shares, as long as steps are short. What is nobody's request, the consumers of the log for one,
steps aside as well, but never for more than two thirds of its time.
"""

import asyncio
import itertools
import math
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from core.clock import Clock
from core.errors import Overloaded
from core.turns import CURRENT
from infra.telemetry import Metrics

# A tenant counts as present so long after its last request: people and programs pause between two.
PRESENT_S = 1.0
# What works for longer than this at a stretch most likely waits for something that does not say so;
# it must not hold up everybody.
STRETCH_S = 0.5
# Clients give up after 20 s (gRPC) and 30 s (REST).
WAIT_S = 15.0
# Work counts for about so long. A tenant that had so many seconds more of it than another one steps
# aside for it: less is chance.
RECENT_S = 1.0
MORE_S = 0.1
# For so long at most, once; then it goes on beside the other.
ASIDE_S = 0.1
# So many threads at most: whom they wait for needs threads as well.
ASIDE_THREADS_MAX = 16
# Of what is nobody's request, and how long it then goes on without looking: it must not fall behind
# without end.
BACKGROUND_ASIDE_S = 0.02
BACKGROUND_GOES_ON_S = 0.01


class Turns:
    """`at_once`: requests that work at the same time. A project (and in it a namespace) may have
    all of them while it is alone, otherwise an equal part, at least one. For one event loop.
    """

    def __init__(self, at_once: int, clock: Clock, metrics: Metrics) -> None:
        self._at_once = at_once
        self._clock = clock
        self._projects = _Level(at_once)
        # Those that work now, the one that began first in front.
        self._working: OrderedDict[RequestTurn, None] = OrderedDict()
        self._waiting = 0
        # Who is called as soon as nobody at work goes before it.
        self._aside: list[tuple[RequestTurn | None, Callable[[], None]]] = []
        self._aside_threads = threading.BoundedSemaphore(ASIDE_THREADS_MAX)
        self._alarm: asyncio.TimerHandle | None = None
        self._loop_thread = 0
        self.background = Background(self, clock)
        metrics.gauge(
            "firndb_requests_waiting_for_a_turn", "Requests that others go before"
        ).set_function(lambda: self._waiting)

    async def take(self, project: str, namespace: str) -> None:
        """Wait for the turn of the request that this is part of. `Overloaded`."""
        turn = CURRENT.get()
        if isinstance(turn, RequestTurn):
            await turn.take(project, namespace)

    def comes(self, project: str, namespace: str) -> None:
        """Who asks is known; the request steps aside as that tenant's before it has a turn."""
        turn = CURRENT.get()
        if isinstance(turn, RequestTurn):
            turn.place = self._projects.enter((project, namespace), self._clock.monotonic())

    @contextmanager
    def request(self) -> "Iterator[RequestTurn]":
        """Around a whole request: the turn that is taken within ends with it."""
        self._loop_thread = threading.get_ident()
        turn = RequestTurn(self)
        before = CURRENT.set(turn)
        try:
            yield turn
        finally:
            turn.end()
            CURRENT.reset(before)

    async def admit(self, turn: "RequestTurn", project: str, namespace: str) -> None:
        """Returns when it is its turn, for `RequestTurn.take`. `Overloaded` after `WAIT_S`."""
        now = self._clock.monotonic()
        place = turn.place = self._projects.enter((project, namespace), now)
        room = self._waiting == 0 and self._has_room(now) and all(s.has_room for s in place)
        if self._goes_first(turn, now) or (room and not self.is_behind(turn)):
            self.start(turn)
            return
        turn.called = called = asyncio.get_running_loop().create_future()
        place[-1].queue.append(turn)
        self._waiting += 1
        for share in place:
            share.waiting += 1
        self._let_in()
        try:
            async with asyncio.timeout(WAIT_S):
                await called
        except TimeoutError:
            raise Overloaded("The server is busy with other requests; try again soon") from None
        finally:
            if turn.called is not None:  # it gave up
                place[-1].queue.remove(turn)
                self._uncount_waiting(turn)

    def _goes_first(self, turn: "RequestTurn", now: float) -> bool:
        """Whether all at work will step aside for it."""
        return bool(self._working) and all(
            _steps_aside(w.place, turn.place, now) for w in self._working
        )

    @property
    def on_loop(self) -> bool:
        """Whether the caller is in the event loop's thread, where nobody may wait."""
        return threading.get_ident() == self._loop_thread

    def start(self, turn: "RequestTurn") -> None:
        turn.began_s = self._clock.monotonic()
        self._working[turn] = None
        for share in turn.place:
            share.start()

    def stop(self, turn: "RequestTurn") -> None:
        """It ended, waits, or has worked for too long at a stretch."""
        if turn.began_s is None:
            return
        worked_s = self._clock.monotonic() - turn.began_s
        turn.began_s = None
        del self._working[turn]
        now = self._clock.monotonic()
        for share in turn.place:
            share.stop(worked_s, now)
        self._let_in()
        self._call_back()

    def is_behind(self, turn: "RequestTurn | None") -> bool:
        """Whether somebody is at work for whom this request steps aside; None: for whom all that is
        nobody's request does, which is every tenant but the one that has worked most of late. In
        any thread.
        """
        now = self._clock.monotonic()
        if turn is not None:
            return any(share.is_behind(now) for share in turn.place)
        return any(s.is_light(now) for w in list(self._working) for s in w.place)

    async def aside(self, turn: "RequestTurn | None", at_most_s: float) -> bool:
        """Wait until it is not behind any more; False if it still is after that time."""
        called = asyncio.Event()
        with self._stepped_aside(turn, called.set):
            try:
                async with asyncio.timeout(at_most_s):
                    await called.wait()
            except TimeoutError:
                return False
        return True

    def aside_in_thread(self, turn: "RequestTurn | None", at_most_s: float) -> bool:
        """As `aside`, and not for the event loop's thread."""
        if not self._aside_threads.acquire(blocking=False):
            return True
        called = threading.Event()
        try:
            with self._stepped_aside(turn, called.set):
                # it may have come to an end before it could have called
                return not self.is_behind(turn) or called.wait(at_most_s)
        finally:
            self._aside_threads.release()

    @contextmanager
    def _stepped_aside(
        self, turn: "RequestTurn | None", call: Callable[[], None]
    ) -> Iterator[None]:
        here = (turn, call)
        self._aside.append(here)
        try:
            yield
        finally:
            self._aside.remove(here)

    def _call_back(self) -> None:
        """Those who stepped aside and are not behind any more."""
        for turn, call in list(self._aside):
            if not self.is_behind(turn):
                call()

    def _uncount_waiting(self, turn: "RequestTurn") -> None:
        turn.called = None
        self._waiting -= 1
        for share in turn.place:
            share.waiting -= 1

    def _has_room(self, now: float) -> bool:
        while self._working:
            oldest = next(iter(self._working))
            if oldest.began_s is None or now - oldest.began_s < STRETCH_S:
                break
            worked_s, oldest.began_s = now - oldest.began_s, None
            del self._working[oldest]
            for share in oldest.place:
                share.stop(worked_s, now)
        return len(self._working) < self._at_once

    def _let_in(self) -> None:
        """Those whose turn it is."""
        while self._waiting and self._has_room(self._clock.monotonic()):
            queue = self._projects.next_queue(self._clock.monotonic())
            if queue is None:
                break
            turn = queue.popleft()
            called = turn.called
            self._uncount_waiting(turn)
            if called is not None and not called.done():  # else it gave up in this very moment
                self.start(turn)
                called.set_result(None)
        if self._waiting and self._alarm is None:
            self._alarm = asyncio.get_running_loop().call_later(STRETCH_S, self._ring)

    def _ring(self) -> None:
        """Nobody may have ended since: look for those who work for too long."""
        self._alarm = None
        self._let_in()


def _steps_aside(theirs: "tuple[_Share, ...]", mine: "tuple[_Share, ...]", now: float) -> bool:
    """Whether theirs steps aside for mine: by project, within one by namespace."""
    for a, b in zip(theirs, mine, strict=True):
        if a is not b:
            return a.outdone_by(b, now)
    return False


class RequestTurn:
    """The turn of one request; implements `core.turns.Turn`. At first it has none."""

    __slots__ = ("_admitted", "_names", "_pauses", "_turns", "began_s", "called", "place")
    of_request = True

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._admitted = False
        self._names = ("", "")
        self._pauses = 0
        self.place: tuple[_Share, ...] = ()
        self.began_s: float | None = None  # None: does not work now
        self.called: asyncio.Future[None] | None = None  # it waits in the queue of its place

    async def take(self, project: str, namespace: str) -> None:
        """Wait for a turn as that tenant; one that it has already as another ends first.
        `Overloaded`.
        """
        if self._admitted and self._names == (project, namespace):
            return
        self.end()
        self._names = project, namespace
        await self._turns.admit(self, project, namespace)
        self._admitted = True

    def pause(self) -> None:
        self._pauses += 1
        if self._pauses == 1:
            self._turns.stop(self)

    def resume(self) -> None:
        self._pauses -= 1
        if self._pauses == 0 and self._admitted:
            self._turns.start(self)

    async def step_aside(self) -> None:
        if not self._turns.is_behind(self):
            return
        self.pause()  # the turn is another's meanwhile
        try:
            await self._turns.aside(self, ASIDE_S)
        finally:
            self.resume()

    def step_aside_in_thread(self) -> None:
        if self._turns.is_behind(self) and not self._turns.on_loop:
            self._turns.aside_in_thread(self, ASIDE_S)

    def end(self) -> None:
        self._admitted = False
        self._turns.stop(self)


class Background:
    """What is nobody's request; implements `core.turns.Turn`. One for all tasks and threads."""

    of_request = False

    def __init__(self, turns: Turns, clock: Clock) -> None:
        self._turns = turns
        self._clock = clock
        self._goes_on_until_s = -math.inf

    def pause(self) -> None:
        pass

    def resume(self) -> None:
        pass

    async def step_aside(self) -> None:
        if self._steps_aside and not await self._turns.aside(None, BACKGROUND_ASIDE_S):
            self._go_on()

    def step_aside_in_thread(self) -> None:
        if self._turns.on_loop or not self._steps_aside:
            return
        if not self._turns.aside_in_thread(None, BACKGROUND_ASIDE_S):
            self._go_on()

    @property
    def _steps_aside(self) -> bool:
        return self._clock.monotonic() >= self._goes_on_until_s and self._turns.is_behind(None)

    def _go_on(self) -> None:
        self._goes_on_until_s = self._clock.monotonic() + BACKGROUND_GOES_ON_S


class _Level:
    """The tenants of one kind that are present: projects, or the namespaces of one of them."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        # By the time they were last seen. Absent ones are forgotten: who comes back starts anew.
        self._present: OrderedDict[str, _Share] = OrderedDict()
        self.working: dict[_Share, None] = {}
        # Whose work counts most by now; all of it fades alike, so only new work can change that.
        self.heaviest: _Share | None = None
        self.time = 0.0

    def enter(self, names: tuple[str, ...], now: float) -> "tuple[_Share, ...]":
        """A request of these comes: (project, namespace), or (namespace,)."""
        share = self._present.pop(names[0], None)
        if share is None:
            share = _Share(self, _Level(self._at_once) if len(names) > 1 else None)
        share.seen_s = now
        self._present[names[0]] = share
        for name, first in list(itertools.islice(self._present.items(), 2)):
            if now - first.seen_s > PRESENT_S:
                self._present.move_to_end(name)  # at work since then
                if first.idle:
                    del self._present[name]
        if share.inner is None:
            return (share,)
        return (share, *share.inner.enter(names[1:], now))

    @property
    def at_once(self) -> int:
        """What one tenant may have at once."""
        return max(1, self._at_once // len(self._present))

    def next_queue(self, now: float) -> "deque[RequestTurn] | None":
        """That of the tenant that worked least, of those who wait and may have another turn."""
        able = [s for s in self._present.values() if s.waiting and s.has_room]
        able = [s for s in able if not s.is_behind(now)]
        for share in sorted(able, key=lambda s: max(s.clock, self.time)):
            queue = share.queue if share.inner is None else share.inner.next_queue(now)
            if queue is not None:
                return queue
        return None


@dataclass(slots=True, eq=False)
class _Share:
    """One tenant. `clock`: seconds of work that it got, on a scale on which the absent move with
    the others.
    """

    level: _Level
    inner: _Level | None
    clock: float = 0.0
    working: int = 0
    waiting: int = 0
    seen_s: float = 0.0
    queue: "deque[RequestTurn]" = field(default_factory=deque)
    _used_s: float = 0.0
    _used_at_s: float = 0.0

    @property
    def idle(self) -> bool:
        return not self.working and not self.waiting

    @property
    def has_room(self) -> bool:
        return self.working < self.level.at_once

    def recent_s(self, now: float) -> float:
        """Seconds of work that count by now."""
        return self._used_s * math.exp((self._used_at_s - now) / RECENT_S)

    def is_behind(self, now: float) -> bool:
        """Whether one at work has worked less of late."""
        # a copy, made in one go: this may be a thread
        return any(self.outdone_by(one, now) for one in list(self.level.working) if one is not self)

    def outdone_by(self, other: "_Share", now: float) -> bool:
        """Whether that one has worked so much less that this one steps aside for it."""
        return other.recent_s(now) < self.recent_s(now) - MORE_S

    def is_light(self, now: float) -> bool:
        """Whether another tenant has worked more of late."""
        heaviest = self.level.heaviest
        return heaviest is not None and heaviest.outdone_by(self, now)

    def start(self) -> None:
        self.clock = self.level.time = max(self.clock, self.level.time)
        self.working += 1
        self.level.working[self] = None

    def stop(self, worked_s: float, now: float) -> None:
        self.clock += worked_s
        self.working -= 1
        if not self.working:
            del self.level.working[self]
        self._used_s, self._used_at_s = self.recent_s(now) + worked_s, now
        heaviest = self.level.heaviest
        if heaviest is None or heaviest.recent_s(now) < self.recent_s(now):
            self.level.heaviest = self
