"""A namespace that waits for a person holds back nobody's checkpoint, and loses nothing by it."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from builder import catch_up
from builder.builder import IndexBuilder
from builder.policy import FlushLimits
from core.errors import CorruptData, LogMismatch
from core.log import LogRecord
from core.operations import DeleteIds
from infra.objects.local import LocalStore
from storage.layout import namespace_prefix
from tests.builder.test_background import until
from tests.builder.world import ListLog, World, upsert

STUCK = namespace_prefix("dense", "stuck")


class DecayingStore(LocalStore):
    """While `damaged`, no manifest of the stuck namespace can be written."""

    damaged = False

    async def put_if_absent(self, key: str, data: bytes) -> bool:
        if self.damaged and key.startswith(STUCK):
            raise CorruptData(f"{key} as the test wants it")
        return await super().put_if_absent(key, data)


class TrimmedLog(ListLog):
    kept_from = 0

    async def read(
        self,
        partition: int,
        start: int,
        *,
        max_records: int = 500,
        max_bytes: int = 8 << 20,
        wait_s: float = 0.0,
    ) -> Sequence[LogRecord]:
        if start < self.kept_from:
            raise LogMismatch(f"the log is kept from {self.kept_from} on")
        return await super().read(partition, start, max_records=max_records)


async def running(world: World) -> IndexBuilder:
    world.settings = replace(
        world.settings,
        flush=FlushLimits(age_s=0.01),
        registry_s=0.01,
        paused_retry_s=0.02,
    )
    builder = world.builder()
    await builder.assign(0)
    await builder.start()
    return builder


async def passed(world: World, builder: IndexBuilder) -> None:
    """The checkpoint is at the log's end."""

    async def holds() -> bool:
        return builder.committable(0) == await world.log.end_offset(0)

    await until(holds, "the checkpoint passes what is stuck")


async def released(builder: IndexBuilder) -> None:
    async def holds() -> bool:
        return not builder._owned[0].held and not builder._owned[0].waiting

    await until(holds, "the namespace follows")


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("first", ["before", "never"])
async def test_a_stuck_namespace_is_read_again_from_the_log(
    tmp_path: Path, restarted: bool, first: str
) -> None:
    """Its entries come in order behind those that it has, those while it catches up included, also
    under another owner, and where it had no manifest yet.
    """
    store = DecayingStore(tmp_path / "objects")
    world = World(tmp_path, store=store)
    builder = await running(world)
    if first == "before":
        await world.write(upsert("a", "b", "c"), ns="stuck")
        await world.feed_all(builder)
        await builder.flush()
    store.damaged = True
    stuck_at = await world.write(upsert("a", seed=2.0), ns="stuck")
    await world.write(upsert("x"), ns="good")
    await world.feed_all(builder)
    for number in range(10):
        await world.write(upsert("b", f"r{number}", seed=float(number)), ns="stuck")
        await world.write(upsert(f"r{number}"), ns="good")
    await world.feed_all(builder)
    await passed(world, builder)
    _, held = await world.registry.newest_with_holds(0)
    assert held == {("dense", "stuck"): stuck_at}
    await world.check_namespace(ns="good")
    if restarted:
        await builder.stop()
        builder = await running(world)
    await world.write(DeleteIds(("a", "r3")), ns="stuck")
    await world.feed_all(builder)
    store.damaged = False
    await world.write(upsert("late"), ns="stuck")
    await world.feed_all(builder)
    await released(builder)
    await builder.flush()
    _, held = await world.registry.newest_with_holds(0)
    assert held == {}
    await world.check()
    await builder.stop()
    await world.close()


@pytest.mark.parametrize("seed", range(3))
async def test_whenever_it_is_stuck_and_whoever_owns_it(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random writes, damage that comes and goes, new owners; small looks at the log."""
    monkeypatch.setattr(catch_up, "LOOK_RECORDS", 5)
    dice = random.Random(seed)
    store = DecayingStore(tmp_path / "objects")
    world = World(tmp_path, store=store)
    builder = await running(world)
    for step in range(25):
        for _ in range(dice.randrange(4)):
            ids = [f"r{dice.randrange(8)}" for _ in range(3)]
            write = DeleteIds((ids[0],)) if dice.random() < 0.3 else upsert(*set(ids), seed=step)
            await world.write(write, ns=dice.choice(["stuck", "good"]))
        await world.feed_all(builder)
        if dice.random() < 0.3:
            store.damaged = not store.damaged
        if dice.random() < 0.3:
            await passed(world, builder)
        if dice.random() < 0.2:
            await builder.revoke([0], lost=dice.random() < 0.5)
            await builder.stop()
            builder = await running(world)
    store.damaged = False
    await world.feed_all(builder)
    await released(builder)
    await builder.flush()
    await world.check()
    await builder.stop()
    await world.close()


async def test_entries_that_the_log_lost_are_named(tmp_path: Path) -> None:
    """A retention that did not ask: the namespace stays as it is, the others go on."""
    store = DecayingStore(tmp_path / "objects")
    world = World(tmp_path, store=store)
    log = world.log = TrimmedLog(world.log.gap)
    builder = await running(world)
    store.damaged = True
    await world.write(upsert("a"), ns="stuck")
    await world.write(upsert("x"), ns="good")
    await world.feed_all(builder)
    await passed(world, builder)
    log.kept_from = builder.committable(0)

    async def told() -> bool:
        (namespace,) = (
            n for n in builder.status().partitions[0].namespaces if n.namespace == "stuck"
        )
        return "nor in the log any more" in namespace.paused

    await until(told, "what is lost is said")
    store.damaged = False
    await world.write(upsert("y"), ns="good")
    await world.feed_all(builder)
    await passed(world, builder)
    await world.check_namespace(ns="good")
    await builder.stop()
    await world.close()
