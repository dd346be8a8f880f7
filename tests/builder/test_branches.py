"""Snapshots, branches and restores as an operator asks for them, beside a builder at work.

At stake: a backup without the last acknowledged write, a restore that mixes two namespaces, a point
in time that is off by one entry.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from builder.branching.branches import Branches, Place
from builder.branching.history import Moment
from builder.builder import IndexBuilder
from core.clock import SystemClock
from core.errors import (
    AlreadyExists,
    CorruptData,
    DeadlineExceeded,
    FailedPrecondition,
    FirnError,
    InvalidRequest,
    NotFound,
)
from core.indexes import IndexInfo, IndexState
from core.log import Headers, LogRecord
from core.operations import DeleteAll, DeleteIds, DeleteNamespace
from core.records import StoredRecord
from ingest.writer import LogWriter
from storage.layout import snapshot_key
from storage.snapshots import SnapshotKind
from tests.builder.test_model import History
from tests.builder.world import COSINE, DENSE, Life, ListLog, World, content, upsert

WAIT_S = 20.0


class TimedLog(ListLog):
    """Record n was written at n seconds."""

    async def append(
        self, partition: int, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> int:
        offset = await super().append(partition, key, value, headers)
        last = self.records[-1]
        self.records[-1] = LogRecord(
            last.partition, last.offset, key, headers, value, 1000 * len(self.records)
        )
        return offset


class Office:
    """The operator's desk; a builder works in the background."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        self.world.log = TimedLog(3)
        self.writer = LogWriter(self.world.log, SystemClock())
        self.branches = Branches(self.world.parts(), self.writer, WAIT_S)
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> "Office":
        builder = self.world.builder()
        await builder.assign(0)
        self._task = asyncio.create_task(self._work(builder))
        return self

    async def _work(self, builder: IndexBuilder) -> None:
        while True:
            with suppress(FirnError):
                await self.world.feed_all(builder)
                await builder.flush()
            await asyncio.sleep(0.002)

    async def rest(self) -> None:
        """No builder any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def close(self) -> None:
        await self.rest()
        await self.writer.close()
        await self.world.close()

    def records(self, ns: str = "n", index: str = "dense") -> dict[str, object]:
        return {i: content(s.record) for i, s in self.world.truth[index, ns].records.items()}

    async def holds(
        self, expected: dict[str, object], ns: str = "b", info: IndexInfo = DENSE
    ) -> None:
        """As a restored namespace has LSNs of its own, they are taken from the files."""
        manifest = await self.world.manifest(info.index_id, ns)
        assert manifest is not None
        found: dict[str, StoredRecord] = await self.world.held(info.index_id, ns)
        assert {i: content(s.record) for i, s in found.items()} == expected
        assert manifest.record_count == len(expected)


def place(ns: str = "n", info: IndexInfo = DENSE) -> Place:
    return Place(info, ns)


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    made = await Office(tmp_path).begin()
    await made.world.write(upsert("a", "b", "c"))
    yield made
    await made.close()


async def test_a_snapshot_has_every_acknowledged_write(office: Office) -> None:
    lsn = await office.world.write(upsert("last"))
    made = await office.branches.snapshot(place(), "s")
    assert (made.record_count, made.indexed_lsn) == (4, lsn)
    assert await office.branches.snapshots(place()) == [made]
    assert await office.branches.find(place(), "s") == made
    assert await office.branches.find(place(), made.id) == made


async def test_without_a_builder_it_says_so_and_takes_none(office: Office) -> None:
    await office.branches.snapshot(place(), "first")
    await office.rest()
    await office.world.write(upsert("last"))
    hasty = Branches(office.world.parts(), office.writer, wait_s=0.0)
    with pytest.raises(DeadlineExceeded, match="firndb status"):
        await hasty.snapshot(place(), "s")
    assert len(await hasty.snapshots(place())) == 1


async def test_a_snapshot_is_restored_into_a_new_namespace(office: Office) -> None:
    made = await office.branches.snapshot(place(), "s")
    before = office.records()
    await office.world.write(upsert("a", "d", seed=2.0), DeleteIds(("b",)))
    done = await office.branches.restore(place(), place("b"), snapshot=made)
    assert (done.records, done.namespace, done.replayed) == (3, "b", 0)
    await office.holds(before)
    await office.branches.delete(made)
    assert await office.branches.snapshots(place()) == []
    with pytest.raises(NotFound, match="snapshot list"):
        await office.branches.find(place(), "s")
    await office.holds(before)


async def test_a_branch_has_what_was_acknowledged_before(office: Office) -> None:
    await office.world.write(upsert("last"))
    done = await office.branches.branch(place(), place("b"))
    await office.holds(office.records())
    assert done.records == 4
    (pin,) = await office.branches.held(place())
    assert (pin.holder_namespace, pin.id) == ("b", done.snapshot)
    assert await office.branches.snapshots(place()) == []


async def test_a_target_with_records_is_refused(office: Office) -> None:
    await office.world.write(upsert("mine"), ns="b")
    with pytest.raises(AlreadyExists, match="with 1 records"):
        await office.branches.branch(place(), place("b"))
    await office.world.write(DeleteAll(), ns="b")
    await office.branches.branch(place(), place("b"))
    with pytest.raises(AlreadyExists):
        await office.branches.branch(place(), place("b"))
    await office.world.write(DeleteNamespace(), ns="b")
    await office.branches.branch(place(), place("b"))
    await office.holds(office.records())


async def test_what_cannot_be(office: Office) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        await office.branches.branch(place("nowhere"), place("b"))
    with pytest.raises(NotFound):
        await office.branches.snapshot(place("nowhere"), "s")
    with pytest.raises(InvalidRequest, match="metric"):
        await office.branches.branch(place(), place("b", COSINE))
    with pytest.raises(InvalidRequest, match="128"):
        await office.branches.snapshot(place(), "x" * 129)
    with pytest.raises(InvalidRequest, match="say what"):
        await office.branches.restore(place(), place("b"))
    await office.branches.snapshot(place(), "s")
    with pytest.raises(AlreadyExists, match="s already"):
        await office.branches.snapshot(place(), "s")


@pytest.mark.parametrize("based", [False, True], ids=["from the beginning", "from a snapshot"])
async def test_a_point_in_time_brings_nothing_back_that_an_entry_of_the_source_did_not(
    office: Office, based: bool
) -> None:
    """Attaches that were repeated late, in the same life of the source and in the next one."""
    world = office.world
    await office.branches.snapshot(place(), "so all of it is in files")
    last = await world.log.end_offset(0) - 1
    _, pin = await world.branch("b", last_begun=last)
    taken = await office.branches.snapshot(place("b"), "s") if based else None
    await world.write(DeleteNamespace(), ns="b")
    await world.attach("b", pin, "dense", "n", last_begun=last)
    deleted = Moment(lsn=await world.log.end_offset(0) - 1)
    await world.write(upsert("mine"), DeleteIds(("mine",)), ns="b")
    emptied = Moment(lsn=await world.attach("b", pin, "dense", "n", last_begun=last))
    for name, moment in (("at deletion", deleted), ("at last", emptied)):
        target = place(name)
        await office.branches.restore(place("b"), target, snapshot=taken, moment=moment)
        found = await world.manifest("dense", name)
        assert found is not None
        assert (found.deleted, found.record_count) == (name == "at deletion", 0)


async def test_a_write_that_comes_first_wins(office: Office) -> None:
    """Between the look at the target and the entry somebody writes there: it is not lost."""

    class Late(LogWriter):
        async def write(self, index_id, namespace, entries, *, owner=""):  # type: ignore[no-untyped-def]
            await office.world.write(upsert("theirs"), ns="b")
            return await super().write(index_id, namespace, entries)

    late = Late(office.world.log, SystemClock())
    branches = Branches(office.world.parts(), late, WAIT_S)
    with pytest.raises(FailedPrecondition, match="meanwhile"):
        await branches.branch(place(), place("b"))
    await office.world.check_namespace("dense", "b")
    await late.close()


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.long) for n in range(1, 8))]
)
async def test_any_point_in_time_is_what_the_truth_was(tmp_path: Path, seed: int) -> None:
    """Every LSN, from the nearest snapshot or from the beginning; lives that end included."""
    office = await Office(tmp_path).begin()
    world, history = office.world, History(seed, ids=30)
    was: list[tuple[int, Life]] = []
    for number in range(14):
        if number == 9:
            await world.write(DeleteNamespace(), upsert("again"))
        lsn = await world.write(history.operation(DENSE), upsert(f"w{number}"))
        life = world.truth["dense", "n"]
        was.append((lsn, Life(life.exists, dict(life.records))))
        if number in (3, 11):
            await office.branches.snapshot(place(), f"s{number}")
        await world.write(upsert("noise"), ns="other")
    for number, (lsn, life) in enumerate(was):
        if not seed and number not in (0, 3, 4, 9, 10, 13):
            continue
        target = f"at{lsn}"
        done = await office.branches.restore(place(), place(target), moment=Moment(lsn=lsn))
        expected = {i: content(s.record) for i, s in life.records.items()}
        await office.holds(expected, target)
        assert done.replayed == number + 1 + (number >= 9) - (
            0 if number < 3 else 4 if number < 11 else 13
        )
    await office.close()


async def test_a_time_is_the_last_entry_that_is_not_later(office: Office) -> None:
    early = office.records()
    written = len(office.world.log.records)
    await office.world.write(upsert("second"))
    await office.world.write(upsert("third"))
    at = Moment(time_ms=1000 * written + 999)
    done = await office.branches.restore(place(), place("b"), moment=at)
    assert (done.replayed, done.snapshot) == (1, "")
    await office.holds(early)
    with pytest.raises(InvalidRequest, match="not there yet"):
        await office.branches.restore(place(), place("c"), moment=Moment(time_ms=1 << 50))


async def test_a_point_in_time_of_a_branch_begins_with_its_pin(office: Office) -> None:
    """Its log says only what was written since; the source may be gone by now."""
    await office.branches.branch(place(), place("b"))
    shared = office.records()
    lsn = await office.world.write(upsert("in b"), ns="b")
    await office.world.write(DeleteAll(), ns="b")
    await office.world.write(DeleteNamespace())
    done = await office.branches.restore(place("b"), place("c"), moment=Moment(lsn=lsn))
    assert done.replayed == 2
    extra = {"in b": content(upsert("in b").records[0])}
    await office.holds({**shared, **extra}, "c")
    assert {pin.holder_namespace for pin in await office.branches.held(place())} == {"b", "c"}


async def test_a_log_that_is_not_kept_so_far_back_is_said(office: Office) -> None:
    office.world.log.start = office.world.log.records[-1].offset + 3
    lsn = await office.world.write(upsert("later"))
    with pytest.raises(FailedPrecondition, match="kept from LSN"):
        await office.branches.restore(place(), place("b"), moment=Moment(lsn=lsn))
    with pytest.raises(InvalidRequest, match="is not in the log"):
        await office.branches.restore(place(), place("b"), moment=Moment(lsn=lsn + 100))
    made = await office.branches.snapshot(place(), "s")
    done = await office.branches.restore(place(), place("b"), moment=Moment(lsn=lsn))
    assert done.snapshot == made.id
    with pytest.raises(InvalidRequest, match="later than what is asked for"):
        await office.branches.restore(
            place(), place("c"), snapshot=made, moment=Moment(lsn=lsn - 3)
        )


async def test_another_index_of_the_same_schema(office: Office) -> None:
    twin = replace(DENSE, index_id="twin", name="twin")
    office.world.directory.indexes["twin"] = twin
    await office.branches.branch(place(), place("b", twin))
    await office.holds(office.records(), "b", twin)


async def test_a_deleted_index_keeps_its_snapshots_and_nothing_else(office: Office) -> None:
    twin = replace(DENSE, index_id="twin", name="twin")
    directory = office.world.directory
    directory.indexes["twin"] = twin
    made = await office.branches.snapshot(place(), "s")
    gone = replace(DENSE, state=IndexState.DELETED)
    directory.indexes["dense"] = gone
    for refused in (
        office.branches.snapshot(place(info=gone), "t"),
        office.branches.branch(place(info=gone), place("b", twin)),
    ):
        with pytest.raises(NotFound, match="is deleted"):
            await refused
    lsn = made.indexed_lsn
    await office.world.write(upsert("late"))
    source, target = place(info=gone), place("b", twin)
    with pytest.raises(FailedPrecondition, match="without a point in time"):
        await office.branches.restore(source, place("c", twin), moment=Moment(lsn=lsn + 3))
    await office.branches.restore(source, target, snapshot=made)
    assert len(await office.world.held("twin", "b")) == made.record_count


async def test_a_damaged_snapshot_is_named(office: Office) -> None:
    made = await office.branches.snapshot(place(), "s")
    await office.world.store.put(snapshot_key(made.home, made.id), b"FIRNSNP1 but not whole")
    with pytest.raises(CorruptData, match=made.id):
        await office.branches.snapshots(place())
    assert made.kind is SnapshotKind.SNAPSHOT
