"""Backups of an index, restores into another one and their removal: what comes out is exact, also
where any one call to the object store fails, and nothing is left behind.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from weakref import WeakKeyDictionary

import msgspec
import pytest

from builder.backups.removing import remove_backup
from builder.backups.restoring import RestoreProgress, Restoring
from builder.backups.taking import Taking, snapshot_name
from builder.branching.branches import Branches, Place, pin_id
from builder.builder import IndexBuilder
from core.errors import CorruptData, FailedPrecondition, NotFound, Unavailable
from core.indexes import IndexState
from core.operations import CreateNamespace, DeleteAll, DeleteNamespace
from ingest.writer import LogWriter
from storage.layout import backup_list_key, backup_part_key, namespace_prefix
from storage.snapshot_lists import SnapshotList, SnapshotLists
from storage.snapshots import SnapshotKind
from tests.builder.nth_failure import Story, run_nth
from tests.builder.test_nth_snapshots import beside, branch_of_branch
from tests.builder.world import DENSE, RESTORED, ListLog, World, upsert

BACKUP, JOB = "b" * 32, "a" * 32
CREATED_MS = 1_000
NAMES = [f"n{number}" for number in range(7)]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven namespaces are three parts."""
    monkeypatch.setattr("builder.backups.taking.PART_MAX", 3)


def ignore() -> None: ...


async def ignored(progress: RestoreProgress) -> None: ...


async def take(world: World, branches: Branches, backup_id: str = BACKUP) -> SnapshotList:
    return await Taking(world.parts(), branches, backup_id, DENSE, ignore).run()


async def restore(world: World, branches: Branches, parts_done: int = 0) -> list[RestoreProgress]:
    told: list[RestoreProgress] = []

    async def tell(progress: RestoreProgress) -> None:
        told.append(progress)

    restoring = Restoring(world.parts(), branches, JOB, CREATED_MS, RESTORED)
    await restoring.run(BACKUP, parts_done, tell)
    return told


async def left(world: World) -> list[str]:
    """Objects of backups that are still there."""
    keys = [info.key async for info in world.store.list("backups/")]
    for index, ns in world.truth:
        found = await world.snapshots.list(namespace_prefix(index, ns))
        keys += [one.name for one in found if one.kind is SnapshotKind.SNAPSHOT]
    return keys


# Any one call fails


async def filled(world: World) -> None:
    """Files, a namespace that shares another one's, a small one, an empty one."""
    await branch_of_branch(world)
    builder = world.builder()
    await builder.assign(0)
    await world.write(upsert("r1", "r2"), ns="small")
    await world.write(CreateNamespace(), ns="void")
    await world.feed_all(builder)
    await builder.flush()


# Of each trial's log: how many backups somebody has begun to remove. None of them is taken again.
REMOVED: WeakKeyDictionary[ListLog, int] = WeakKeyDictionary()


async def everything(world: World, builder: IndexBuilder) -> None:
    async def act(branches: Branches) -> None:
        number = REMOVED.get(world.log, 0)
        for earlier in range(number):
            await remove_backup(world.parts(), f"{earlier:032x}", "dense")
        backup_id = f"{number:032x}"
        whole = await take(world, branches, backup_id)
        assert whole.namespaces == 4
        restoring = Restoring(world.parts(), branches, JOB, CREATED_MS, RESTORED)
        await restoring.run(backup_id, 0, ignored)
        for ns in ("n", "middle", "small", "void"):
            held, source = await world.held("restored", ns), world.truth["dense", ns]
            assert held.keys() == source.records.keys(), ns
        REMOVED[world.log] = number + 1
        await remove_backup(world.parts(), backup_id, "dense")
        assert await left(world) == []

    await beside(world, builder, act)


STORY = Story("backup, restore, removal", filled, everything)


async def test_some_call_fails(tmp_path: Path) -> None:
    assert await run_nth(STORY, tmp_path, every=False) > 5


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_any_one_call_fails(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("calls that failed", await run_nth(STORY, tmp_path, every=True))


# One by one


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    for name in NAMES:
        await world.write(upsert("r1", "r2", name), ns=name)
    yield world
    await world.close()


class Beside:
    """A builder at work, and branches beside it, until the block ends."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def __aenter__(self) -> Branches:
        self._builder = self._world.builder()
        await self._builder.assign(0)
        self._task = asyncio.create_task(self._work())
        self._writer = LogWriter(self._world.log, self._world.clock)
        return Branches(self._world.parts(), self._writer, 20.0)

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._writer.close()
        await self._builder.revoke([0], lost=True)

    async def _work(self) -> None:
        while True:
            await self._world.feed_all(self._builder)
            await self._builder.flush()
            await asyncio.sleep(0.001)


async def restored_alike(world: World, names: list[str]) -> None:
    for name in names:
        held = await world.held("restored", name)
        assert held.keys() == world.truth["dense", name].records.keys()


async def test_what_is_acknowledged_before_is_in_it_and_what_follows_is_not(world: World) -> None:
    async with Beside(world) as branches:
        await world.write(upsert("late"), ns=NAMES[0])
        await world.write(DeleteNamespace(), ns=NAMES[1])
        whole = await take(world, branches)
        assert (whole.namespaces, len(whole.parts)) == (6, 2)
        living = [name for name in NAMES if name != NAMES[1]]
        records = {name: dict(world.truth["dense", name].records) for name in living}
        assert whole.records == sum(map(len, records.values()))
        await world.write(upsert("after"), ns=NAMES[0])
        await world.write(DeleteNamespace(), ns=NAMES[2])
        told = await restore(world, branches)
        assert [(one.parts, one.namespaces, one.total) for one in told] == [(1, 3, 6), (2, 6, 6)]
        for name in living:
            held = await world.held("restored", name)
            assert held.keys() == records[name].keys()
        assert await world.manifest("restored", NAMES[1]) is None


async def test_a_deleted_index_comes_back(world: World) -> None:
    async with Beside(world) as branches:
        await take(world, branches)
        world.directory.indexes["dense"] = replace(DENSE, state=IndexState.DELETED)
        with pytest.raises(NotFound):
            await take(world, branches, "c" * 32)
        await restore(world, branches)
        await restored_alike(world, NAMES)


async def test_an_heir_goes_on_behind_the_last_part(world: World) -> None:
    async with Beside(world) as branches:
        lists = SnapshotLists(world.store)
        whole = await take(world, branches)
        # As it was when a process died with one part put, and with snapshots of the next one.
        await world.store.delete(backup_list_key(BACKUP))
        await world.store.delete(backup_part_key(BACKUP, 3))
        await world.store.delete(backup_part_key(BACKUP, 2))
        before = {part.number: digest async for part, digest in lists.parts(BACKUP)}
        again = await take(world, branches)
        assert again.parts[0] == whole.parts[0] == before[1]
        assert (again.namespaces, again.records) == (whole.namespaces, whole.records)
        for name in NAMES:
            found = await world.snapshots.list(namespace_prefix("dense", name))
            assert [one.name for one in found] == [snapshot_name(BACKUP)], "none is taken twice"
        assert await take(world, branches) == again
        await restore(world, branches, parts_done=2)
        assert await world.manifest("restored", NAMES[0]) is None
        await restore(world, branches)
        await restored_alike(world, NAMES)
        await remove_backup(world.parts(), BACKUP, "dense")
        assert await left(world) == []


async def test_two_at_once_leave_nothing_behind(world: World) -> None:
    """A process that lost its lease and does not know it yet."""
    async with Beside(world) as branches:
        both = await asyncio.gather(
            take(world, branches), take(world, branches), return_exceptions=True
        )
        assert any(isinstance(one, SnapshotList) for one in both)
        assert all(isinstance(one, SnapshotList | Unavailable) for one in both)
        whole = await take(world, branches)
        assert whole.namespaces == len(NAMES)
        await restore(world, branches)
        await restored_alike(world, NAMES)
        await remove_backup(world.parts(), BACKUP, "dense")
        assert await left(world) == []


async def test_a_restore_is_repeated_without_harm(world: World) -> None:
    async with Beside(world) as branches:
        await take(world, branches)
        await restore(world, branches)
        entries = len(world.log.records)
        await restore(world, branches)
        assert len(world.log.records) == entries, "all of it was there"
        # As if the entry had been written by a process that died before it was indexed.
        parts = [part async for part, _ in SnapshotLists(world.store).parts(BACKUP)]
        first = parts[0].snapshots[0]
        home = namespace_prefix("dense", first.namespace)
        snapshot = await world.snapshots.read(home, first.snapshot_id)
        assert snapshot is not None
        pin = await world.snapshots.take_again(
            snapshot,
            created_ms=CREATED_MS,
            holder=("restored", first.namespace),
            pin_id=pin_id(JOB, first.namespace),
        )
        lsn = await world.attach(first.namespace, pin, "dense", first.namespace, "restored")
        await restore(world, branches)
        await branches.everything_indexed()
        manifest = await world.manifest("restored", first.namespace)
        assert manifest is not None
        assert manifest.indexed_lsn == lsn
        await restored_alike(world, NAMES)


async def test_a_slow_restore_takes_nothing_from_the_index_once_the_backup_is_gone(
    world: World,
) -> None:
    """Its lease ran out, its heir was done, the backup was deleted; then it goes on."""
    async with Beside(world) as branches:
        await take(world, branches)
        (taken,) = await world.snapshots.list(namespace_prefix("dense", NAMES[0]))
        await restore(world, branches)
        await remove_backup(world.parts(), BACKUP, "dense")
        pin, target = pin_id(JOB, NAMES[0]), Place(RESTORED, NAMES[0])
        with pytest.raises(NotFound):
            await branches.begin(taken, target, pin_id=pin, made_ms=CREATED_MS)
        assert await world.snapshots.read(taken.home, pin) is not None, "its files are in use"


@pytest.mark.parametrize("end", [DeleteAll(), DeleteNamespace()], ids=["emptied", "deleted"])
async def test_a_slow_restore_brings_nothing_back_that_a_client_deleted(
    world: World, end: DeleteAll | DeleteNamespace
) -> None:
    """As above, but the backup is there, and the namespace has had a second life."""
    async with Beside(world) as branches:
        await take(world, branches)
        await restore(world, branches)
        name = NAMES[0]
        await world.write(DeleteNamespace(), upsert("mine"), end, index="restored", ns=name)
        await branches.everything_indexed()
        with pytest.raises(FailedPrecondition, match="somebody else"):
            await restore(world, branches)
        await branches.everything_indexed()
        assert await world.held("restored", name) == {}
        await restored_alike(world, NAMES[1:])


async def test_what_somebody_else_wrote_is_not_mixed_with_a_restore(world: World) -> None:
    async with Beside(world) as branches:
        await take(world, branches)
        await world.write(upsert("foreign"), index="restored", ns=NAMES[3])
        with pytest.raises(FailedPrecondition, match="somebody else"):
            await restore(world, branches)
        assert (await world.held("restored", NAMES[3])).keys() == {"foreign"}


async def test_a_damaged_list_restores_nothing_and_can_be_removed(world: World) -> None:
    async with Beside(world) as branches:
        await take(world, branches)
        key = backup_part_key(BACKUP, 2)
        data = bytearray(await world.store.get(key))
        data[-1] ^= 1
        await world.store.delete(key)
        await world.store.put(key, bytes(data))
        with pytest.raises(CorruptData, match="part"):
            await restore(world, branches)
        await remove_backup(world.parts(), BACKUP, "dense")
        assert await left(world) == []
        with pytest.raises(CorruptData, match="no list"):
            await restore(world, branches)


async def test_a_snapshot_that_an_operator_deleted_is_named(world: World) -> None:
    async with Beside(world) as branches:
        await take(world, branches)
        (one,) = await world.snapshots.list(namespace_prefix("dense", NAMES[4]))
        await world.snapshots.delete(one)
        with pytest.raises(CorruptData, match=NAMES[4]):
            await restore(world, branches)


async def test_a_held_namespace_is_not_left_out_in_silence(world: World) -> None:
    async with Beside(world) as branches:
        await branches.everything_indexed()
        state = await world.registry.newest(0)
        assert state is not None
        summary = await world.registry.get(state, ("dense", NAMES[5]))
        assert summary is not None
    held = {("dense", NAMES[5]): msgspec.structs.replace(summary, held_from=1)}
    changed = await world.registry.changed(state, held, state.checkpoint)
    await world.registry.commit(changed)
    branches = Branches(world.parts(), LogWriter(world.log, world.clock), 20.0)
    with pytest.raises(FailedPrecondition, match=NAMES[5]):
        await take(world, branches)
