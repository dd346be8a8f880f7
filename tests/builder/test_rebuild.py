"""`rebuild`: the log is the truth; files can be made anew from it while everything goes on."""

import pytest

from builder.builder import IndexBuilder
from builder.rebuild import RebuildProgress, rebuild
from core.errors import LogMismatch, NotFound
from core.operations import DeleteIds, DeleteNamespace
from tests.builder.test_model import History
from tests.builder.world import COSINE, DENSE, World, upsert


def uuids(manifest: object) -> set[str]:
    return {file.uuid for file in manifest.files}  # type: ignore[attr-defined]


async def filled(world: World, writes: int = 12) -> IndexBuilder:
    builder = world.builder()
    await builder.assign(0)
    history = History(7)
    await world.write(upsert("keep"))
    for _ in range(writes):
        await world.write(history.operation(COSINE), index="cosine", ns="other")
        await world.write(upsert(*history.random.sample(history.ids, 20), seed=2.0))
        await world.write(DeleteIds(tuple(history.random.sample(history.ids, 5))))
        await world.feed_all(builder)
        await builder.flush()
    return builder


async def test_a_rebuilt_namespace_holds_the_same_in_other_files(world: World) -> None:
    builder = await filled(world)
    before = await world.manifest()
    assert before is not None
    seen: list[RebuildProgress] = []
    (rebuilt,) = await rebuild(
        world.parts(), world.log, DENSE, settings=world.settings, progress=seen.append
    )
    await world.check()
    after = await world.manifest()
    assert after is not None
    assert uuids(after).isdisjoint(uuids(before))
    assert (after.version, after.generation) == (before.version + 1, before.generation)
    assert after.indexed_lsn == before.indexed_lsn
    assert (rebuilt.namespace, rebuilt.version) == ("n", after.version)
    assert seen[-1].at == seen[-1].end
    # The live builder goes on from there without being told.
    await world.write(upsert("new"), DeleteIds(("keep",)))
    await world.feed_all(builder)
    await builder.flush()
    await builder.compact()
    await world.check()
    following = await world.manifest()
    assert following is not None
    assert following.generation == after.generation


async def test_writes_during_a_rebuild_are_not_lost(world: World) -> None:
    """The live builder commits while the log is replayed: the swap catches up with it first."""
    builder = await filled(world)
    records = world.log.records
    held = list(records)

    class Busy(type(world.log)):  # type: ignore[misc]
        """Before each of the first reads somebody writes and the live builder flushes."""

        rounds = 0

        async def read(self, partition, start, **bounds):  # type: ignore[no-untyped-def]
            Busy.rounds += 1
            if Busy.rounds < 6:
                await world.write(upsert(f"late{Busy.rounds}"), DeleteIds(("keep",)))
                await world.feed_all(builder)
                await builder.flush()
            return await super().read(partition, start, **bounds)

    busy = Busy(3)
    busy.records = records
    before = await world.manifest()
    await rebuild(world.parts(), busy, DENSE, settings=world.settings)
    assert len(records) > len(held)
    await world.check()
    after = await world.manifest()
    assert before is not None
    assert after is not None
    assert uuids(after).isdisjoint(uuids(before))


async def test_a_namespace_deleted_meanwhile_stays_deleted(world: World) -> None:
    builder = await filled(world, 2)
    await world.write(DeleteNamespace())
    assert await rebuild(world.parts(), world.log, DENSE, settings=world.settings) == ()
    await world.feed_all(builder)
    await builder.flush()
    await world.check()


async def test_only_this_life_is_needed_of_the_log(world: World) -> None:
    """A trimmed log is enough as long as the present life is whole."""
    builder = await filled(world, 3)
    await world.write(DeleteNamespace())
    generation = await world.write(upsert("a", "b"))
    await world.feed_all(builder)
    await builder.flush()
    await world.log.trim(0, generation)
    (rebuilt,) = await rebuild(world.parts(), world.log, DENSE, "n", settings=world.settings)
    assert rebuilt.records == 2
    await world.check()
    await world.log.trim(0, generation + 1)
    with pytest.raises(LogMismatch, match="kept from"):
        await rebuild(world.parts(), world.log, DENSE, "n", settings=world.settings)
    await world.check()


async def test_an_unknown_namespace_is_an_error(world: World) -> None:
    await filled(world, 1)
    with pytest.raises(NotFound, match="'nowhere'"):
        await rebuild(world.parts(), world.log, DENSE, "nowhere")


@pytest.mark.parametrize("seed", range(3))
async def test_any_history_is_rebuilt(world: World, seed: int) -> None:
    history = History(seed + 50)
    builder = world.builder()
    await builder.assign(0)
    for number in range(30):
        await world.write(history.operation(DENSE), history.operation(DENSE))
        if number % 5 == 0:
            await world.feed_all(builder)
            await builder.flush()
            await builder.compact()
        if number % 10 == 9:
            await rebuild(world.parts(), world.log, DENSE, settings=world.settings)
            await world.feed_all(builder)
            await builder.flush()
            await world.check()
