"""Imports that are gone on with late, or by two at a time, after a client has deleted what they
brought; and what a worker writes that does not know yet that the import is over.

At stake: an acknowledged deletion that is undone; files that nobody will ever delete.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from builder.branching.branches import Branches, Restored
from builder.branching.branches import Place as BranchPlace
from builder.importing.importer import Importer, ImportParts
from builder.importing.staging import Staging
from builder.importing.worker import ImportWorker
from core.errors import Unavailable
from core.indexes import staging_namespace
from core.operations import CreateNamespace, DeleteAll, DeleteNamespace, NamespaceWrite, Operation
from infra.catalog.imports import Import, ImportState, ImportStore, Progress
from infra.catalog.leases import Leases
from infra.imports.source import LocalSource, SourceFile
from tests.builder.test_importing import Place, Stopping, running

# How a client ends what an import brought.
ENDS: dict[str, tuple[Operation, ...]] = {
    "deleted": (DeleteNamespace(),),
    "emptied": (DeleteAll(),),
    "made anew": (DeleteNamespace(), CreateNamespace()),
    "made anew and deleted": (DeleteNamespace(), CreateNamespace(), DeleteNamespace()),
}


class Dying(ImportStore):
    """Goes away before it says that the import has ended."""

    async def finish(
        self, import_id: str, state: ImportState, progress: Progress, error: str = ""
    ) -> bool:
        raise Unavailable("the catalog is away")


async def write(place: Place, namespace: str, *operations: Operation) -> None:
    for operation in operations:
        await place.engine.writes.write(place.info, namespace, (operation,), request_id="")
    await place.indexed()


async def died_attaching(place: Place) -> Import:
    """Attached to a, not to b; nobody was told."""
    place.put("a/0.parquet", 0, 50)
    place.put("b/0.parquet", 0, 60)
    work = await place.asked()
    real = Branches.attach

    async def attach(self: Branches, target: BranchPlace, *rest: object) -> Restored:
        if target.namespace == "b":
            raise Unavailable("the log is away")
        return await real(self, target, *rest)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Branches, "attach", attach)
        with pytest.raises(Unavailable):
            await place.run(work)
    assert await place.counts() == {"a": 50}
    left = await place.imports.get(work.index_id, work.import_id)
    assert (left.attaching, left.finished) == (True, False)
    return left


# How it ended, whether the namespace was there before, whether the pins were collected since.
CASES = [(end, before, collected) for end in ENDS for before in (0, 1) for collected in (0, 1)]
SHORT = [("deleted", 0, 1), ("deleted", 1, 1), ("emptied", 0, 1), ("made anew and deleted", 1, 0)]


@pytest.mark.parametrize(
    ("end", "before", "collected"),
    [case if case in SHORT else pytest.param(*case, marks=pytest.mark.long) for case in CASES],
)
async def test_what_was_deleted_since_stays_deleted(
    tmp_path: Path, end: str, before: bool, collected: bool
) -> None:
    """The worker that died had attached it; the rest of the import is attached by the next one."""
    async with running(tmp_path) as place:
        if before:
            await write(place, "a", CreateNamespace())
        work = await died_attaching(place)
        await write(place, "a", *ENDS[end])
        if collected:
            branches = Branches(place.parts.builder, place.parts.writer)
            staging = BranchPlace(place.info, staging_namespace(work.import_id, 0))
            for pin in await branches.held(staging):
                await branches.delete(pin)
        ended = await place.run(work)
        assert ended.finished
        await place.indexed()
        counts = await place.counts()
        assert (counts.get("a", 0), counts["b"]) == (0, 60)
        if not end.startswith("made anew"):
            assert ended.state is ImportState.COMPLETED
        else:
            assert "was created while the import was attached" in ended.error


async def test_a_worker_that_slept_before_it_attached_brings_nothing_back(tmp_path: Path) -> None:
    """It saw an empty namespace; then another one had the import, and a client its way."""
    async with running(tmp_path) as place:
        place.put("a/0.parquet", 0, 50)
        work = await place.asked()
        slept, awake = asyncio.Event(), asyncio.Event()
        real = Branches.attach

        async def attach(self: Branches, *rest: object) -> Restored:
            if not slept.is_set():
                slept.set()
                await awake.wait()
            return await real(self, *rest)  # type: ignore[arg-type]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Branches, "attach", attach)
            sleeper = asyncio.create_task(Importer(place.parts, work).run())
            await slept.wait()
            ended = await place.run(work)
            assert ended.state is ImportState.COMPLETED
            assert await place.counts() == {"a": 50}
            await write(place, "a", DeleteNamespace(), CreateNamespace())
            awake.set()
            await asyncio.gather(sleeper, return_exceptions=True)
        await place.indexed()
        assert await place.counts() in ({}, {"a": 0})


async def test_a_worker_that_slept_while_it_listed_goes_on_by_the_list_that_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another one has found a file more, and built by its own list until it died."""
    slept, awake = asyncio.Event(), asyncio.Event()
    real = LocalSource.files

    async def files(self: LocalSource) -> list[SourceFile]:
        found = await real(self)
        if not slept.is_set():
            slept.set()
            await awake.wait()
        return found

    monkeypatch.setattr(LocalSource, "files", files)
    async with running(tmp_path) as place:
        place.put("a/1.parquet", 250, 60)
        work = await place.asked()
        sleeper = asyncio.create_task(Importer(place.parts, work).run())
        await slept.wait()
        place.put("a/0.parquet", 0, 250)
        dying = Stopping(place.imports, 2, after=True)
        with pytest.raises(Unavailable):
            await place.run(work, replace(place.parts, imports=dying))
        left = await place.imports.get(work.index_id, work.import_id)
        assert (bool(left.progress.marks), left.finished) == (True, False)
        awake.set()
        assert await sleeper is ImportState.COMPLETED
        ended = await place.imports.get(work.index_id, work.import_id)
        assert ended.progress.records == 310
        assert ended.progress.bytes_done == ended.progress.bytes_total
        assert len(await place.ids("a")) == 310


async def test_one_that_is_only_told_late_is_complete(tmp_path: Path) -> None:
    """All was attached, nobody knows; a client goes on working with it."""
    async with running(tmp_path) as place:
        place.put("a/0.parquet", 0, 50)
        work = await place.asked()
        with pytest.raises(Unavailable):
            await place.run(work, replace(place.parts, imports=Dying(place.imports._database)))
        await place.upsert("a", "mine")
        ended = await place.run(work)
        assert (ended.state, ended.error) == (ImportState.COMPLETED, "")
        assert ended.progress.records == 50
        assert await place.counts() == {"a": 51}


@asynccontextmanager
async def worker(place: Place, parts: ImportParts | None = None) -> AsyncIterator[None]:
    leases = Leases(place.imports._database)
    one = ImportWorker(parts or place.parts, leases, poll_s=0.01, again_s=0.02)
    task = asyncio.create_task(one.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_a_worker_writes_after_the_import_was_cleaned_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease had run out while it waited for the store; it finds out at its next note."""
    monkeypatch.setattr("builder.importing.importer.LATE_S", 1.0, raising=False)
    real = Staging.flush
    waits, go = asyncio.Event(), asyncio.Event()

    async def flush(self: Staging, writes: list[NamespaceWrite]) -> None:
        if not waits.is_set():
            waits.set()
            await go.wait()
        await real(self, writes)

    async with running(tmp_path) as place:
        place.put("a/0.parquet", 0, 400)
        work = await place.asked()
        monkeypatch.setattr(Staging, "flush", flush)
        files_of_its_own = replace(place.parts.settings, inline_bytes=0)
        late = Importer(replace(place.parts, settings=files_of_its_own), work)
        writing = asyncio.create_task(late.run())
        await waits.wait()
        await place.imports.cancel(work.index_id, work.import_id)
        async with worker(place):
            for _ in range(500):
                if not await place.staged(work):
                    break
                await asyncio.sleep(0.01)
            go.set()
            assert await writing is None, "it was cancelled"
            assert await place.staged(work), "it wrote late"
            for _ in range(1000):
                if (await place.imports.get(work.index_id, work.import_id)).cleaned:
                    break
                await asyncio.sleep(0.01)
        for _ in range(300):
            if not await place.staged(work):
                break
            await asyncio.sleep(0.01)
        assert await place.staged(work) == []
        assert (await place.imports.get(work.index_id, work.import_id)).cleaned


class Short(ImportStore):
    """Gives a few at a time."""

    async def work(self, limit: int = 5) -> list[Import]:
        return await super().work(limit)


async def test_imports_that_cannot_go_on_leave_time_for_those_that_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real: list[str] = []
    tried: list[str] = []

    async def run(self: Importer) -> ImportState | None:
        work = self._work.import_id
        if work not in real:
            tried.append(work)
            raise Unavailable("the bucket does not answer")
        return await self._ended(ImportState.COMPLETED, Progress())

    monkeypatch.setattr(Importer, "run", run)
    async with running(tmp_path) as place:
        stuck = [await place.asked() for _ in range(6)]
        good = await place.asked()
        real.append(good.import_id)
        short = replace(place.parts, imports=Short(place.imports._database))
        async with worker(place, short):
            for _ in range(500):
                if (await place.imports.get(good.index_id, good.import_id)).finished:
                    break
                await asyncio.sleep(0.02)
        ended = await place.imports.get(good.index_id, good.import_id)
        assert ended.state is ImportState.COMPLETED
        assert set(tried) == {one.import_id for one in stuck}, "and each of them had its turn"
