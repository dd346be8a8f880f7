"""Every operation of the builder survives the failure of any one call to the object store.

At stake: an entry lost or applied twice, a file that is named and missing, a builder that cannot go
on. `nth_failure.py` says how the trials go; here are the operations.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from builder.builder import IndexBuilder
from builder.chain import Target
from builder.compaction.compact import commit_rewrite, execute
from builder.compaction.recluster import recluster
from builder.garbage.beside import Beside
from builder.garbage.plan import Grace
from builder.garbage.purge import Purge
from builder.policy import Compaction, CompactionLimits, plan
from builder.rebuild import rebuild
from core.errors import Unavailable
from core.filters.parse import parse_filter
from core.operations import (
    DeleteAll,
    DeleteByFilter,
    DeleteIds,
    DeleteNamespace,
    UpdateByFilter,
    UpdateById,
)
from ingest.writer import LogWriter
from storage.manifest import Manifest
from tests.builder.nth_failure import Story, look_for_garbage, run_nth
from tests.builder.test_compact import JOBS, SCHEMA, filled, limits_of
from tests.builder.test_model import History
from tests.builder.world import COSINE, DENSE, SMALL, World, upsert

RED = parse_filter({"color": {"$eq": "red"}})


async def batch_over_files(world: World) -> None:
    """Clusters and deltas in files; in the log every kind of entry, for several namespaces."""
    race = await filled(world, clustered=True)
    await world.write(upsert("a", "b", color="red"), ns="gone")
    await race.flush()
    await world.write(upsert("r1", "r2", "new", color="red"), DeleteIds(("r3", "r4", "nobody")))
    await world.write(UpdateById("r5", set_metadata={"color": "red"}), UpdateById("nobody"))
    await world.write(UpdateByFilter(RED, {"size": 2.0}), DeleteByFilter(RED), upsert("r1"))
    await world.write(DeleteNamespace(), ns="gone")
    await world.write(upsert("first"), ns="made")
    await world.write(DeleteAll(), upsert("x", seed=3.0), ns="made")


async def batch_that_spills(world: World) -> None:
    """One entry changes all 90 records; a fold holds a dozen of them."""
    world.settings = replace(world.settings, fold_bytes=20_000)
    builder = world.builder()
    await builder.assign(0)
    for start in range(0, 90, 30):
        await world.write(upsert(*(f"r{n}" for n in range(start, start + 30)), color="red"))
        await world.feed_all(builder)
        await builder.flush()
    await world.write(UpdateByFilter(RED, {"seen": True}), DeleteIds(("r7", "r77")))


async def flush(world: World, builder: IndexBuilder) -> None:
    await world.feed_all(builder)
    await builder.flush()


async def many_deltas(world: World) -> None:
    await filled(world, clustered=False)


async def worn_clusters(world: World) -> None:
    """Some clusters too big, others mostly dead, too many deltas and runs."""
    race = await filled(world, clustered=True)
    centroid = (await race.newest()).centroid_matrix()[0]
    for start in range(0, 80, 20):
        near = upsert(*(f"near{n}" for n in range(start, start + 20)), seed=9.0)
        for record in near.records:
            assert record.values is not None
            record.values[:] = centroid + record.values * 0.01
        await world.write(near, DeleteIds(tuple(f"r{n}" for n in range(start, start + 15))))
        await race.flush()


async def to_rest(world: World, builder: IndexBuilder) -> None:
    """The builder's own loop of jobs; it keeps quiet about what it could not do for now."""
    await flush(world, builder)
    await builder.compact()
    manifest = await world.manifest()
    assert manifest is not None
    if plan(manifest, SMALL) is not None:
        raise Unavailable("compaction waits")


Operate = Callable[[World, IndexBuilder], Awaitable[None]]


def one_job(job: Callable[[Manifest], Compaction], limits: CompactionLimits) -> Operate:
    """This job alone; called again it does it to what it made the first time."""

    async def operate(world: World, builder: IndexBuilder) -> None:
        manifest = await world.manifest()
        assert manifest is not None
        shop = world.parts().workshop(world.settings)
        rewrite = await execute(shop, SCHEMA, manifest, job(manifest), limits)
        target = Target(SCHEMA, manifest.owner_epoch)
        assert await commit_rewrite(shop, target, manifest, rewrite) is not None

    return operate


async def some_history(world: World) -> None:
    """A life that ended, another with all kinds of writes, some of them not in files yet."""
    history = History(5, ids=40)
    builder = world.builder()
    await builder.assign(0)
    await world.write(upsert("before"), DeleteNamespace())
    await world.write(upsert("keep"))
    for _ in range(6):
        await world.write(history.operation(COSINE), index="cosine", ns="other")
        await world.write(upsert(*history.random.sample(history.ids, 20), seed=2.0))
        await world.write(DeleteIds(tuple(history.random.sample(history.ids, 5))))
        await flush(world, builder)
    await builder.compact()
    await world.write(upsert("late"))


async def long_log(world: World) -> None:
    history = History(1)
    for _ in range(8):
        await world.write(history.operation(DENSE), history.operation(DENSE))


async def entry_by_entry(world: World, builder: IndexBuilder) -> None:
    """A flush for each log record, compactions in between, as far as an earlier call came."""
    for number, entry in enumerate(world.log.records):
        if entry.offset >= builder.applied(0):
            await builder.apply(0, [entry])
        await builder.flush()
        if number % 2:
            await builder.compact()


async def rebuilt(world: World, builder: IndexBuilder) -> None:
    await rebuild(world.parts(), world.log, DENSE, settings=world.settings)


async def reclustered(world: World, builder: IndexBuilder) -> None:
    """Beside a builder that has flushed and compacted what came."""
    await to_rest(world, builder)
    await recluster(world.parts(), DENSE, settings=world.settings)


async def clustered_namespace(world: World) -> None:
    await filled(world, clustered=True)


async def garbage(world: World) -> None:
    """Replaced files, manifests, and a run that nobody names, all of them old."""
    race = await filled(world, clustered=True)
    await race.builder.compact()
    await world.store.put(SCHEMA.prefix + "ids/nobodys", b"orphan")


async def collected(world: World, builder: IndexBuilder) -> None:
    """All that is garbage by now, as if its time had come."""
    for _ in range(3):
        await look_for_garbage(world, builder, "dense", "n", Grace(ms=0, slot_ms=0))


async def some_deleted(world: World) -> None:
    """Clusters and deltas with some dead rows each."""
    race = await filled(world, clustered=True)
    await world.write(DeleteIds(tuple(f"r{n}" for n in range(0, 100, 9))))
    await race.flush()


async def purged(world: World, builder: IndexBuilder) -> None:
    await flush(world, builder)
    writer = LogWriter(world.log, world.clock)
    beside = Beside(world.parts(), DENSE, "n", world.settings)
    try:
        report = await Purge(beside, writer, lambda *_: None, wait_s=1.0).run()
    finally:
        await writer.close()
    assert (report.left, report.holding) == ((), ())


STORIES = [
    Story("flush", batch_over_files, flush),
    Story("flush in parts", batch_that_spills, flush),
    Story("compaction of a small namespace", many_deltas, to_rest),
    Story("compaction of clusters", worn_clusters, to_rest),
    Story("a history", long_log, entry_by_entry),
    Story("garbage collection", garbage, collected),
    Story("purge", some_deleted, purged),
    Story("rebuild", some_history, rebuilt),
    Story("recluster", worn_clusters, reclustered),
]
SINGLE_JOBS = [
    Story(name, clustered_namespace if clustered else many_deltas, one_job(job, limits_of(name)))
    for name, (clustered, job) in JOBS.items()
]


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
async def test_some_call_fails(tmp_path: Path, story: Story) -> None:
    assert await run_nth(story, tmp_path, every=False) > 5


@pytest.mark.long
@pytest.mark.parametrize("story", [*STORIES, *SINGLE_JOBS], ids=lambda story: story.name)
async def test_any_one_call_fails(
    tmp_path: Path, story: Story, record_property: Callable[[str, object], None]
) -> None:
    record_property("calls that failed", await run_nth(story, tmp_path, every=True))
