"""Garbage collection beside snapshots and branches: what they name stays, and goes with them.

At stake: a branch that loses its records because its source went on, was deleted, or its whole
index was; and bytes that nobody can ever read again.
"""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from builder.garbage.pins import UNUSED_MS, Holder, releasable
from builder.garbage.plan import Grace
from builder.rebuild import rebuild
from core.indexes import IndexState
from core.operations import DeleteIds, DeleteNamespace
from core.records import StoredRecord
from storage.layout import namespace_prefix
from storage.manifest import Manifest
from storage.references import keys_of
from storage.snapshots import SnapshotKind
from tests.builder.world import DENSE, Life, upsert
from tests.builder.yard import GRACE_S, Yard
from tests.storage.samples import sample_manifest

DAY_S = 24 * 3600
GRACE = Grace(ms=GRACE_S * 1000)


@pytest.fixture
async def yard(tmp_path: Path) -> AsyncIterator[Yard]:
    made = await Yard(tmp_path).begin()
    await made.world.write(upsert(*(f"r{n}" for n in range(60))))
    await made.flush()
    await made.builder.compact()
    yield made
    await made.world.close()


async def churn(yard: Yard) -> None:
    """Every file of the source is replaced."""
    await yard.world.write(upsert(*(f"r{n}" for n in range(60)), seed=2.0))
    await yard.flush()
    await yard.builder.compact()


async def test_a_branch_outlives_its_source_and_then_everything_goes(yard: Yard) -> None:
    await yard.world.branch("b")
    await yard.flush()
    await churn(yard)
    await yard.world.write(DeleteNamespace())
    await yard.flush()
    await yard.to_rest_but_pins()
    await yard.world.check()
    assert yard.count("snapshots") == 1
    await rebuild(yard.world.parts(), yard.world.log, DENSE, "b", settings=yard.world.settings)
    await yard.world.check()
    await yard.world.write(DeleteNamespace(), ns="b")
    await yard.flush()
    await yard.collect()
    assert yard.count("snapshots") == 1, "a reader may still have the branch's manifest"
    await yard.to_rest()
    assert yard.count("snapshots") == yard.count("clusters") == yard.count("deltas") == 0
    await yard.nothing_needless()
    await yard.nothing_needless("b")


async def test_a_snapshot_keeps_its_files_until_it_is_deleted(yard: Yard) -> None:
    prefix = namespace_prefix("dense", "n")
    named = {key.removeprefix(prefix) for key in keys_of(await yard.newest(), prefix)}
    snapshot = await yard.world.snapshots.take(
        "dense", "n", name="s", kind=SnapshotKind.SNAPSHOT, created_ms=1
    )
    held = dict(yard.world.truth["dense", "n"].records)
    await churn(yard)
    await yard.to_rest()
    assert named <= set(yard.names())
    yard.world.truth["dense", "n"].records, newest = held, yard.world.truth["dense", "n"].records
    await yard.world.branch("b", of=snapshot)
    yard.world.truth["dense", "n"].records = newest
    await yard.flush()
    await yard.world.snapshots.delete(snapshot)
    await yard.to_rest_but_pins()
    await yard.world.check()
    assert named <= set(yard.names())
    await yard.world.write(DeleteNamespace(), ns="b")
    await yard.flush()
    await yard.to_rest()
    assert named.isdisjoint(yard.names())


async def test_a_branch_in_another_index_outlives_the_index_of_its_source(yard: Yard) -> None:
    directory = yard.world.directory
    directory.indexes["twin"] = replace(DENSE, index_id="twin")
    await yard.world.branch("b", to_index="twin")
    await yard.flush()
    directory.indexes["dense"] = replace(DENSE, state=IndexState.DELETED)
    await yard.to_rest_but_pins()
    assert yard.count("manifests") == 0, "what the branch does not need went"
    await yard.world.check_namespace("twin", "b")
    directory.indexes["twin"] = replace(DENSE, index_id="twin", state=IndexState.DELETED)
    for _ in range(6):
        yard.pass_time()
        await yard.collect()
    assert yard.names() == []


async def test_a_branch_of_a_branch_needs_neither(yard: Yard) -> None:
    await yard.world.branch("b")
    await yard.world.write(upsert("of b"), ns="b")
    await yard.flush()
    await yard.world.branch("c", ns="b")
    await yard.flush()
    await churn(yard)
    for ns in ("b", "n"):
        await yard.world.write(DeleteNamespace(), ns=ns)
        await yard.flush()
        await yard.to_rest_but_pins()
        await yard.world.check()
    await yard.world.write(DeleteNamespace(), ns="c")
    await yard.flush()
    await yard.to_rest()
    assert yard.count("snapshots") == yard.count("clusters") == 0
    assert not [name for name in yard.names("b") if name.startswith(("deltas/", "snapshots/"))]


async def test_an_entry_that_waits_for_days_still_finds_its_files(yard: Yard) -> None:
    """The builder of the target's partition may be away."""
    world = yard.world
    pin = await world.snapshots.take(
        *("dense", "n"), name="", kind=SnapshotKind.BRANCH, created_ms=1, holder=("dense", "b")
    )
    held = dict(world.truth["dense", "n"].records)
    await churn(yard)
    for _ in range(6):
        yard.pass_time(DAY_S)
        await yard.collect()
    lsn = await world.attach("b", pin, "dense", "n")
    records = {name: StoredRecord(stored.record, lsn) for name, stored in held.items()}
    world.truth["dense", "b"] = Life(True, records, lsn)
    await yard.flush()
    await world.check()


async def test_a_pin_that_nothing_was_made_of_goes_after_a_week(yard: Yard) -> None:
    await yard.world.snapshots.take(
        *("dense", "n"), name="", kind=SnapshotKind.BRANCH, created_ms=1, holder=("dense", "never")
    )
    await yard.world.write(DeleteIds(("r1",)))
    await yard.flush()
    yard.pass_time(UNUSED_MS / 1000 - GRACE_S)
    await yard.collect()
    assert yard.count("snapshots") == 1
    yard.pass_time()
    await yard.collect()
    assert yard.count("snapshots") == 0


def test_when_a_pin_is_over() -> None:
    """Whatever is not known for sure keeps it."""

    def of(attached: str, *, deleted: bool = False) -> Manifest:
        return msgspec.structs.replace(sample_manifest(1), attached=attached, deleted=deleted)

    young, old = GRACE.ms, UNUSED_MS + 1
    assert not releasable("p", Holder(False), old - 1, GRACE)
    assert releasable("p", Holder(False), old, GRACE)
    assert not releasable("p", Holder(False, (of("p"),)), old, GRACE)
    assert releasable("p", Holder(False, (of("p", deleted=True),)), young, GRACE)
    ended = (of("p", deleted=True), of("p"))
    assert not releasable("p", Holder(False, ended), old, GRACE), "a reader may have the older one"
    assert not releasable("p", Holder(False, (of("q"), of("p"))), old, GRACE)
    assert releasable("p", Holder(False, (of("q"), of("p", deleted=True))), young, GRACE)
    assert not releasable("p", Holder(False, (of("q"),)), young, GRACE)
    assert releasable("p", Holder(False, (of("q"),)), old, GRACE)
    assert releasable("p", Holder(True), young + 1, GRACE)
    assert not releasable("p", Holder(True), young, GRACE)
