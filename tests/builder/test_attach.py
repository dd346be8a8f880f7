"""Attach entries: a namespace begins with another one's files, and both go their own ways.

At stake: a branch that shows the wrong records, a write after it that is lost, a replay that comes
to another state, an origin that goes away under its branches.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from builder.builder import IndexBuilder
from builder.metrics import BuilderMetrics
from builder.rebuild import rebuild
from core.errors import LogMismatch
from core.filters.parse import parse_filter
from core.operations import (
    CreateNamespace,
    DeleteAll,
    DeleteByFilter,
    DeleteIds,
    DeleteNamespace,
    UpdateByFilter,
    UpdateById,
)
from infra.objects.counting import CountingStore
from infra.objects.local import LocalStore
from storage.layout import snapshot_key
from storage.manifest import Manifest
from storage.snapshots import SnapshotKind
from tests.builder.test_model import History
from tests.builder.world import COSINE, DENSE, SPARSE, Life, World, upsert


async def opened(world: World) -> IndexBuilder:
    builder = world.builder()
    await builder.assign(0)
    return builder


async def flushed(world: World, builder: IndexBuilder) -> None:
    await world.feed_all(builder)
    await builder.flush()


async def filled(world: World, index: str = "dense", writes: int = 5) -> IndexBuilder:
    """Namespace n with a past: clusters, deltas, dead rows."""
    info = {"dense": DENSE, "cosine": COSINE, "sparse": SPARSE}[index]
    history = History(3)
    builder = await opened(world)
    for _ in range(writes):
        await world.write(history.operation(info), history.operation(info), index=index)
        await flushed(world, builder)
        await builder.compact()
    if not world.truth[(index, "n")].records:
        raise AssertionError("choose another seed: nothing is left")
    return builder


async def manifest_of(world: World, ns: str, index: str = "dense") -> Manifest:
    manifest = await world.manifest(index, ns)
    assert manifest is not None
    return manifest


def refused(world: World, builder: IndexBuilder, why: str) -> float:
    metrics: BuilderMetrics = builder._metrics
    return float(metrics.attaches_refused.labels(why)._value.get())


@pytest.mark.parametrize("index", ["dense", "cosine", "sparse"])
async def test_a_branch_has_the_records_and_shares_the_files(world: World, index: str) -> None:
    builder = await filled(world, index)
    lsn, pin = await world.branch("b", index=index)
    await flushed(world, builder)
    await world.check()
    source, branch = await manifest_of(world, "n", index), await manifest_of(world, "b", index)
    assert [f.columns for f in branch.files] == [f.columns for f in source.files]
    assert {f.origin for f in branch.files} == {pin.home}
    assert (branch.generation, branch.attached, branch.version) == (lsn, pin.id, 1)
    assert branch.indexed_lsn == lsn


@pytest.mark.parametrize("index", ["dense", "sparse"])
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.long) for n in range(1, 20))]
)
async def test_both_go_their_own_ways(world: World, index: str, seed: int) -> None:
    """Random writes and compactions on both, from the moment of the branch on."""
    info = {"dense": DENSE, "sparse": SPARSE}[index]
    builder = await filled(world, index)
    await world.branch("b", index=index)
    history = History(seed + 10)
    for round_ in range(8):
        for ns in ("n", "b"):
            await world.write(history.operation(info), index=index, ns=ns)
        if round_ % 2:
            await flushed(world, builder)
            await world.check()
            await builder.compact()
            await world.check()


@pytest.mark.parametrize("inline_bytes", [3_000, 64 << 10], ids=["outgrown", "tiny"])
async def test_a_tiny_namespace_is_branched_in_its_manifest(
    world: World, inline_bytes: int
) -> None:
    """There are no files to share: the rows come with the snapshot object."""
    world.settings = replace(world.settings, inline_bytes=inline_bytes)
    builder = await opened(world)
    await world.write(upsert("a", "b", "c", color="red"))
    await flushed(world, builder)
    lsn, pin = await world.branch("b")
    await flushed(world, builder)
    await world.check()
    branch = await manifest_of(world, "b")
    assert [(bool(f.inline), f.lsn_as) for f in branch.files] == [(True, lsn)]
    assert await world.snapshots.list(pin.home) == [pin]
    for ns in ("b", "n"):
        await world.write(upsert("b", *(f"{ns}{n}" for n in range(40))), ns=ns)
        await world.write(UpdateByFilter(parse_filter({"color": "red"}), {"late": True}), ns=ns)
        await world.write(DeleteIds(("c",)), ns=ns)
    await flushed(world, builder)
    await world.check()
    assert all(file.inline for file in (await manifest_of(world, "b")).files) == (
        inline_bytes > 3_000
    )
    await world.branch("again", ns="b")
    await flushed(world, builder)
    await builder.compact()
    await world.check()


async def test_entries_after_the_attach_apply_on_top_in_one_flush(world: World) -> None:
    """Ids, patches, filters: all of them meet the records that came with it."""
    builder = await filled(world)
    await world.write(upsert("x", "y", "z", color="red"), UpdateById("y", set_metadata={"n": 1.0}))
    await flushed(world, builder)
    await world.branch("b")
    await world.write(UpdateById("x", set_metadata={"mine": True}), upsert("new"), ns="b")
    await world.write(UpdateByFilter(parse_filter({"n": 1.0}), {"late": True}), ns="b")
    await world.write(DeleteByFilter(parse_filter({"color": "green"})), ns="b")
    await world.write(DeleteIds(("z",)), ns="b")
    await flushed(world, builder)
    await world.check()
    branch = world.truth[("dense", "b")].records
    assert branch["x"].record.metadata["mine"] is True
    assert branch["y"].record.metadata["late"] is True


async def test_a_branch_stays_whole_when_its_source_is_deleted(world: World) -> None:
    builder = await filled(world)
    await world.branch("b")
    await flushed(world, builder)
    await world.write(DeleteNamespace())
    await world.write(upsert("again"), ns="n")
    await flushed(world, builder)
    await world.check()
    (pin,) = await world.snapshots.list((await manifest_of(world, "b")).files[0].origin)
    assert (pin.holder_index, pin.holder_namespace) == ("dense", "b")


async def test_a_branch_of_a_branch_pins_every_origin(world: World) -> None:
    """Its files lie under three prefixes: each one's collector must see that they are used."""
    builder = await filled(world)
    await world.branch("b")
    await world.write(upsert("only in b"), ns="b")
    await flushed(world, builder)
    lsn, pin = await world.branch("c", ns="b")
    await world.write(upsert("only in c"), ns="c")
    await flushed(world, builder)
    await world.check()
    manifest = await manifest_of(world, "c")
    origins = {file.origin for file in manifest.files}
    assert origins == {"", pin.home, *pin.origins}
    assert len(pin.origins) == 1
    for prefix in (pin.home, *pin.origins):
        assert await world.store.stat(snapshot_key(prefix, pin.id)) is not None
    assert {file.lsn_as for file in manifest.files if file.origin} == {lsn}
    await builder.compact()
    await world.write(DeleteNamespace(), ns="b")
    await flushed(world, builder)
    await world.check()


async def test_a_namespace_restored_under_its_old_name_owns_its_files(world: World) -> None:
    builder = await filled(world)
    held = dict(world.truth[("dense", "n")].records)
    snapshot = await world.snapshots.take(
        "dense", "n", name="s", kind=SnapshotKind.SNAPSHOT, created_ms=1
    )
    await world.write(DeleteNamespace())
    world.truth[("dense", "n")] = Life(records=held)
    lsn, _ = await world.branch("n", of=snapshot)
    await flushed(world, builder)
    await world.check()
    manifest = await manifest_of(world, "n")
    assert {file.origin for file in manifest.files} == {snapshot.home}
    assert manifest.generation == lsn
    await builder.compact()
    await world.check()


async def test_another_index_of_the_same_schema(world: World) -> None:
    world.directory.indexes["twin"] = replace(DENSE, index_id="twin")
    builder = await filled(world)
    await world.branch("b", to_index="twin")
    await world.write(upsert("more"), index="twin", ns="b")
    await flushed(world, builder)
    await world.check()


async def test_an_attach_where_records_are_changes_nothing(world: World) -> None:
    builder = await filled(world)
    await world.write(upsert("mine"), ns="b")
    before = replace(world.truth[("dense", "b")])
    await world.branch("b")
    world.truth[("dense", "b")] = before
    await world.write(upsert("more"), ns="b")
    await flushed(world, builder)
    await world.check()
    assert refused(world, builder, "not_empty") == 1
    assert (await manifest_of(world, "b")).attached == ""


async def test_an_empty_namespace_takes_one_attach_in_each_life(world: World) -> None:
    """It has been emptied in the same flush, in every way that there is."""
    builder = await filled(world)
    await world.write(CreateNamespace(("color",)), upsert("old"), ns="b")
    await flushed(world, builder)
    await world.write(DeleteIds(("old",)), ns="b")
    await world.branch("b")
    await flushed(world, builder)
    await world.check()
    await world.write(DeleteAll(), ns="b")
    after = replace(world.truth[("dense", "b")], records={})
    await world.branch("b")
    world.truth[("dense", "b")] = after
    await flushed(world, builder)
    await world.check()
    assert refused(world, builder, "twice") == 1
    await world.write(DeleteNamespace(), ns="b")
    lsn, pin = await world.branch("b")
    await flushed(world, builder)
    await world.check()
    manifest = await manifest_of(world, "b")
    assert (manifest.generation, manifest.attached) == (lsn, pin.id)


@pytest.mark.parametrize("stretches", [1, 2])
async def test_an_attach_that_is_repeated_late_brings_nothing_deleted_back(
    world: World, stretches: int
) -> None:
    """By a restore that was slow, after a client has deleted the namespace."""
    builder = await filled(world)
    _, pin = await world.branch("b")
    await flushed(world, builder)
    await world.write(DeleteNamespace(), ns="b")
    if stretches == 2:
        await flushed(world, builder)
    await world.attach("b", pin, "dense", "n")
    await flushed(world, builder)
    await world.check()
    assert (await manifest_of(world, "b")).deleted


@pytest.mark.parametrize("ended", [False, True], ids=["emptied", "deleted"])
@pytest.mark.parametrize("before", [False, True], ids=["new", "empty before"])
async def test_nor_does_it_after_a_life_since(world: World, before: bool, ended: bool) -> None:
    """The present life does not tell what the one before it was made of; its LSN is enough."""
    builder = await filled(world)
    if before:
        await world.write(CreateNamespace(), ns="b")
    last = await world.log.end_offset(0) - 1
    _, pin = await world.branch("b")
    await world.write(DeleteNamespace(), ns="b")
    await world.write(upsert("mine"), ns="b")
    await world.write(DeleteNamespace() if ended else DeleteAll(), ns="b")
    await world.attach("b", pin, "dense", "n", last_begun=last)
    await flushed(world, builder)
    await world.check()
    assert refused(world, builder, "begun_since") == 1
    await world.attach("b", pin, "dense", "n", last_begun=last)
    await flushed(world, builder)
    await world.check()
    await world.write(upsert("mine again"), ns="b")
    await flushed(world, builder)
    await rebuild(world.parts(), world.log, DENSE, "b")
    await world.check()


@pytest.mark.parametrize("before", [False, True], ids=["new", "empty before"])
async def test_the_first_of_repeated_attaches_counts_and_a_rebuild_says_so_too(
    world: World, before: bool
) -> None:
    builder = await filled(world)
    await world.write(upsert("of an earlier life"), DeleteNamespace(), ns="b")
    if before:
        await world.write(CreateNamespace(), ns="b")
    last = await world.log.end_offset(0) - 1
    snapshot = await world.snapshots.take(
        "dense", "n", name="s", kind=SnapshotKind.SNAPSHOT, created_ms=1
    )
    _, pin = await world.branch("b", of=snapshot, last_begun=last)
    await world.write(upsert("later"), ns="b")
    await world.attach("b", pin, "dense", "n", last_begun=last)
    await flushed(world, builder)
    await world.check()
    assert (await manifest_of(world, "b")).attached == pin.id
    await rebuild(world.parts(), world.log, DENSE, "b")
    await world.check()


async def test_a_snapshot_that_is_not_there_or_not_ours_is_refused_and_later_writes_stay(
    world: World,
) -> None:
    builder = await filled(world)
    plain = await world.snapshots.take(
        "dense", "n", name="s", kind=SnapshotKind.SNAPSHOT, created_ms=1
    )
    others = await world.snapshots.take_again(plain, created_ms=1, holder=("dense", "other"))
    gone = await world.snapshots.take_again(plain, created_ms=1, holder=("dense", "b"))
    await world.snapshots.delete(gone)
    for pin in (plain, others, gone):
        await world.attach("b", pin, "dense", "n")
    await world.write(upsert("written after"), ns="b")
    await flushed(world, builder)
    await world.check()
    assert (refused(world, builder, "missing"), refused(world, builder, "not_held")) == (1, 2)


async def test_a_damaged_snapshot_pauses_the_namespace_until_it_is_put_back(world: World) -> None:
    world.settings = replace(world.settings, paused_retry_s=0.0)
    builder = await filled(world)
    _, pin = await world.branch("b")
    await world.write(upsert("later"), ns="b")
    key = snapshot_key(pin.home, pin.id)
    whole = await world.store.get(key)
    await world.store.put(key, whole[:-1] + bytes([whole[-1] ^ 1]))
    await world.feed_all(builder)
    await builder.flush()
    (part,) = builder.status().partitions
    assert any(key in ns.paused for ns in part.namespaces)
    await world.store.put(key, whole)
    await builder._jobs.flush(builder._owned[0], builder._owned[0].work("dense", "b"))
    await world.check()


async def test_replayed_twice_and_rebuilt_it_is_the_same(world: World) -> None:
    builder = await filled(world)
    await world.branch("b")
    await world.write(upsert("r1", "fresh"), DeleteIds(("r2",)), ns="b")
    await flushed(world, builder)
    before = await manifest_of(world, "b")
    await builder.revoke([0], lost=True)
    world.registry = type(world.registry)(LocalStore(Path(world.cache._copies._folder) / "empty"))
    again = await opened(world)  # from the beginning of the log
    await flushed(world, again)
    assert await manifest_of(world, "b") == before
    await world.write(UpdateById("r1", set_metadata={"n": 2.0}), ns="b")
    await rebuild(world.parts(), world.log, DENSE, "b", settings=world.settings)
    after = await manifest_of(world, "b")
    assert (after.generation, after.attached) == (before.generation, before.attached)
    await world.check()


async def test_a_rebuild_refuses_when_the_pin_is_gone(world: World) -> None:
    """It must not replace records by nothing; the live files are still right."""
    builder = await filled(world)
    _, pin = await world.branch("b")
    await world.write(upsert("more"), ns="b")
    await flushed(world, builder)
    await world.snapshots.delete(pin)
    with pytest.raises(LogMismatch, match=pin.id):
        await rebuild(world.parts(), world.log, DENSE, "b", settings=world.settings)
    await world.check()


@pytest.mark.parametrize("fold_bytes", [1 << 28, 12_000], ids=["one delta", "spilling"])
async def test_an_attach_amid_a_long_flush(world: World, fold_bytes: int) -> None:
    world.settings = replace(world.settings, fold_bytes=fold_bytes)
    builder = await filled(world)
    history = History(5)
    for _ in range(10):
        await world.write(upsert(*history.random.sample(history.ids, 20)), ns="b")
    await world.write(DeleteNamespace(), ns="b")
    await world.branch("b")
    for _ in range(10):
        await world.write(history.operation(DENSE), ns="b")
    await flushed(world, builder)
    await world.check()


async def test_the_cost_does_not_grow_with_the_source(tmp_path: Path) -> None:
    """Requests of pinning and of the flush that attaches, at two sizes."""
    costs = []
    for size in (30, 1500):
        store = CountingStore(LocalStore(tmp_path / str(size)))
        world = World(tmp_path / f"cache{size}", store=store)
        builder = await opened(world)
        for start in range(0, size, 30):
            await world.write(upsert(*(f"r{n}" for n in range(start, start + 30))))
        await flushed(world, builder)
        await builder.compact()
        before = store.counts()
        await world.branch("b")
        await flushed(world, builder)
        after = store.counts()
        await world.check()
        costs.append((after.gets - before.gets, after.puts - before.puts))
        await world.close()
    assert costs[0] == costs[1]
    assert costs[0] <= (16, 8)
