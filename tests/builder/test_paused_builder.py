"""A builder that sleeps at one of its calls to the store, while another takes over and works on.

At stake: it wakes up hours later and goes on as if nothing had been. Its put may name a file that
is collected, or take the number of a manifest that is long gone.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from typing import TypeVar

import pytest

from builder.builder import IndexBuilder
from builder.chain import Target
from builder.compaction.compact import commit_rewrite, execute
from builder.policy import MergeDeltas
from core.errors import FirnError
from core.object_store import ObjectInfo, ObjectStore
from core.operations import DeleteIds, DeleteNamespace
from infra.objects.faulty import WRITES, FaultyStore, Verb
from storage.layout import kind_of
from tests.builder.nth_failure import beside
from tests.builder.test_compact import SCHEMA
from tests.builder.world import SMALL, World, upsert
from tests.builder.yard import Yard

NS = ("n", "m")
T = TypeVar("T")


class PausingStore(FaultyStore):
    """Its `nth` call waits, before it takes effect, until `resume` is set."""

    def __init__(self, inner: ObjectStore, nth: int) -> None:
        super().__init__(inner)
        self.nth = nth
        self.calls: list[tuple[Verb, str]] = []
        self.paused = asyncio.Event()
        self.resume = asyncio.Event()

    async def _arrive(self) -> None:
        if len(self.calls) == self.nth:
            self.paused.set()
            await self.resume.wait()

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        self.calls.append(("list", prefix))
        await self._arrive()
        async for info in self._inner.list(prefix, start_after=start_after):
            yield info

    async def _call(self, verb: Verb, key: str, act: Callable[[], Awaitable[T]]) -> T:
        self.calls.append((verb, key))
        await self._arrive()
        return await act()


async def script(yard: Yard, world: World, builder: IndexBuilder) -> None:
    """Everything that a builder does, garbage collection as well; the time passes in between."""
    for number in range(4):
        names = tuple(f"r{n}" for n in range(number * 10, number * 10 + 25))
        await world.write(upsert(*names, seed=float(number)), DeleteIds(names[:4]))
        await world.write(upsert("a", "b", seed=float(number)), ns="m")
        if number == 2:
            await world.write(DeleteNamespace(), ns="m")
        await world.feed_all(builder)
        await builder.flush()
        await builder.compact()
        yard.pass_time(2000)
        await builder.collect()


async def history(folder: Path, nth: int) -> PausingStore:
    """The sleeper begins; whoever takes over does all kinds of work and collects to rest."""
    yard = Yard(folder)
    asleep = PausingStore(yard.store, nth)
    its = beside(yard.world, folder / "sleeper", asleep)
    sleeper = its.builder()

    in_assignment = True

    async def work() -> None:
        nonlocal in_assignment
        await sleeper.assign(0)
        in_assignment = False
        await script(yard, its, sleeper)

    running = asyncio.create_task(work())
    pausing = asyncio.create_task(asleep.paused.wait())
    await asyncio.wait((running, pausing), return_when=asyncio.FIRST_COMPLETED)
    pausing.cancel()
    if not running.done():
        await yard.begin()
        await script(yard, yard.world, yard.builder)
        await yard.to_rest()
        await yard.world.check()
        takes_over = in_assignment
        asleep.resume.set()
        with suppress(FirnError):  # it is fenced, or what it wants is gone
            await running
        if takes_over:
            await yard.begin()  # it woke up as a new owner
        await yard.flush()
        await yard.world.check()
        await script(yard, yard.world, yard.builder)
    else:
        running.result()
        asleep.nth = 0  # it made fewer calls this time
        yard.builder = sleeper
        yard.world.log = its.log
    await yard.flush()
    await yard.builder.compact()
    yard.world = beside(yard.world, folder / "looking", yard.store)
    await yard.world.check()
    await yard.begin()
    for index, ns in yard.world.truth:
        owned = yard.builder._owned[0]
        yard.builder._collector._schedule(owned).due.offer((index, ns), 0.0)
    await yard.to_rest()
    for ns in NS:
        await yard.nothing_needless(ns)
    await yard.world.close()
    return asleep


def sampled(calls: list[tuple[Verb, str]]) -> list[int]:
    """The first call of each verb on each kind of object, and the later half's first write."""
    first: dict[tuple[Verb, str, bool], int] = {}
    for nth, (verb, key) in enumerate(calls, 1):
        late = nth > len(calls) / 2 and verb in WRITES
        first.setdefault((verb, kind_of(key), late), nth)
    return sorted(first.values())


async def test_it_wakes_up_at_some_calls(tmp_path: Path) -> None:
    calls = (await history(tmp_path / "all", 0)).calls
    for nth in sampled(calls):
        await one(tmp_path, nth, calls)


@pytest.mark.long
async def test_it_wakes_up_at_each_call(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    calls = (await history(tmp_path / "all", 0)).calls
    for nth in range(1, len(calls) + 1):
        await one(tmp_path, nth, calls)
    record_property("calls at which it slept", len(calls))


async def one(folder: Path, nth: int, calls: list[tuple[Verb, str]]) -> None:
    try:
        await history(folder / str(nth), nth)
    except BaseException as error:
        error.add_note(f"asleep at call {nth}, {calls[nth - 1]}")
        raise
    rmtree(folder / str(nth))


async def test_quick_flushes_do_not_starve_a_long_compaction(tmp_path: Path) -> None:
    """It began on a manifest of long ago and commits beside the flushes, not between them."""
    yard = await Yard(tmp_path).begin()
    world = yard.world
    await world.write(upsert(*(f"r{n}" for n in range(30))))
    await yard.flush()
    manifest = await yard.newest()
    shop = world.parts().workshop(world.settings)
    job = MergeDeltas(tuple(file.uuid for file in manifest.files))
    rewrite = await execute(shop, SCHEMA, manifest, job, SMALL)
    flushes = 0
    many = asyncio.Event()

    async def flush() -> None:
        nonlocal flushes
        while True:
            await world.write(upsert(f"r{flushes % 40}", seed=2.0 + flushes))
            await yard.flush()
            flushes += 1
            if flushes == 20:
                many.set()
            await asyncio.sleep(0.001)

    flushing = asyncio.create_task(flush())
    await many.wait()
    target = Target(SCHEMA, manifest.owner_epoch)
    committed = await commit_rewrite(shop, target, manifest, rewrite)
    flushing.cancel()
    await asyncio.gather(flushing, return_exceptions=True)
    assert committed is not None
    assert rewrite.outputs[0].uuid in {file.uuid for file in (await yard.newest()).files}
    await yard.flush()
    await world.check()
    await world.close()
