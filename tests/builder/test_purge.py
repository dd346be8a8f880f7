"""A purge leaves no deleted record in any object, and says where it could not.

At stake: a promise to a person whose data is to be gone. Garbage collection alone would keep it for
an hour, files with few dead rows for ever.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from builder.garbage.beside import Beside
from builder.garbage.purge import Purge, Purged
from core.errors import DeadlineExceeded, FirnError, NotFound
from core.operations import DeleteAll, DeleteIds, DeleteNamespace
from ingest.writer import LogWriter
from storage.commit import ManifestStore
from storage.layout import namespace_prefix, pack_keys
from storage.sections import Limits
from storage.snapshots import SnapshotKind, SnapshotStore
from tests.builder.world import DENSE, record, upsert
from tests.builder.yard import Yard

IDS = [f"somebody-{number:03}" for number in range(120)]


class Desk:
    """Purges beside a builder that goes on by itself."""

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self.writer = LogWriter(yard.world.log, yard.clock)
        self._task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        while True:
            with suppress(FirnError):
                await self.yard.flush()
            await asyncio.sleep(0.002)

    async def purge(self, *ids: str, ns: str = "n") -> Purged:
        beside = Beside(self.yard.world.parts(), DENSE, ns, self.yard.world.settings)
        purged = await Purge(beside, self.writer, lambda *_: None).run(ids)
        if ids:
            life = self.yard.world.truth["dense", ns]
            life.apply(self.yard.world.log.records[-1].offset, DeleteIds(ids))
        return purged

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.writer.close()
        await self.yard.world.close()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made = Desk(await Yard(tmp_path).begin())
    yield made
    await made.close()


async def filled(yard: Yard, *, clustered: bool) -> None:
    for start in range(0, 120, 40):
        await yard.world.write(upsert(*IDS[start : start + 40]))
        await yard.flush()
    if clustered:
        await yard.builder.compact()
        await yard.world.write(upsert(*IDS[:10], seed=2.0))
        await yard.flush()


def traces(yard: Yard, name: str, *seeds: float, ns: str = "n") -> list[str]:
    """Objects below the namespace's prefix with the bytes of the id or of one of its vectors."""
    raw = [name.encode()]
    for seed in seeds:
        values = record(name, seed).values
        assert values is not None
        raw.append(values.tobytes())
    prefix = namespace_prefix("dense", ns)
    objects = yard.store.objects.items()
    return [k for k, data in objects if k.startswith(prefix) and any(r in data for r in raw)]


@pytest.mark.parametrize("clustered", [False, True])
async def test_nothing_of_a_deleted_record_is_left(desk: Desk, clustered: bool) -> None:
    yard = desk.yard
    await filled(yard, clustered=clustered)
    gone = IDS[3]
    assert traces(yard, gone, 1.0, 2.0)
    await yard.world.write(DeleteIds((gone, IDS[77])))
    await yard.flush()
    assert traces(yard, gone, 1.0, 2.0), "it is only marked dead"
    purged = await desk.purge()
    assert (purged.left, purged.holding) == ((), ())
    assert purged.rewritten > 0
    assert purged.deleted_objects > 0
    assert purged.scanned_objects >= 3
    assert not traces(yard, gone, 1.0, 2.0)
    await yard.world.check()
    again = await desk.purge()
    assert (again.left, again.rewritten) == ((), 0)


async def test_sections_and_their_packs_are_made_anew(desk: Desk) -> None:
    """Packs are named by nobody: those of now are no finding, those of before go."""
    yard = desk.yard
    limits = Limits(flat_bytes=2_000, root_bytes=1_000, section_bytes=2_000)
    yard.world.manifests = ManifestStore(yard.store, limits=limits)
    yard.builder = yard.world.builder()
    await yard.builder.assign(0)
    await filled(yard, clustered=True)
    packs = pack_keys(namespace_prefix("dense", "n"))
    assert (await yard.newest()).sections
    purged = await desk.purge(IDS[5])
    assert (await yard.newest()).sections
    assert purged.left == ()
    assert packs <= yard.store.objects.keys()
    left_behind = {key: yard.store.objects[key] for key in packs}
    await desk.purge(*IDS)
    assert not (await yard.newest()).sections
    yard.store.objects |= left_behind  # by a crash just before they were deleted
    purged = await desk.purge()
    assert purged.left == ()
    assert not packs & yard.store.objects.keys()
    await yard.world.check()


async def test_what_was_just_written_is_known_and_what_never_was_is_told(desk: Desk) -> None:
    """A mistyped name must not look like a namespace that is clean by now."""
    yard = desk.yard
    await yard.world.write(upsert(*IDS[:20]))
    purged = await desk.purge(IDS[5])
    assert purged.left == ()
    assert purged.version > 0
    entries = len(yard.world.log.records)
    with pytest.raises(NotFound, match="'m'"):
        await desk.purge(ns="m")
    beside = Beside(yard.world.parts(), DENSE, "m", yard.world.settings)
    with pytest.raises(NotFound, match="'m'"):
        await Purge(beside, desk.writer, lambda *_: None).run([IDS[5]])
    assert len(yard.world.log.records) == entries, "nothing is written for it"
    await yard.world.check()


async def test_with_ids_they_are_deleted_first_and_the_log_is_asked(desk: Desk) -> None:
    yard = desk.yard
    await filled(yard, clustered=True)
    purged = await desk.purge(IDS[5], IDS[100], "nobody")
    assert (purged.left, purged.holding) == ((), ())
    assert not traces(yard, IDS[5], 1.0, 2.0)
    assert purged.log.records == 3, "two batches and the second version of one"
    assert purged.log.first_lsn == yard.world.log.records[0].offset
    assert purged.log.last_lsn == yard.world.log.records[3].offset
    await yard.world.check()


async def test_of_a_deleted_namespace_nothing_is_left(desk: Desk) -> None:
    yard = desk.yard
    await filled(yard, clustered=True)
    await yard.world.write(DeleteNamespace())
    await yard.flush()
    purged = await desk.purge()
    assert (purged.left, purged.holding) == ((), ())
    assert not any(traces(yard, name, 1.0) for name in IDS[::10])
    assert purged.log.records == 5
    await yard.world.check()


async def test_a_snapshot_holds_what_it_holds_and_is_not_broken(desk: Desk) -> None:
    yard = desk.yard
    await filled(yard, clustered=True)
    snapshots = SnapshotStore(yard.store, yard.world.manifests)
    backup = await snapshots.take(
        "dense", "n", name="backup", kind=SnapshotKind.SNAPSHOT, created_ms=0
    )
    purged = await desk.purge(IDS[5])
    assert purged.holding == ("backup",)
    manifest = await snapshots.manifest(backup)
    prefix = namespace_prefix("dense", "n")
    assert all(prefix + file.columns.name in yard.store.objects for file in manifest.files)
    await snapshots.delete(backup)
    purged = await desk.purge()
    assert (purged.left, purged.holding) == ((), ())
    assert not traces(yard, IDS[5], 1.0, 2.0)


async def test_what_is_written_again_is_no_trace(desk: Desk) -> None:
    yard = desk.yard
    await filled(yard, clustered=False)
    await yard.world.write(DeleteAll())
    await yard.world.write(upsert(IDS[5], seed=3.0))
    await yard.flush()
    purged = await desk.purge()
    assert purged.left == ()
    assert not traces(yard, IDS[6], 1.0)
    assert traces(yard, IDS[5])
    await yard.world.check()


async def test_an_object_that_should_not_be_there_is_reported(desk: Desk) -> None:
    """A sleeper's put arrives in the middle: the report must not say that all is well."""
    yard = desk.yard
    await filled(yard, clustered=False)
    beside = Beside(yard.world.parts(), DENSE, "n", yard.world.settings)
    late = namespace_prefix("dense", "n") + "deltas/late.arrow"

    def put_late(step: str, *_: int) -> None:
        if step == "scanning objects":
            yard.store.objects[late] = IDS[5].encode()

    purged = await Purge(beside, desk.writer, put_late).run([IDS[5]])
    assert {one.key for one in purged.left} == {late}


async def test_without_a_builder_it_ends_with_advice(tmp_path: Path) -> None:
    yard = await Yard(tmp_path).begin()
    await filled(yard, clustered=False)
    await yard.world.write(DeleteIds((IDS[0],)))
    writer = LogWriter(yard.world.log, yard.clock)
    beside = Beside(yard.world.parts(), DENSE, "n", yard.world.settings)
    with pytest.raises(DeadlineExceeded, match="index builder"):
        await Purge(beside, writer, lambda *_: None, wait_s=0.0).run()
    await writer.close()
    await yard.world.close()
