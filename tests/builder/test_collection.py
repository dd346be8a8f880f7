"""Garbage goes, and nothing else: not what is read, not what a sleeper is about to name.

At stake: a file that is needed and gone, a deleted namespace that comes back, a store that grows
for ever.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from builder.builder import IndexBuilder
from builder.chain import Target
from builder.compaction.compact import commit_rewrite, execute
from builder.garbage.collection import Collection, commit_boundary
from builder.garbage.plan import Grace
from builder.policy import FoldFiles
from core.errors import FailedPrecondition, Fenced
from core.indexes import IndexState
from core.operations import DeleteIds, DeleteNamespace
from infra.telemetry import Metrics
from storage.boundary import Boundary, BoundaryStore
from storage.commit import ManifestConflict, ManifestStore
from storage.layout import hint_key, snapshots_prefix
from storage.manifest import Manifest
from storage.namespace import NamespaceReader
from tests.builder.test_background import until
from tests.builder.test_compact import SCHEMA
from tests.builder.world import DENSE, SMALL, upsert
from tests.builder.yard import GRACE_S, Yard

PREFIX = SCHEMA.prefix
NO_GRACE = Grace(ms=0)


@pytest.fixture
async def yard(tmp_path: Path) -> AsyncIterator[Yard]:
    made = await Yard(tmp_path).begin()
    yield made
    await made.world.close()


async def churned(yard: Yard, rounds: int = 8) -> None:
    """Deltas, clusters and runs that were replaced again and again."""
    for number in range(rounds):
        names = tuple(f"r{n}" for n in range(number * 5, number * 5 + 20))
        await yard.world.write(upsert(*names, seed=float(number)), DeleteIds(names[:3]))
        await yard.flush()
        await yard.builder.compact()


async def test_what_nothing_names_goes_and_the_model_holds(yard: Yard) -> None:
    await churned(yard)
    before = len(yard.names())
    await yard.to_rest()
    assert len(yard.names()) < before / 2
    await yard.nothing_needless()
    await yard.world.write(upsert("later"), DeleteIds(("r20",)))
    await yard.flush()
    await yard.world.check()


async def test_what_is_young_stays(yard: Yard) -> None:
    await churned(yard)
    before = yard.names()
    yard.pass_time(GRACE_S - 60)
    assert await yard.collect() == 0
    assert yard.names() == before
    waiting = [swept for swept in await yard.builder.collect() if not swept.at_rest]
    assert waiting[0].waiting_objects > 10
    assert waiting[0].waiting_bytes > 1000


async def test_a_reader_of_an_old_manifest_has_its_files_for_the_grace_time(yard: Yard) -> None:
    """Its files were written long ago, but they were in use until a moment ago."""
    await churned(yard)
    held = await yard.newest()
    yard.pass_time(10 * GRACE_S)
    await churned(yard, 3)
    yard.pass_time(GRACE_S - 60)
    await yard.collect()
    yard.world.cache.forget([ref.columns.name for ref in held.files])
    reader = NamespaceReader(yard.world.cache, held)
    for place in range(len(held.files)):
        assert len(await reader.live(place)) > 0
    yard.pass_time(120)
    assert await yard.collect() > 0
    await yard.world.check()


async def test_what_a_dead_process_left_goes(yard: Yard) -> None:
    await churned(yard, 2)
    orphans = ["deltas/o.arrow", "clusters/o.arrow", "clusters/o.ann", "ids/o"]
    for name in orphans:
        await yard.store.put(PREFIX + name, b"half of a flush")
    await yard.store.put(PREFIX + "foreign/o", b"not ours")
    await yard.to_rest()
    assert not set(orphans) & set(yard.names())
    assert PREFIX + "foreign/o" in yard.store.objects


async def test_a_compaction_that_slept_longer_than_its_files_is_dropped(yard: Yard) -> None:
    """Its rows would be in files that are gone: the newest manifest must not name them."""
    await churned(yard, 2)
    manifest = await yard.newest()
    shop = yard.world.parts().workshop(yard.world.settings)
    job = FoldFiles(tuple(file.uuid for file in manifest.files))
    rewrite = await execute(shop, SCHEMA, manifest, job, SMALL)
    await yard.to_rest()
    target = Target(SCHEMA, manifest.owner_epoch)
    newest = await yard.newest()
    assert {file.uuid for file in newest.files} == {part.uuid for part in rewrite.moved}
    for known in (manifest, newest):  # it meets the round on the way, or was told already
        assert await commit_rewrite(shop, target, known, rewrite) is None
    await yard.world.check()


async def test_a_compaction_whose_files_were_spared_is_committed(yard: Yard) -> None:
    """A round came between, but it was about others."""
    await churned(yard, 2)
    yard.pass_time()
    manifest = await yard.newest()
    shop = yard.world.parts().workshop(yard.world.settings)
    job = FoldFiles(tuple(file.uuid for file in manifest.files))
    rewrite = await execute(shop, SCHEMA, manifest, job, SMALL)
    assert await yard.collect() > 0
    target = Target(SCHEMA, manifest.owner_epoch)
    assert await commit_rewrite(shop, target, manifest, rewrite) is not None
    await yard.world.check()


async def test_a_job_older_than_the_rounds_that_are_kept_is_dropped(yard: Yard) -> None:
    await churned(yard, 2)
    manifest = await yard.newest()
    shop = yard.world.parts().workshop(yard.world.settings)
    job = FoldFiles(tuple(file.uuid for file in manifest.files))
    for _ in range(3):
        await churned(yard, 1)
        yard.pass_time()
        await yard.collect()
    newest = await yard.newest()
    job = FoldFiles(tuple(file.uuid for file in newest.files))
    rewrite = await execute(shop, SCHEMA, newest, job, SMALL)
    assert yard.count("boundary") < newest.boundary
    target = Target(SCHEMA, manifest.owner_epoch)
    asleep = replace(rewrite, boundary=0)
    assert await commit_rewrite(shop, target, newest, asleep) is None


async def test_a_flush_that_slept_is_done_again_with_new_files(yard: Yard) -> None:
    """The builder knows an old manifest; what it wrote before the conflict is garbage."""
    await churned(yard, 2)
    shop = yard.world.parts().workshop(yard.world.settings)
    await yard.world.write(upsert("slow"))
    await yard.world.feed_all(yard.builder)
    held = await yard.newest()
    target = Target(SCHEMA, held.owner_epoch)
    await commit_boundary(shop, target, held, held.boundary + 1)
    await yard.builder.flush()
    await yard.world.check()
    await yard.to_rest()
    await yard.nothing_needless()


async def test_a_deleted_namespace_leaves_a_few_bytes_and_no_zombie_brings_it_back(
    yard: Yard,
) -> None:
    await churned(yard)
    asleep = await yard.newest()
    hint = yard.store.objects[hint_key(PREFIX)]
    await yard.world.write(DeleteNamespace())
    await yard.flush()
    await yard.to_rest()
    await yard.nothing_needless()
    size = sum(len(yard.store.objects[PREFIX + key]) for key in yard.names())
    assert size < 4_000
    # The zombie commits into the freed number, and its hint goes over the newer one.
    zombie = ManifestStore(yard.store, yard.clock)
    with pytest.raises(ManifestConflict):
        await zombie.commit(_next(asleep))
    yard.store.objects[hint_key(PREFIX)] = hint
    await yard.world.check()
    await yard.world.write(upsert("again"))
    await yard.flush()
    await yard.world.check()
    await yard.to_rest()
    await yard.nothing_needless()


def _next(manifest: Manifest, **changes: object) -> Manifest:
    """What a sleeper that knows `manifest` commits."""
    following = msgspec.structs.replace(
        manifest, version=manifest.version + 1, commit_uuid="sleeper"
    )
    return msgspec.structs.replace(following, **changes)


async def test_a_round_whose_collector_died_is_taken_up(yard: Yard) -> None:
    """It said what goes and died before its commit: a writer may still name it."""
    await churned(yard, 3)
    yard.pass_time()
    manifest = await yard.newest()
    wanted = manifest.files[0].columns.name
    await yard.store.put(PREFIX + "deltas/o.arrow", b"orphan")
    dead = Boundary(
        index_id="dense",
        namespace="n",
        number=manifest.boundary + 1,
        manifests_below=manifest.version + 1,
        objects=(wanted, "deltas/o.arrow"),
    )
    assert await BoundaryStore(yard.store).create(dead)
    await yard.to_rest()
    assert (await yard.newest()).boundary >= dead.number
    assert PREFIX + "deltas/o.arrow" not in yard.store.objects
    await yard.nothing_needless()


async def test_two_collectors_at_once_are_one_too_many_and_do_no_harm(yard: Yard) -> None:
    await churned(yard)
    yard.pass_time()
    shop = yard.world.parts().workshop(yard.world.settings)
    target = Target(SCHEMA, (await yard.newest()).owner_epoch)

    async def commit(newest: Manifest, number: int) -> Manifest | None:
        return await commit_boundary(shop, target, newest, number)

    def collector() -> Collection:
        grace = Grace(ms=GRACE_S * 1000)
        return Collection(yard.store, "dense", "n", yard.store.now_ms, grace, yard.world.directory)

    swept = await asyncio.gather(*(collector().run(commit) for _ in range(4)))
    assert sum(one.rounds for one in swept) >= 1
    await yard.to_rest()
    await yard.nothing_needless()


async def test_a_zombies_collector_is_fenced(yard: Yard) -> None:
    await churned(yard)
    new = yard.world.builder()
    await new.assign(0)
    await yard.world.write(upsert("x"))
    await yard.world.feed_all(new)
    await new.flush()
    yard.pass_time()
    with pytest.raises(Fenced):
        await yard.collect()
    yard.builder = new
    await yard.to_rest()
    await yard.nothing_needless()


async def test_without_grace_content_goes_and_numbers_stay_taken(yard: Yard) -> None:
    """As for a purge: old manifests hold ids and metadata. Their numbers are not free at once."""
    await churned(yard, 4)
    await yard.collect(NO_GRACE)
    newest = await yard.newest()
    old = [key for key in yard.names() if key.startswith("manifests/")][:-1]
    assert len(old) == newest.version - 1
    assert {yard.store.objects[PREFIX + key] for key in old} == {b""}
    with pytest.raises(ManifestConflict):
        await ManifestStore(yard.store, yard.clock).commit(_next(newest, version=2))
    await yard.world.check()
    await yard.to_rest()
    await yard.nothing_needless()


async def test_a_look_at_a_namespace_at_rest_is_cheap_and_commits_nothing(yard: Yard) -> None:
    await churned(yard)
    await yard.to_rest()
    version = (await yard.newest()).version
    keys = yard.names()
    collection = Collection(
        yard.store, "dense", "n", yard.store.now_ms, Grace(ms=GRACE_S * 1000), yard.world.directory
    )
    yard.store.calls.clear()
    swept = await collection.dry_run()
    assert (swept.objects, swept.at_rest) == (0, True)
    assert sum(yard.store.calls.values()) <= 6
    assert (await yard.newest()).version == version
    assert yard.names() == keys


async def test_a_dry_run_says_what_a_run_does(yard: Yard) -> None:
    await churned(yard)
    await yard.store.put(PREFIX + "deltas/o.arrow", b"orphan")
    yard.pass_time()
    grace = Grace(ms=GRACE_S * 1000)
    keys = yard.names()
    said = await Collection(
        yard.store, "dense", "n", yard.store.now_ms, grace, yard.world.directory
    ).dry_run()
    assert yard.names() == keys
    (done,) = await yard.builder.collect()
    assert (said.objects, said.bytes, said.manifests) == (done.objects, done.bytes, done.manifests)
    assert set(said.names) == set(done.names)


async def test_where_a_snapshot_cannot_be_read_nothing_goes(yard: Yard) -> None:
    await churned(yard)
    await yard.store.put(snapshots_prefix(PREFIX) + "1" * 32, b"of a later build")
    keys = yard.names()
    yard.pass_time()
    with pytest.raises(FailedPrecondition, match="snapshots/111"):
        await yard.collect()
    assert yard.names() == keys


async def test_a_deleted_index_goes_with_its_registry_entries(yard: Yard) -> None:
    await churned(yard)
    await yard.world.write(upsert("a"), ns="other")
    await yard.flush()
    directory = yard.world.directory
    directory.indexes["dense"] = replace(DENSE, state=IndexState.DELETED)
    await yard.collect()
    assert yard.names(), "it goes after the grace time"
    yard.pass_time()
    await yard.collect()
    assert not yard.names()
    await yard.builder.stop()
    state = await yard.world.registry.newest(0)
    assert state is not None
    names = [key async for key, _ in yard.world.registry.walk(state)]
    assert ("dense", "n") not in names


@pytest.mark.parametrize("restarted", [False, True])
async def test_the_builder_collects_by_itself(tmp_path: Path, restarted: bool) -> None:
    """Also what its predecessor left: the patrol finds it."""
    yard = await Yard(tmp_path).begin()
    await churned(yard)
    if restarted:
        await yard.builder.revoke([0], lost=True)
    yard.world.settings = replace(yard.world.settings, gc_period_s=0.01, gc_patrol_per_s=1e6)
    parts = replace(yard.world.parts(), metrics=Metrics())
    yard.builder = IndexBuilder(parts, yard.world.settings)
    yard.world.builders.append(yard.builder)
    await yard.builder.assign(0)
    await yard.builder.start()
    yard.pass_time()

    async def few() -> bool:
        yard.pass_time(60)
        return yard.count("manifests") == 1

    await until(few, "old manifests go")
    text = parts.metrics.text().decode()
    assert "firndb_builder_collection_rounds_total" in text
    await yard.builder.stop()
    await yard.world.check()
