"""Fair turns, counted: who goes before whom, whatever the machine does meanwhile."""

import asyncio
import random
from collections import Counter

import pytest

from api.limits import turns as turning
from api.limits.turns import RequestTurn, Turns
from core.errors import Overloaded
from core.turns import waiting
from infra.telemetry import Metrics
from tests.infra.held_clock import HeldClock


class Server:
    """Requests that work for as long as the test says. `order`: who got a turn, one by one."""

    def __init__(self, at_once: int) -> None:
        self.clock = HeldClock()
        self.turns = Turns(at_once, self.clock, Metrics())
        self.order: list[str] = []
        self.at_work: list[tuple[str, asyncio.Event]] = []
        self.most = 0
        self.asked: list[asyncio.Task[None]] = []

    async def ask(self, project: str, namespace: str = "ns") -> asyncio.Task[None]:
        task = asyncio.create_task(self._serve(project, namespace))
        self.asked.append(task)
        await settle()
        return task

    async def _serve(self, project: str, namespace: str) -> None:
        with self.turns.request():
            await self.turns.take(project, namespace)
            self.order.append(project if namespace == "ns" else f"{project}/{namespace}")
            done = asyncio.Event()
            self.at_work.append((self.order[-1], done))
            self.most = max(self.most, len(self.at_work))
            await done.wait()

    async def finish(self, after_s: float, at: int = 0) -> str:
        """The first of those at work ends after that time; who it was."""
        self.clock.now_s += after_s
        name, done = self.at_work.pop(at)
        done.set()
        await settle()
        return name

    async def finish_all(self) -> None:
        while self.at_work:
            await self.finish(0.001)
        await asyncio.gather(*self.asked)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_quiet_project_goes_before_all_of_a_flood() -> None:
    """The flood has 100 requests waiting; the quiet one meets at most those that work already."""
    server = Server(2)
    for _ in range(100):
        await server.ask("loud")
    overtaken = []
    for _ in range(10):
        await server.finish(0.02)
        before = len(server.order)
        await server.ask("quiet")
        while "quiet" not in [name for name, _ in server.at_work]:
            await server.finish(0.02)
        overtaken.append(len(server.order) - before - 1)
        names = [name for name, _ in server.at_work]
        await server.finish(0.003, names.index("quiet"))
    assert overtaken == [0] * 10, "no request of the flood began between its arrival and its turn"
    await server.finish_all()


async def test_two_floods_work_for_equal_times_not_for_equal_counts() -> None:
    server = Server(1)
    for _ in range(120):
        await server.ask("heavy")
        await server.ask("light")
    worked: Counter[str] = Counter()
    for _ in range(100):
        name = server.at_work[0][0]
        seconds = 0.03 if name == "heavy" else 0.01
        worked[name] += round(seconds * 1000)
        await server.finish(seconds)
    assert worked["heavy"] == pytest.approx(worked["light"], rel=0.1)
    await server.finish_all()


async def test_namespaces_of_a_project_take_turns_and_their_number_earns_it_nothing() -> None:
    server = Server(1)
    for n in range(50):
        await server.ask("many", f"tenant{n % 25}")
        await server.ask("one")
    for _ in range(40):
        await server.finish(0.01)
    began = Counter(name.split("/")[0] for name in server.order[:40])
    assert began["many"] == pytest.approx(20, abs=2)
    assert len({n for n in server.order[:40] if "/" in n}) >= 18, "each tenant once, then again"
    await server.finish_all()


async def test_alone_it_may_have_every_turn_beside_others_a_part() -> None:
    server = Server(4)
    for _ in range(10):
        await server.ask("a")
    assert len(server.at_work) == 4
    await server.ask("b")
    await server.finish(0.01)
    await server.finish(0.01)
    assert Counter(n for n, _ in server.at_work) == {"a": 2, "b": 1}, "one is kept for b"
    await server.finish(0.01, [n for n, _ in server.at_work].index("b"))
    for _ in range(15):  # b went away, and a has all of it again
        await server.finish(turning.PRESENT_S / 10)
        await server.ask("a")
    assert len(server.at_work) == 4
    await server.finish_all()


async def test_who_waits_for_the_disk_gives_up_its_turn() -> None:
    server = Server(1)
    written = asyncio.Event()

    async def write() -> None:
        with server.turns.request():
            await server.turns.take("a", "ns")
            with waiting():
                await written.wait()

    writing = asyncio.create_task(write())
    await settle()
    await server.ask("a")
    assert server.order == ["a"], "it does not wait until the other one is written"
    written.set()
    await writing
    await server.finish_all()


async def test_who_works_for_too_long_does_not_hold_up_everybody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turning, "STRETCH_S", 0.01)
    server = Server(1)
    await server.ask("a")
    await server.ask("b")
    assert server.order == ["a"]
    server.clock.now_s += 0.02
    async with asyncio.timeout(20):
        while server.order != ["a", "b"]:  # noqa: ASYNC110 - a timer of the loop rings
            await asyncio.sleep(0.005)
    await server.finish_all()


async def test_who_waits_for_too_long_is_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turning, "WAIT_S", 0.01)
    server = Server(1)
    await server.ask("a")
    late = await server.ask("b")
    with pytest.raises(Overloaded):
        await late
    server.asked.remove(late)
    await server.finish_all()
    await (await finished(server, "b"))


async def finished(server: Server, project: str) -> asyncio.Task[None]:
    task = await server.ask(project)
    await server.finish(0.001)
    return task


async def test_nothing_is_lost_when_requests_give_up_at_any_moment() -> None:
    """Random arrivals, ends and cancellations: every turn comes back."""
    server, choose = Server(2), random.Random(7)
    for _ in range(400):
        match choose.randrange(3):
            case 0:
                await server.ask(choose.choice("abc"), choose.choice("xyz"))
            case 1 if server.at_work:
                await server.finish(0.01 * choose.random())
            case _ if server.asked:
                task = server.asked[choose.randrange(len(server.asked))]
                task.cancel()
                if choose.random() < 0.5:
                    await settle()
    for task in server.asked:
        task.cancel()
    await asyncio.gather(*server.asked, return_exceptions=True)
    assert (server.turns._waiting, len(server.turns._working)) == (0, 0)
    server.asked, server.at_work = [], []
    server.clock.now_s += 2 * turning.PRESENT_S
    for _ in range(3):
        await server.ask("a")
    assert len(server.at_work) == 2
    await server.finish_all()


async def test_absent_tenants_are_forgotten() -> None:
    server = Server(2)
    for n in range(1000):
        await finished(server, f"p{n}")
        server.clock.now_s += 0.1
    assert len(server.turns._projects._present) < 20


async def test_without_a_request_around_it_nobody_waits() -> None:
    """Work of the process itself."""
    server = Server(1)
    for _ in range(5):
        await server.turns.take("a", "ns")
    assert isinstance(server.turns, Turns)
    assert RequestTurn(server.turns).began_s is None
