"""What a flush makes true: every kind of entry, over every kind of state."""

from dataclasses import replace

import pytest

from builder.builder import IndexBuilder
from core.feed import CheckpointEvent, ManifestEvent
from core.filters.parse import parse_filter
from core.operations import (
    CreateNamespace,
    DeleteAll,
    DeleteByFilter,
    DeleteIds,
    DeleteNamespace,
    Operation,
    UpdateByFilter,
    UpdateById,
)
from tests.builder.world import World, record, upsert

RED = parse_filter({"color": {"$eq": "red"}})


async def ready(world: World) -> IndexBuilder:
    builder = world.builder()
    assert await builder.assign(0) == 0
    return builder


async def test_records_are_in_files_after_the_first_flush(world: World) -> None:
    builder = await ready(world)
    lsn = await world.write(upsert("a", "b", "a", color="red"))
    await world.feed_all(builder)
    await builder.flush()
    await world.check()
    manifest = await world.manifest()
    assert manifest is not None
    assert (manifest.version, manifest.generation, manifest.indexed_lsn) == (1, lsn, lsn)
    assert builder.committable(0) == lsn + 1


@pytest.mark.parametrize("flushed", [True, False], ids=["over files", "in one batch"])
@pytest.mark.parametrize(
    "operations",
    [
        [UpdateById("a", set_metadata={"size": 3.0})],
        [UpdateById("a", values=record("other").values)],
        [UpdateById("nobody", set_metadata={"size": 3.0})],
        [DeleteIds(("a", "nobody"))],
        [DeleteIds(("a",)), UpdateById("a", set_metadata={"size": 3.0})],
        [DeleteByFilter(RED)],
        [DeleteByFilter(RED), UpdateById("a", set_metadata={"size": 3.0})],
        [UpdateByFilter(RED, {"color": "blue"}), DeleteByFilter(RED)],
        [UpdateById("c", set_metadata={"color": "red"}), DeleteByFilter(RED)],
        [UpdateByFilter(RED, {"n": 1.0}), UpdateById("a", set_metadata={"m": 2.0})],
        [DeleteByFilter(RED), upsert("a", seed=5.0)],
        [upsert("a", seed=2.0), DeleteByFilter(RED)],
        [DeleteAll()],
        [DeleteAll(), upsert("b", seed=2.0), UpdateById("a", set_metadata={"size": 3.0})],
        [DeleteNamespace()],
        [DeleteNamespace(), UpdateById("a", set_metadata={"size": 3.0}), DeleteIds(("a",))],
        [DeleteNamespace(), CreateNamespace()],
        [DeleteNamespace(), CreateNamespace(("color",)), upsert("z"), CreateNamespace(("size",))],
        [DeleteNamespace(), upsert("z"), CreateNamespace(("color",))],
        [DeleteNamespace(), upsert("z"), DeleteIds(("z",))],
        [CreateNamespace()],
    ],
    ids=lambda operations: "+".join(type(op).__name__ for op in operations),
)
async def test_operations(world: World, operations: list[Operation], flushed: bool) -> None:
    builder = await ready(world)
    await world.write(upsert("a", "b", color="red"), upsert("c", color="green"))
    if flushed:
        await world.feed_all(builder)
        await builder.flush()
    await world.write(*operations)
    await world.feed_all(builder)
    await builder.flush()
    await world.check()


async def test_an_update_of_everything_is_written_in_parts(world: World) -> None:
    """A few bytes in the log may change a whole namespace: memory is bounded, the commit is one."""
    world.settings = replace(world.settings, fold_bytes=20_000)
    builder = await ready(world)
    for start in range(0, 90, 10):
        await world.write(upsert(*(f"r{n}" for n in range(start, start + 10)), color="red"))
        await world.feed_all(builder)
        await builder.flush()
    before = await world.manifest()
    await world.write(UpdateByFilter(RED, {"seen": True}), DeleteIds(("r7", "r77")))
    await world.feed_all(builder)
    await builder.flush()
    after = await world.manifest()
    assert before is not None
    assert after is not None
    assert after.version == before.version + 1
    sizes = [file.rows for file in after.files]
    assert len(sizes) > 2
    assert max(sizes) < 40
    await world.check()


async def test_deleting_what_never_was_commits_nothing_and_progress_passes(world: World) -> None:
    builder = await ready(world)
    lsn = await world.write(
        *(DeleteNamespace(), DeleteAll(), DeleteIds(("a",)), DeleteByFilter(RED)),
        UpdateById("a", set_metadata={"size": 3.0}),
    )
    await world.feed_all(builder)
    await builder.flush()
    assert await world.manifest() is None
    assert builder.committable(0) == lsn + 1


async def test_a_new_life_goes_on_in_the_same_chain(world: World) -> None:
    """A deletion leaves a tombstone; the next life has the generation of its first entry."""
    builder = await ready(world)
    first = await world.write(upsert("a"))
    await world.feed_all(builder)
    await builder.flush()
    await world.write(DeleteNamespace())
    await world.feed_all(builder)
    await builder.flush()
    tombstone = await world.manifest()
    assert tombstone is not None
    assert (tombstone.deleted, tombstone.version, tombstone.generation) == (True, 2, first)
    second = await world.write(upsert("b"))
    await world.feed_all(builder)
    await builder.flush()
    manifest = await world.manifest()
    assert manifest is not None
    assert (manifest.deleted, manifest.version, manifest.generation) == (False, 3, second)
    await world.check()


async def test_deleted_and_made_again_in_one_batch(world: World) -> None:
    """The batch's two lives share a flush; the manifest tells of the second."""
    builder = await ready(world)
    await world.write(upsert("a", "b"))
    await world.feed_all(builder)
    await builder.flush()
    await world.write(DeleteNamespace())
    again = await world.write(upsert("b", seed=2.0))
    await world.feed_all(builder)
    await builder.flush()
    manifest = await world.manifest()
    assert manifest is not None
    assert (manifest.generation, manifest.version, manifest.record_count) == (again, 2, 1)
    await world.check()


async def test_delivering_twice_changes_nothing(world: World) -> None:
    builder = await ready(world)
    await world.write(upsert("a", "b"))
    await world.write(DeleteIds(("a",)))
    await world.feed_all(builder)
    await builder.flush()
    before = await world.manifest()
    await builder.apply(0, world.log.records)
    await builder.flush()
    assert await world.manifest() == before


async def test_news_of_manifests_come_before_the_checkpoint(world: World) -> None:
    builder = await ready(world)
    lsn = await world.write(upsert("a", "b"))
    await world.feed_all(builder)
    await builder.flush()
    assert world.feed.events == [
        ManifestEvent("dense", "n", 0, lsn, 1, lsn, False, 2),
        CheckpointEvent(0, lsn + 1),
    ]


async def test_namespaces_are_flushed_apart(world: World) -> None:
    builder = await ready(world)
    for number in range(10):
        await world.write(upsert(f"r{number}", color="red"), ns=f"n{number}")
    await world.write(DeleteByFilter(RED), ns="n3")
    await world.feed_all(builder)
    await builder.flush()
    await world.check()
    registry = await world.registry.newest(0)
    assert registry is not None
    rows = world.registry.walk(registry)
    counts = {name: s.record_count async for (_, name), s in rows}
    assert counts == {f"n{number}": int(number != 3) for number in range(10)}
