"""Who steps aside for whom between two steps, counted: the clock stands, threads are real."""

import asyncio
import threading

import pytest

from api.limits import turns as turning
from api.limits.turns import RequestTurn, Turns
from core.turns import step_aside, step_aside_in_thread, waiting, working_as
from infra.telemetry import Metrics
from tests.infra.held_clock import HeldClock


class Server:
    """Requests in steps. `steps`: whose step began, one by one."""

    def __init__(self, at_once: int = 2) -> None:
        self.clock = HeldClock()
        self.turns = Turns(at_once, self.clock, Metrics())
        self.steps: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def work(self, project: str, seconds: float, namespace: str = "ns") -> None:
        """A request from its beginning to its end."""
        with self.turns.request():
            await self.turns.take(project, namespace)
            self.clock.now_s += seconds

    async def begin(
        self, project: str, namespace: str = "ns", *, thread: bool = False
    ) -> asyncio.Event:
        """A request that works until the event is set, then offers to step aside, then goes on."""
        goes_on = asyncio.Event()

        async def request() -> None:
            with self.turns.request():
                await self.turns.take(project, namespace)
                self.steps.append(f"{project} begins")
                await goes_on.wait()
                if thread:
                    await asyncio.to_thread(step_aside_in_thread)
                else:
                    await step_aside()
                self.steps.append(f"{project} goes on")

        self.tasks.append(asyncio.create_task(request()))
        await settle()
        return goes_on

    async def done(self) -> list[str]:
        async with asyncio.timeout(60):
            await asyncio.gather(*self.tasks)
        return self.steps


async def settle() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody goes on because a slow machine took its time."""
    monkeypatch.setattr(turning, "ASIDE_S", 60.0)
    monkeypatch.setattr(turning, "BACKGROUND_ASIDE_S", 60.0)


@pytest.mark.parametrize("thread", [False, True])
async def test_who_worked_more_lets_the_other_end_first(thread: bool) -> None:
    server = Server()
    await server.work("quiet", 0.01)
    await server.work("loud", 0.3)
    loud = await server.begin("loud", thread=thread)
    quiet = await server.begin("quiet")
    loud.set()
    async with asyncio.timeout(60):
        while not server.turns._aside:  # noqa: ASYNC110 - it comes from a thread
            await asyncio.sleep(0.001)
    quiet.set()
    assert await server.done() == ["loud begins", "quiet begins", "quiet goes on", "loud goes on"]
    assert not server.turns._aside


async def test_by_namespace_within_a_project_and_by_project_between_two() -> None:
    server = Server(3)
    await server.work("one", 0.3, "busy")
    await server.work("one", 0.01, "calm")
    await server.work("other", 0.1)
    with server.turns.request() as busy:
        await busy.take("one", "busy")
        with server.turns.request() as calm:
            await calm.take("one", "calm")
            assert server.turns.is_behind(busy)
            assert not server.turns.is_behind(calm)
            with server.turns.request() as other:
                await other.take("other", "ns")
                assert server.turns.is_behind(calm), "its project has worked more"
                assert not server.turns.is_behind(other)


async def test_those_who_worked_alike_go_on_side_by_side() -> None:
    server = Server()
    await server.work("a", 0.3)
    await server.work("b", 0.3 - turning.MORE_S / 2)
    a = await server.begin("a")
    b = await server.begin("b")
    a.set()
    await settle()
    b.set()
    assert await server.done() == ["a begins", "b begins", "a goes on", "b goes on"]


async def test_work_is_forgotten() -> None:
    server = Server()
    await server.work("loud", 0.3)
    with server.turns.request() as loud, server.turns.request() as quiet:
        await loud.take("loud", "ns")
        await quiet.take("quiet", "ns")
        assert server.turns.is_behind(loud)
        server.clock.now_s += 2 * turning.RECENT_S
        assert not server.turns.is_behind(loud)


async def test_no_flood_can_take_every_turn_before_one_who_goes_first() -> None:
    """A crowd that comes back from the log has more turns than there are."""
    server = Server(2)
    await server.work("loud", 0.3)
    written = asyncio.Event()

    async def write() -> None:
        with server.turns.request():
            await server.turns.take("loud", "ns")
            with waiting():
                await written.wait()
            server.steps.append("back")
            await asyncio.sleep(3600)

    crowd = [asyncio.create_task(write()) for _ in range(5)]
    await settle()
    written.set()
    await settle()
    assert (server.steps, len(server.turns._working)) == (["back"] * 5, 5)
    (await server.begin("quiet")).set()
    assert (await server.done())[5:] == ["quiet begins", "quiet goes on"]
    for one in crowd:
        one.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)


async def test_a_light_request_that_waits_lets_the_heavy_go_on() -> None:
    server = Server()
    await server.work("loud", 0.3)
    loud = await server.begin("loud")
    with server.turns.request() as quiet:
        await quiet.take("quiet", "ns")
        loud.set()
        await settle()
        assert server.steps == ["loud begins"]
        with waiting():
            await settle()
            assert server.steps == ["loud begins", "loud goes on"]
    await server.done()


async def test_while_its_body_comes_in_it_steps_aside_as_its_tenant() -> None:
    server = Server()
    await server.work("loud", 0.3)
    parts: list[int] = []

    async def send() -> None:
        with server.turns.request():
            server.turns.comes("loud", "ns")
            for number in range(3):
                parts.append(number)
                await step_aside()

    with server.turns.request() as quiet:
        await quiet.take("quiet", "ns")
        sending = asyncio.create_task(send())
        await settle()
        assert parts == [0]
    await sending
    assert parts == [0, 1, 2]


async def test_nobody_waits_in_the_loops_thread() -> None:
    server = Server()
    await server.work("loud", 0.3)
    with server.turns.request() as quiet, server.turns.request() as loud:
        await loud.take("loud", "ns")
        await quiet.take("quiet", "ns")
        assert server.turns.is_behind(loud)
        step_aside_in_thread()  # else it would stand still for a minute


async def test_of_the_threads_some_are_always_left() -> None:
    """They wait for one who needs a thread as well."""
    server = Server()
    await server.work("loud", 0.3)
    went_on: list[int] = []

    def aside(turn: RequestTurn, number: int) -> None:
        with working_as(turn):
            step_aside_in_thread()
        went_on.append(number)

    with server.turns.request() as loud:
        await loud.take("loud", "ns")
        with server.turns.request() as quiet:
            await quiet.take("quiet", "ns")
            threads = [
                threading.Thread(target=aside, args=(loud, n))
                for n in range(turning.ASIDE_THREADS_MAX)
            ]
            for thread in threads:
                thread.start()
            async with asyncio.timeout(60):
                while len(server.turns._aside) < len(threads):  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
            await asyncio.to_thread(aside, loud, 99)
            assert went_on == [99]
    for thread in threads:
        await asyncio.to_thread(thread.join, 60)
    assert len(went_on) == len(threads) + 1


async def test_threads_step_aside_however_many_bodies_wait_to_come_in() -> None:
    server = Server()
    await server.work("loud", 0.3)

    async def send() -> None:
        with server.turns.request():
            server.turns.comes("loud", "ns")
            await step_aside()

    loud = await server.begin("loud", thread=True)
    with server.turns.request() as quiet:
        await quiet.take("quiet", "ns")
        senders = [asyncio.create_task(send()) for _ in range(2 * turning.ASIDE_THREADS_MAX)]
        await settle()
        loud.set()
        async with asyncio.timeout(60):
            while len(server.turns._aside) <= len(senders):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        assert server.steps == ["loud begins"]
    await asyncio.gather(*senders)
    assert await server.done() == ["loud begins", "loud goes on"]


async def test_what_is_nobodys_request_steps_aside_for_all_but_the_busiest() -> None:
    server = Server()
    await server.work("loud", 0.3)
    background = server.turns.background
    with server.turns.request() as loud:
        await loud.take("loud", "ns")
        await background.step_aside()  # at once
        with server.turns.request() as quiet:
            await quiet.take("quiet", "ns")
            waits = asyncio.create_task(background.step_aside())
            await settle()
            assert not waits.done()
        await waits


async def test_alone_nobody_is_stepped_aside_for() -> None:
    server = Server()
    await server.work("a", 0.3)
    with server.turns.request() as turn:
        await turn.take("a", "ns")
        await server.turns.background.step_aside()
        assert not server.turns.is_behind(turn)


@pytest.mark.parametrize("thread", [False, True])
async def test_what_is_nobodys_request_goes_on_in_the_end(
    monkeypatch: pytest.MonkeyPatch, thread: bool
) -> None:
    """It has a third of the time at least, whoever is at work."""
    monkeypatch.setattr(turning, "BACKGROUND_ASIDE_S", 0.01)
    server = Server()
    await server.work("loud", 0.3)

    async def step() -> None:
        with working_as(server.turns.background):
            await (asyncio.to_thread(step_aside_in_thread) if thread else step_aside())

    with server.turns.request() as quiet:
        await quiet.take("quiet", "ns")
        await step()  # waits for as long as it may
        monkeypatch.setattr(turning, "BACKGROUND_ASIDE_S", 60.0)
        await step()  # at once
        server.clock.now_s += 2 * turning.BACKGROUND_GOES_ON_S
        waits = asyncio.create_task(step())
        async with asyncio.timeout(60):
            while not server.turns._aside:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        assert not waits.done()
    await waits
