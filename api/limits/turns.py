"""Fair turns: few requests work at once, and who has worked least is next.

One process serves all tenants from one event loop and a few cores. Were everybody let in at once, a
flood of one tenant would stand between any two steps of another's request. So requests queue by
project and namespace; a project that works more than others waits longer (start-time fair queueing,
Goyal, Vin and Cheng 1996: every tenant has a clock of the work it got, the one furthest behind is
next, and a tenant that comes back starts at the present, without credit for its absence).
"""

import asyncio
import itertools
from collections import OrderedDict, deque
from collections.abc import Iterator
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
        self._alarm: asyncio.TimerHandle | None = None
        metrics.gauge(
            "firndb_requests_waiting_for_a_turn", "Requests that others go before"
        ).set_function(lambda: self._waiting)

    async def take(self, project: str, namespace: str) -> None:
        """Wait for the turn of the request that this is part of. `Overloaded`."""
        turn = CURRENT.get()
        if isinstance(turn, RequestTurn):
            await turn.take(project, namespace)

    @contextmanager
    def request(self) -> "Iterator[RequestTurn]":
        """Around a whole request: the turn that is taken within ends with it."""
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
        if self._waiting == 0 and self._has_room(now) and all(s.has_room for s in place):
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
        for share in turn.place:
            share.stop(worked_s)
        self._let_in()

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
                share.stop(worked_s)
        return len(self._working) < self._at_once

    def _let_in(self) -> None:
        """Those whose turn it is."""
        while self._waiting and self._has_room(self._clock.monotonic()):
            queue = self._projects.next_queue()
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


class RequestTurn:
    """The turn of one request; implements `core.turns.Turn`. At first it has none."""

    __slots__ = ("_admitted", "_pauses", "_turns", "began_s", "called", "place")

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._admitted = False
        self._pauses = 0
        self.place: tuple[_Share, ...] = ()
        self.began_s: float | None = None  # None: does not work now
        self.called: asyncio.Future[None] | None = None  # it waits in the queue of its place

    async def take(self, project: str, namespace: str) -> None:
        """Wait for a turn as that tenant; one that it has already ends first. `Overloaded`."""
        self.end()
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

    def end(self) -> None:
        self._admitted = False
        self._turns.stop(self)


class _Level:
    """The tenants of one kind that are present: projects, or the namespaces of one of them."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        # By the time they were last seen. Absent ones are forgotten: who comes back starts anew.
        self._present: OrderedDict[str, _Share] = OrderedDict()
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

    def next_queue(self) -> "deque[RequestTurn] | None":
        """That of the tenant that worked least, of those who wait and may have another turn."""
        able = [s for s in self._present.values() if s.waiting and s.has_room]
        for share in sorted(able, key=lambda s: max(s.clock, self.time)):
            queue = share.queue if share.inner is None else share.inner.next_queue()
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

    @property
    def idle(self) -> bool:
        return not self.working and not self.waiting

    @property
    def has_room(self) -> bool:
        return self.working < self.level.at_once

    def start(self) -> None:
        self.clock = self.level.time = max(self.clock, self.level.time)
        self.working += 1

    def stop(self, worked_s: float) -> None:
        self.clock += worked_s
        self.working -= 1
