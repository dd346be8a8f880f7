"""Imports as their worker does them, beside a real builder.

At stake: an import that is interrupted anywhere brings rows twice or not at all; one that is
cancelled or fails leaves something; one that meets records of others destroys them.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pytest

from builder.branching.branches import Branches
from builder.branching.branches import Place as BranchPlace
from builder.garbage.beside import Beside
from builder.garbage.plan import Grace
from builder.garbage.purge import Purge
from builder.importing.importer import Importer, ImportParts
from builder.importing.worker import ImportWorker
from builder.indexed import Progress as WholeLog
from builder.policy import FlushLimits
from builder.rebuild import rebuild
from builder.settings import BuilderSettings
from cli.runtime.consumers import Bounds, builder_parts
from cli.runtime.embedded import Engine, open_engine
from cli.runtime.operations import Operations
from core.errors import Unavailable
from core.indexes import IndexInfo, staging_namespace
from core.limits import IMPORT_RECORDS_MAX
from core.operations import DeleteNamespace, Upsert
from core.records import Record
from infra.catalog.imports import ErrorMode, Import, ImportState, ImportStore, Progress
from infra.catalog.leases import Leases
from infra.imports.locations import locations_of
from infra.settings import Settings
from ingest.writer import LogWriter
from query.model import Consistency, ReadOptions
from storage.layout import namespace_prefix
from storage.snapshots import Snapshot
from tests.builder.world import SMALL
from tests.e2e import parquet_files
from tests.infra.catalog_suite import NEW

D = 4
STRONG = ReadOptions(consistency=Consistency.STRONG, deadline_s=20)
# Compaction of a few rows, flushes of a hundred; garbage is collected at once.


TINY = BuilderSettings(
    flush=FlushLimits(records=100, age_s=0.05), compaction=SMALL, gc_grace_s=0.0, gc_period_s=0.1
)


@dataclass
class Place:
    """A running engine without a worker of imports, and what one is made of."""

    engine: Engine
    info: IndexInfo
    parts: ImportParts
    root: Path

    @property
    def imports(self) -> ImportStore:
        return self.parts.imports

    def put(self, name: str, first: int, count: int) -> None:
        parquet_files.write(self.root / "set" / name, parquet_files.table(first, count, D), 70)

    async def asked(self, mode: ErrorMode = ErrorMode.CONTINUE) -> Import:
        return await self.imports.create(self.info.index_id, f"file://{self.root}/set/", mode)

    async def run(self, work: Import, parts: ImportParts | None = None) -> Import:
        """As a worker that has just got the lease."""
        now = await self.imports.get(work.index_id, work.import_id)
        importer = Importer(parts or self.parts, now)
        await importer.run()
        await importer.clean()
        return await self.imports.get(work.index_id, work.import_id)

    async def ids(self, namespace: str) -> list[str]:
        found: list[str] = []
        token: str | None = None
        while True:
            page = await self.engine.queries.list_ids(
                self.info, namespace, limit=100, token=token, options=STRONG
            )
            found += page.ids
            token = page.next_token
            if token is None:
                return found

    async def counts(self) -> dict[str, int]:
        stats = await self.engine.queries.stats(self.info, STRONG)
        return {name: one.record_count for name, one in stats.namespaces.items()}

    async def record(self, namespace: str, record_id: str) -> Record:
        found = await self.engine.queries.fetch(self.info, namespace, [record_id], STRONG)
        return found.records[record_id]

    async def upsert(self, namespace: str, record_id: str) -> None:
        vector = parquet_files.vectors(1, 1, D)[0]
        operation = Upsert((Record(record_id, vector, None, {}),))
        await self.engine.writes.write(self.info, namespace, (operation,), request_id="")

    async def indexed(self) -> None:
        """All that was written is in manifests and registries."""
        await WholeLog(self.parts.builder).whole_log()

    async def staged(self, work: Import, number: int = 0) -> list[str]:
        """Keys of what lies beside."""
        prefix = namespace_prefix(work.index_id, staging_namespace(work.import_id, number))
        return [one.key async for one in self.parts.builder.store.list(prefix)]


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Place]:
    root = folder / "in"
    (root / "set").mkdir(parents=True, exist_ok=True)
    settings = Settings.load(
        {
            "data": folder / "data",
            "partitions": 2,
            "import_locations": f"file://{root}/",
            "imports_at_once": 0,
        }
    )
    async with open_engine(settings, Bounds(building=TINY)) as engine:
        parts = engine.parts
        project = await parts.catalog.ensure_project()
        living = await parts.catalog.living_indexes()
        if not living:
            new = replace(NEW, dimension=D)
            living = [await parts.catalog.create_index(project.project_id, new, None)]
        writer = LogWriter(parts.wal, parts.clock)
        made = ImportParts(
            builder=builder_parts(parts, parts.caches[0]),
            settings=TINY,
            writer=writer,
            imports=ImportStore(parts.catalog.database),
            locations=locations_of(settings),
            namespaces=parts.catalog.quotas.namespaces,
            scratch=folder,
        )
        try:
            yield Place(engine, living[0].info, made, root)
        finally:
            await writer.close()


class Stopping(ImportStore):
    """Goes away at its n-th note, before or after that is durable."""

    def __init__(self, inner: ImportStore, notes: int, *, after: bool) -> None:
        super().__init__(inner._database)
        self._notes = notes
        self._after = after

    async def note(self, import_id: str, progress: Progress) -> bool:
        self._notes -= 1
        if self._notes <= 0:
            if self._after:
                await super().note(import_id, progress)
            raise Unavailable("the catalog is away")
        return await super().note(import_id, progress)


async def test_interrupted_at_every_step_it_comes_to_the_same_end(tmp_path: Path) -> None:
    """Every flush is cut off before and after its note; each second life gets one further."""
    async with running(tmp_path) as place:
        place.put("a/0.parquet", 0, 150)
        place.put("a/1.parquet", 150, 90)
        place.put("b/0.parquet", 0, 60)
        wrong = parquet_files.table(1000, 50, D).set_column(0, "id", pa.array([""] * 50))
        parquet_files.write(place.root / "set" / "a" / "2.parquet", wrong)
        work = await place.asked()
        lives = 0
        while True:
            lives, after = lives + 1, lives % 2 == 1
            stopping = Stopping(place.imports, 2 if after else 1, after=after)
            try:
                ended = await place.run(work, replace(place.parts, imports=stopping))
                break
            except Unavailable:
                assert await place.counts() == {}
        assert lives > 4, "it was hardly interrupted"
        assert (ended.state, ended.error) == (ImportState.COMPLETED, "")
        assert (ended.progress.records, ended.progress.skipped) == (300, 50)
        assert len(ended.progress.reasons) == 20
        assert ended.progress.reasons[0].startswith("a/2.parquet, row 0: Vector ID must be")
        assert ended.progress.bytes_done == ended.progress.bytes_total
        assert await place.counts() == {"a": 240, "b": 60}
        assert sorted(await place.ids("a")) == sorted(f"r{n}" for n in range(240))
        for number in (0, 99, 100, 149, 150, 239):
            record = await place.record("a", f"r{number}")
            assert record.values is not None
            assert (record.values == parquet_files.vectors(number, 1, D)[0]).all()
            assert record.metadata == parquet_files.metadata(number)


async def test_two_workers_that_both_believe_to_have_it_come_to_the_same_rows(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as place:
        place.put("a/0.parquet", 0, 600)
        work = await place.asked()

        async def one() -> None:
            for _ in range(50):
                try:
                    await place.run(work)
                    return
                except Unavailable:
                    await asyncio.sleep(0)

        await asyncio.gather(one(), one())
        ended = await place.imports.get(work.index_id, work.import_id)
        assert ended.state is ImportState.COMPLETED, ended.error
        assert await place.counts() == {"a": 600}
        assert len(set(await place.ids("a"))) == 600


async def test_a_worker_that_attached_while_we_were_about_to_is_no_stranger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our lease ran out, the other one died since: what it has attached is the import's."""
    real = Branches.pin
    raced: list[str] = []

    async def pin(
        self: Branches, source: BranchPlace, target: BranchPlace, pin_id: str
    ) -> Snapshot:
        if not raced:
            raced.append(target.namespace)
            await self.attach(target, await real(self, source, target, pin_id), 0)
        return await real(self, source, target, pin_id)

    async with running(tmp_path) as place:
        place.put("a/0.parquet", 0, 50)
        place.put("b/0.parquet", 0, 60)
        monkeypatch.setattr(Branches, "pin", pin)
        ended = await place.run(await place.asked())
        assert len(raced) == 1, "they are attached side by side"
        assert (ended.state, ended.error) == (ImportState.COMPLETED, "")
        assert ended.progress.records == 110
        assert await place.counts() == {"a": 50, "b": 60}


async def test_a_snapshot_of_what_was_imported_outlives_the_namespace_and_the_import(
    tmp_path: Path,
) -> None:
    """The namespace is deleted before the import, which died, is cleaned up."""
    async with running(tmp_path) as place:
        place.put("a/0.parquet", 0, 300)
        work = await place.asked()
        files_of_its_own = replace(place.parts.settings, inline_bytes=0)
        importer = Importer(replace(place.parts, settings=files_of_its_own), work)
        assert await importer.run() is ImportState.COMPLETED
        branches = Branches(place.parts.builder, place.parts.writer)
        a, c = BranchPlace(place.info, "a"), BranchPlace(place.info, "c")
        kept = await branches.snapshot(a, "kept")
        await place.engine.writes.write(place.info, "a", (DeleteNamespace(),), request_id="")
        await place.indexed()
        staging = BranchPlace(place.info, staging_namespace(work.import_id, 0))
        swept = Beside(place.parts.builder, place.info, staging.namespace)
        for _ in range(3):
            await place.engine.builder.collect()
            await swept.collect(Grace(ms=0))
        held = [one.name for one in await branches.held(staging)]
        assert held == ["kept"], "nothing lives of it any more"
        assert await importer.clean()
        await place.indexed()
        for _ in range(3):
            await place.engine.builder.collect()
        assert (await branches.restore(a, c, snapshot=kept)).records == 300
        assert len(await place.ids("c")) == 300


async def test_of_an_id_that_comes_twice_the_last_row_counts(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        place.put("a/0.parquet", 0, 300)
        twice = parquet_files.table(500, 300, D).set_column(
            0, "id", pa.array([f"r{number}" for number in range(300)])
        )
        parquet_files.write(place.root / "set" / "a" / "1.parquet", twice, 70)
        ended = await place.run(await place.asked())
        assert ended.progress.records == 300
        assert await place.counts() == {"a": 300}
        assert (await place.record("a", "r7")).metadata == parquet_files.metadata(507)


async def test_cancelled_in_the_middle_nothing_is_there_and_nothing_stays(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        place.put("a/0.parquet", 0, 400)
        work = await place.asked()
        stopping = Stopping(place.imports, 3, after=True)
        with pytest.raises(Unavailable):
            await place.run(work, replace(place.parts, imports=stopping))
        assert await place.staged(work)
        cancelled = await place.imports.cancel(work.index_id, work.import_id)
        assert cancelled.state is ImportState.CANCELLED
        assert (await place.run(work)).state is ImportState.CANCELLED
        assert await place.staged(work) == []
        assert await place.counts() == {}
        assert await place.imports.work() == []


async def test_namespaces_with_records_are_left_alone(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        place.put("a/0.parquet", 0, 50)
        await place.upsert("a", "mine")
        await place.indexed()
        ended = await place.run(await place.asked())
        assert ended.state is ImportState.FAILED
        assert "Namespace a has records of its own" in ended.error
        assert await place.ids("a") == ["mine"]
        assert await place.staged(ended) == []


async def test_what_was_written_meanwhile_stays_and_the_other_namespaces_are_imported(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as place:
        place.put("a/0.parquet", 0, 50)
        place.put("b/0.parquet", 0, 60)

        class Racing(ImportStore):
            async def attach(
                self, import_id: str, last_begun: Sequence[int]
            ) -> tuple[int, ...] | None:
                await place.upsert("a", "mine")
                return await super().attach(import_id, last_begun)

        racing = Racing(place.imports._database)
        work = await place.asked()
        ended = await place.run(work, replace(place.parts, imports=racing))
        assert ended.state is ImportState.FAILED
        assert "Namespace a has records of its own" in ended.error
        assert "1 of 2 namespaces were imported" in ended.error
        assert ended.progress.records == 60
        assert await place.counts() == {"a": 1, "b": 60}
        assert await place.staged(work, 0) == []


async def test_a_namespace_that_was_deleted_can_be_imported_into(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        place.put("a/0.parquet", 0, 50)
        await place.upsert("a", "mine")
        await place.engine.writes.write(place.info, "a", (DeleteNamespace(),), request_id="")
        await place.indexed()
        assert (await place.run(await place.asked())).state is ImportState.COMPLETED
        assert await place.counts() == {"a": 50}


async def test_a_bad_file_or_row_fails_the_import_and_is_named(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        place.put("a/0.parquet", 0, 50)
        (place.root / "set" / "a" / "1.parquet").write_bytes(b"PAR1 nothing PAR1")
        ended = await place.run(await place.asked())
        assert ended.state is ImportState.FAILED
        assert ended.error.startswith("a/1.parquet: it cannot be read as Parquet")
        wrong = parquet_files.table(0, 30, D).set_column(0, "id", pa.array(["x"] * 29 + [""]))
        parquet_files.write(place.root / "set" / "a" / "1.parquet", wrong)
        ended = await place.run(await place.asked(ErrorMode.ABORT))
        assert ended.state is ImportState.FAILED
        assert ended.error.startswith("a/1.parquet, row 29: Vector ID must be between 1 and 512")
        assert await place.counts() == {}
        assert await place.staged(ended) == []
        await asyncio.to_thread((place.root / "set" / "a").rename, place.root / "elsewhere")
        ended = await place.run(await place.asked())
        assert (ended.state, "no sub-folder" in ended.error) == (ImportState.FAILED, True)


async def test_records_are_bounded_in_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert IMPORT_RECORDS_MAX == 100_000_000
    monkeypatch.setattr("builder.importing.building.IMPORT_RECORDS_MAX", 100)
    async with running(tmp_path) as place:
        place.put("a/0.parquet", 0, 101)
        ended = await place.run(await place.asked())
        assert ended.error == "An import has 100 records at most."


async def test_an_index_has_only_so_many_namespaces_whichever_way_they_come(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as place:
        await place.upsert("there", "mine")
        await place.indexed()
        place.put("a/0.parquet", 0, 5)
        place.put("b/0.parquet", 0, 5)
        quota = place.parts.namespaces
        ended = await place.run(
            await place.asked(), replace(place.parts, namespaces=replace(quota, most=2))
        )
        assert ended.state is ImportState.FAILED
        assert "max namespaces allowed in index movies (2)" in ended.error
        ended = await place.run(
            await place.asked(), replace(place.parts, namespaces=replace(quota, most=3))
        )
        assert ended.state is ImportState.COMPLETED


async def test_nobody_sees_what_was_built_beside_and_a_rebuild_finds_it(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        place.put("a/0.parquet", 0, 300)
        work = await place.run(await place.asked())
        await place.upsert("a", "later")
        await place.indexed()
        builder = place.engine.builder
        assert [
            row.namespace for row in await Operations(place.engine.parts).status(None, None)
        ] == ["a"]
        names = (await place.engine.queries.namespaces(place.info, options=STRONG)).namespaces
        assert [one.name for one in names] == ["a"]
        for _ in range(3):
            await builder.collect()
        assert await place.counts() == {"a": 301}
        made = await rebuild(place.parts.builder, place.engine.parts.wal, place.info, "a")
        assert [one.records for one in made] == [301]
        assert await place.counts() == {"a": 301}
        await place.engine.writes.write(place.info, "a", (DeleteNamespace(),), request_id="")
        await place.indexed()
        for _ in range(4):
            await builder.collect()
        left = [key for key in await place.staged(work) if "/deltas/" in key or "/clusters/" in key]
        assert left == [], "with the namespace go the files that it was made of"


async def test_a_purge_does_not_say_less_than_there_is(tmp_path: Path) -> None:
    """The files that were attached stay for a rebuild, and hold the record until then."""
    async with running(tmp_path) as place:
        place.put("a/0.parquet", 0, 50)
        await place.run(await place.asked())
        writer = place.parts.writer
        beside = Beside(place.parts.builder, place.info, "a", TINY)
        purged = await Purge(beside, writer, lambda *_: None).run(["r7"])
        assert (purged.left, purged.holding) == ((), ())
        assert purged.log.records == 1, "the entry by which it came"
        assert await place.counts() == {"a": 49}


async def test_of_a_deleted_index_nothing_is_imported_or_left(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        place.put("a/0.parquet", 0, 300)
        work = await place.asked()
        stopping = Stopping(place.imports, 3, after=True)
        with pytest.raises(Unavailable):
            await place.run(work, replace(place.parts, imports=stopping))
        catalog = place.engine.parts.catalog
        deleted = await catalog.delete_index(place.info.project_id, place.info.name)
        place.engine.parts.directory.remember(deleted.info)
        ended = await place.imports.get(work.index_id, work.import_id)
        for _ in range(50):
            ended = await place.run(work)
            if ended.cleaned:
                break
            await asyncio.sleep(0.1)
        assert (ended.state, ended.error) == (ImportState.FAILED, "The index was deleted.")
        assert await place.staged(work) == []


async def test_a_worker_does_what_waits_and_goes_on_after_another(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        place.put("a/0.parquet", 0, 300)
        leases = Leases(place.engine.parts.catalog.database)
        work = await place.asked()
        cancelled = await place.asked()
        await place.imports.cancel(cancelled.index_id, cancelled.import_id)
        await leases.claim(work.lease, "somebody who died", for_s=0.2)
        worker = ImportWorker(place.parts, leases, poll_s=0.02, again_s=0.05)
        task = asyncio.create_task(worker.run())
        for _ in range(500):
            if (await place.imports.get(work.index_id, work.import_id)).cleaned:
                break
            await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        ended = await place.imports.get(work.index_id, work.import_id)
        assert ended.state is ImportState.COMPLETED
        assert await place.counts() == {"a": 300}
