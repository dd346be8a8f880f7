"""Who may write: one owner a partition, fenced by epochs; and what is left when ownership ends."""

import asyncio
from pathlib import Path

import pytest

from builder.builder import IndexBuilder
from builder.policy import FlushLimits
from builder.settings import BuilderSettings
from core.errors import FailedPrecondition, Fenced, LogMismatch
from core.operations import DeleteIds
from tests.builder.world import World, upsert


async def owner(world: World) -> IndexBuilder:
    builder = world.builder()
    await builder.assign(0)
    return builder


async def test_a_zombie_stops_at_its_first_commit_over_the_owners(world: World) -> None:
    """The old owner did not hear that the partition moved: its writes must not count."""
    zombie = await owner(world)
    await world.write(upsert("a"))
    await world.feed_all(zombie)
    await zombie.flush()
    new = await owner(world)
    await world.write(upsert("b"), DeleteIds(("a",)))
    await world.feed_all(new)
    await new.flush()
    before = await world.manifest()
    await world.feed_all(zombie)
    with pytest.raises(Fenced):
        await zombie.flush()
    assert isinstance(zombie.failure(0), Fenced)
    await world.write(upsert("c"))
    with pytest.raises(Fenced):
        await world.feed_all(zombie)
    assert await world.manifest() == before
    await world.feed_all(new)
    await new.flush()
    await world.check()


async def test_what_a_zombie_wrote_before_the_owner_came_by_is_followed(world: World) -> None:
    """Both read the same log, so a late commit of the old owner is right; it is not done twice."""
    zombie = await owner(world)
    await world.write(upsert("a", "b"))
    await world.feed_all(zombie)
    new = await owner(world)
    await world.feed_all(new)
    with pytest.raises(Fenced, match="partition 0"):
        await zombie.flush()  # the manifest is committed, the registry is not
    await world.write(DeleteIds(("a",)))
    await world.feed_all(new)
    await new.flush()
    await world.check()
    manifest = await world.manifest()
    assert manifest is not None
    assert (manifest.version, manifest.owner_epoch) == (2, 2)


async def test_a_log_that_lost_its_tail_is_refused_at_the_assignment(world: World) -> None:
    """A new write would get the LSN of one that is indexed, and would be passed over."""
    builder = await owner(world)
    for number in range(3):
        await world.write(upsert(f"r{number}"))
    await world.feed_all(builder)
    await builder.flush()
    await builder.stop()
    del world.log.records[1:]
    with pytest.raises(LogMismatch, match="lost records"):
        await owner(world)


async def test_a_log_that_lost_its_tail_is_refused_by_the_manifests_as_well(world: World) -> None:
    """The registry lags: a crash before the checkpoint leaves only the manifests to know."""
    builder = await owner(world)
    for number in range(3):
        await world.write(upsert(f"r{number}"))
    await world.feed_all(builder)
    await builder._drain(builder._owned[0])  # the flushes, without the checkpoint
    await builder.revoke([0], lost=True)
    del world.log.records[1:]
    new = await owner(world)
    await world.log.append(0, *_written(world))
    await world.feed_all(new)
    with pytest.raises(LogMismatch, match="lost records"):
        await new.flush()
    await world.log.append(0, *_written(world))
    with pytest.raises(LogMismatch):
        await world.feed_all(new)


def _written(world: World) -> tuple[bytes | None, bytes | None]:
    """Key and value of a record that the log still has, to be written once more."""
    record = world.log.records[0]
    return record.key, record.value


async def test_another_log_is_refused(world: World) -> None:
    """A recreated topic would give the same LSNs to other entries."""
    await owner(world)
    with pytest.raises(LogMismatch, match="log-2"):
        await world.builder(log_id="log-2").assign(0)
    with pytest.raises(LogMismatch, match="epoch 2"):
        await world.builder(log_epoch=2).assign(0)


async def test_an_orderly_revocation_leaves_nothing_behind(world: World) -> None:
    builder = await owner(world)
    lsn = await world.write(upsert("a"))
    await world.feed_all(builder)
    await builder.revoke([0], lost=False)
    await world.check()
    assert await world.builder().assign(0) == lsn + 1


async def test_a_lost_partition_is_dropped_at_once(world: World) -> None:
    """Nothing is written; the next owner replays from the old checkpoint."""
    builder = await owner(world)
    await world.write(upsert("a"))
    await world.feed_all(builder)
    await builder.revoke([0], lost=True)
    assert await world.manifest() is None
    with pytest.raises(FailedPrecondition):
        builder.applied(0)
    following = world.builder()
    assert await following.assign(0) == 0
    await world.feed_all(following)
    await following.flush()
    await world.check()


async def test_after_a_loss_nothing_is_written_even_by_flushes_in_flight(world: World) -> None:
    """Revoked in the middle of background flushes, at different moments."""
    for number in range(10):
        builder = await owner(world)
        await builder.start()
        for ns in range(8):
            await world.write(upsert(f"r{number}"), ns=f"n{ns}")
        await world.feed_all(builder)
        flushing = asyncio.create_task(builder.flush())
        await asyncio.sleep(0.003 * number)
        await builder.revoke([0], lost=True)
        before = [await world.manifest(ns=f"n{ns}") for ns in range(8)]
        await asyncio.sleep(0.02)
        assert [await world.manifest(ns=f"n{ns}") for ns in range(8)] == before
        flushing.cancel()
        await asyncio.gather(flushing, return_exceptions=True)
        await builder.stop()
    builder = await owner(world)
    await world.feed_all(builder)
    await builder.flush()
    await world.check()


async def test_a_loss_in_the_turn_in_which_a_flush_begins_costs_no_slot(tmp_path: Path) -> None:
    """A task cancelled before its first step runs no `finally`. With its slots gone the builder
    would never flush again.
    """
    world = World(tmp_path, settings=BuilderSettings(flush=FlushLimits(records=1), flushes=1))
    builder = await owner(world)
    await world.write(upsert("a"))
    await world.feed_all(builder)
    revoking = asyncio.create_task(builder._give_up(0, lost=True))
    builder._begin_due()  # its task takes its first step only after the revocation's
    await revoking
    assert await world.manifest() is None, "the flush never began"
    await builder.assign(0)
    await builder.start()
    await world.feed_all(builder)
    async with asyncio.timeout(20):
        while await world.manifest() is None:  # noqa: ASYNC110 - the builder tells nobody
            await asyncio.sleep(0.01)
    await builder.stop()
    await world.close()


async def test_a_partition_comes_back_to_the_same_builder(world: World) -> None:
    """A rebalance that gives it away and back: a new epoch, the state of the registry."""
    builder = await owner(world)
    await world.write(upsert("a"))
    await world.feed_all(builder)
    await builder.revoke([0], lost=True)
    assert await builder.assign(0) == 0
    await world.feed_all(builder)
    await builder.flush()
    await world.check()
    manifest = await world.manifest()
    assert manifest is not None
    assert manifest.owner_epoch == 2
