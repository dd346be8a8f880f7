"""Snapshots, branches and restores survive the failure of any one call to the object store.

At stake: a branch that shows half of its source, a pin that is missing under a branch, a restore
that cannot be repeated. `nth_failure.py` says how the trials go.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from builder.branching.branches import Branches, Place
from builder.branching.history import Moment
from builder.builder import IndexBuilder
from core.clock import SystemClock
from core.errors import AlreadyExists, FirnError
from core.operations import Attach, DeleteIds, DeleteNamespace, Entry
from core.records import StoredRecord
from ingest.writer import LogWriter, Written
from storage.references import keys_of
from storage.snapshots import SnapshotKind
from tests.builder.nth_failure import Story, run_nth
from tests.builder.world import DENSE, Life, World, content, upsert

SOURCE, TARGET = Place(DENSE, "n"), Place(DENSE, "b")
WAIT_S = 20.0
# In a row: the store is gone for good, and nothing will be indexed any more.
FAILURES_MAX = 3

Records = dict[str, StoredRecord]


class Telling(LogWriter):
    """What it writes becomes the truth. base: what an attach brings in, if not the source as it
    is.
    """

    def __init__(self, world: World, base: Records | None) -> None:
        super().__init__(world.log, SystemClock())
        self._truth = world.truth
        self._base = base
        self._tasks: list[asyncio.Task[Written]] = []

    async def write(
        self, index_id: str, namespace: str, entries: Sequence[Entry], *, owner: str = ""
    ) -> Written:
        """Told also if the caller is cancelled meanwhile: what is in the log is true."""
        self._tasks.append(asyncio.create_task(self._told(index_id, namespace, entries)))
        return await asyncio.shield(self._tasks[-1])

    async def close(self) -> None:
        await super().close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _told(self, index_id: str, namespace: str, entries: Sequence[Entry]) -> Written:
        written = await super().write(index_id, namespace, entries)
        life = self._truth.setdefault((index_id, namespace), Life())
        for entry in entries:
            operation = entry.operation
            if isinstance(operation, Attach):
                life.last_lsn = written.lsn
                if not life.records:
                    source = self._truth[operation.source_index, operation.source_namespace]
                    taken = source.records if self._base is None else self._base
                    life.exists, life.records = True, _as_of(taken, written.lsn)
            else:
                life.apply(written.lsn, operation)
        return written


def _as_of(records: Records, lsn: int) -> Records:
    return {name: StoredRecord(stored.record, lsn) for name, stored in records.items()}


def contents(life: Life) -> dict[str, object]:
    return {name: content(stored.record) for name, stored in life.records.items()}


async def beside(
    world: World,
    builder: IndexBuilder,
    act: Callable[[Branches], Coroutine[Any, Any, object]],
    base: Records | None = None,
) -> None:
    """While the builder works on. Whoever of the two dies takes the other one along."""

    async def work() -> None:
        failures = 0
        while True:
            try:
                await world.feed_all(builder)
                await builder.flush()
                failures = 0
            except FirnError:
                failures += 1
                if failures == FAILURES_MAX:
                    raise
            await asyncio.sleep(0.001)

    writer = Telling(world, base)
    tasks = [
        asyncio.create_task(work()),
        asyncio.create_task(act(Branches(world.parts(), writer, WAIT_S))),
    ]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await writer.close()
    for task in done:
        task.result()


async def some_files(world: World) -> IndexBuilder:
    builder = world.builder()
    await builder.assign(0)
    for seed, names in ((1.0, ("r1", "r2", "r3", "r4", "r5")), (2.0, ("r1", "r6"))):
        await world.write(upsert(*names, seed=seed))
        await world.feed_all(builder)
        await builder.flush()
    return builder


async def source(world: World) -> None:
    builder = await some_files(world)
    await world.write(upsert("late"), DeleteIds(("r3",)))
    await builder.revoke([0], lost=True)


async def snapshot(world: World, builder: IndexBuilder) -> None:
    async def act(branches: Branches) -> None:
        try:
            made = await branches.snapshot(SOURCE, "s")
        except AlreadyExists:
            made = await branches.find(SOURCE, "s")
        assert "late" in world.truth["dense", "n"].records
        assert made.record_count >= 6
        await branches.delete(made)
        await branches.snapshot(SOURCE, "t" + made.id[:8])

    await beside(world, builder, act)


async def branch(world: World, builder: IndexBuilder) -> None:
    async def act(branches: Branches) -> None:
        try:
            await branches.branch(SOURCE, TARGET)
        except AlreadyExists:
            assert world.truth["dense", "b"].records, "the entry of an earlier call"
        await world.write(upsert("on top"), ns="b")

    await beside(world, builder, act)


async def branch_of_branch(world: World) -> None:
    await source(world)
    builder = world.builder()
    await builder.assign(0)
    await world.feed_all(builder)
    await builder.flush()
    await world.branch("middle")
    await world.write(upsert("of the middle"), ns="middle")
    await world.feed_all(builder)
    await builder.flush()


async def branch_again(world: World, builder: IndexBuilder) -> None:
    async def act(branches: Branches) -> None:
        try:
            await branches.branch(Place(DENSE, "middle"), TARGET)
        except AlreadyExists:
            assert "of the middle" in world.truth["dense", "b"].records
        await world.write(upsert("on top"), ns="b")

    await beside(world, builder, act)


class PointInTime:
    """A snapshot, entries after it, and others after the moment."""

    def __init__(self) -> None:
        self._lsn = 0
        self._base: Records = {}
        self._expected: dict[str, object] = {}

    async def prepare(self, world: World) -> None:
        builder = await some_files(world)
        await world.snapshots.take(
            *("dense", "n"), name="s", kind=SnapshotKind.SNAPSHOT, created_ms=1
        )
        life = world.truth["dense", "n"]
        self._base = dict(life.records)
        await world.write(upsert("r1", "x", seed=5.0))
        self._lsn = await world.write(DeleteIds(("r2",)), upsert("y"))
        self._expected = contents(life)
        await world.write(DeleteIds(("x",)), upsert("z"))
        await world.feed_all(builder)
        await builder.flush()

    async def operate(self, world: World, builder: IndexBuilder) -> None:
        async def act(branches: Branches) -> None:
            life = world.truth.setdefault(TARGET.key, Life())
            if life.exists and contents(life) != self._expected:
                # As an operator does with what broke off.
                await world.write(DeleteNamespace(), ns="b")
            with suppress(AlreadyExists):
                await branches.restore(SOURCE, TARGET, moment=Moment(lsn=self._lsn))
            assert contents(life) == self._expected

        await beside(world, builder, act, self._base)


async def whole(world: World) -> None:
    """What a snapshot or branch names is there, under every prefix."""
    for index, ns in world.truth:
        manifest = await world.manifest(index, ns)
        if manifest is None:
            continue
        for one in await world.snapshots.list(Place(DENSE, ns).prefix):
            copied = await world.snapshots.manifest(one)
            for key in keys_of(copied, one.home):
                assert await world.store.stat(key) is not None, key


POINT = PointInTime()
STORIES = [
    Story("point in time", POINT.prepare, POINT.operate, whole),
    Story("branch of a branch", branch_of_branch, branch_again, whole),
    Story("snapshot", source, snapshot, whole),
    Story("branch", source, branch, whole),
]


# The first two do what the others do, and more.
@pytest.mark.parametrize("story", STORIES[:2], ids=lambda story: story.name)
async def test_some_call_fails(tmp_path: Path, story: Story) -> None:
    assert await run_nth(story, tmp_path, every=False) > 5


@pytest.mark.long
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
async def test_any_one_call_fails(
    tmp_path: Path, story: Story, record_property: Callable[[str, object], None]
) -> None:
    record_property("calls that failed", await run_nth(story, tmp_path, every=True))
