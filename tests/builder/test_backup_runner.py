"""Who runs the jobs of backups: once each, whoever else runs them, and on after somebody's death.

Real: the catalog (SQLite), leases, builder and objects. The stores' clock is moved by the tests.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from builder.backups.jobs import Jobs, JobStores
from builder.backups.metrics import BackupMetrics
from builder.backups.runner import JOBS_MAX, PROJECT_JOBS_MAX, BackupRunner
from builder.backups.taking import Taking
from core.errors import NotFound
from core.indexes import IndexState, VectorType
from core.metric import Metric
from core.operations import DeleteNamespace
from infra.catalog.backup_model import (
    Backup,
    BackupCounts,
    BackupKind,
    BackupState,
    Frequency,
    RestoreState,
)
from infra.catalog.cadence import DAY_MS, FIRST_RUN_MS
from infra.catalog.directory import CatalogDirectory
from infra.catalog.leases import Leases
from infra.catalog.model import NewIndex
from ingest.writer import LogWriter
from storage.layout import namespace_prefix
from storage.snapshot_lists import SnapshotList
from storage.snapshots import SnapshotKind
from tests.builder.world import DIMENSION, World, upsert
from tests.infra.backups_suite import Stores, opened

FILMS = NewIndex(
    name="films",
    dimension=DIMENSION,
    metric=Metric.EUCLIDEAN,
    vector_type=VectorType.DENSE,
    spec={"deployment": {"deployment_type": "managed", "cloud": "aws", "region": "eu"}},
    deletion_protection=False,
    tags={},
)
NAMES = [f"n{number}" for number in range(5)]
# Of 10 ms each.
TRIES = 1500


@dataclass
class House:
    """One catalog, log and store; processes come and go."""

    world: World
    stores: Stores
    writer: LogWriter

    @property
    def index_id(self) -> str:
        return self.stores.index.info.index_id

    @asynccontextmanager
    async def process(self) -> AsyncIterator[BackupRunner]:
        """One that runs jobs until the block ends."""
        leases = Leases(self.stores.catalog.database)
        stores = JobStores(self.stores.backups, self.stores.restores, self.stores.schedules, leases)
        runner = BackupRunner(
            self.world.parts(), self.writer, stores, poll_s=0.02, schedules_s=0.02
        )
        await runner.start()
        try:
            yield runner
        finally:
            await runner.stop()

    def jobs(self) -> Jobs:
        """Of a process that knows what it has read before."""
        leases = Leases(self.stores.catalog.database)
        stores = JobStores(self.stores.backups, self.stores.restores, self.stores.schedules, leases)
        parts = self.world.parts()
        return Jobs(parts, self.writer, stores, BackupMetrics(parts.metrics, parts.clock))

    async def back_up(self) -> Backup:
        return await self.stores.backups.create(self.stores.index, BackupKind.BACKUP, None, None)

    async def state(self, backup: Backup) -> BackupState | None:
        try:
            found = await self.stores.backups.get(self.stores.project, backup.backup_id)
        except NotFound:
            return None
        return found.state

    async def snapshots(self) -> list[str]:
        found: list[str] = []
        for name in NAMES:
            held = await self.world.snapshots.list(namespace_prefix(self.index_id, name))
            found += [one.name for one in held if one.kind is SnapshotKind.SNAPSHOT]
        return found

    async def restore(self, backup: Backup, name: str) -> tuple[str, str]:
        """The job, and the index that it fills."""
        job_id = self.stores.restores.new_id()
        new = replace(FILMS, name=name, state=IndexState.INITIALIZING)
        beside = self.stores.restores.beginning(job_id, backup.backup_id)
        project = self.stores.project
        made = await self.stores.catalog.create_index(project, new, None, beside)
        return job_id, made.info.index_id

    async def job_state(self, job_id: str) -> RestoreState:
        return (await self.stores.restores.get(self.stores.project, job_id)).state


async def until(what: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(TRIES):
        if await what():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not come to that")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    world = World(tmp_path)
    stores = await opened(f"sqlite:///{tmp_path / 'catalog.db'}")
    stores.index = await stores.catalog.create_index(stores.project, FILMS, None)
    world.directory = CatalogDirectory(stores.catalog, stores.clock)  # type: ignore[assignment]
    index_id = stores.index.info.index_id
    for name in NAMES:
        await world.write(upsert("r1", "r2", name), index=index_id, ns=name)
    builder = world.builder()
    await builder.assign(0)

    async def work() -> None:
        while True:
            await world.feed_all(builder)
            await builder.flush()
            await asyncio.sleep(0.005)

    working = asyncio.create_task(work())
    writer = LogWriter(world.log, world.clock)
    yield House(world, stores, writer)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    await writer.close()
    await builder.revoke([0], lost=True)
    await world.close()
    await stores.catalog.close()


async def test_of_several_processes_one_does_a_job(house: House) -> None:
    async with house.process() as one, house.process(), house.process():
        backup = await house.back_up()
        one.wake()
        await until(lambda: is_(house.state(backup), BackupState.READY))
        assert len(await house.snapshots()) == len(NAMES), "one of each namespace"
        job_id, index_id = await house.restore(backup, "again")
        entries = len(house.world.log.records)
        await until(lambda: is_(house.job_state(job_id), RestoreState.COMPLETED))
        assert len(house.world.log.records) == entries + len(NAMES), "each attached once"
        for name in NAMES:
            held = await house.world.held(index_id, name)
            assert held.keys() == {"r1", "r2", name}
        again = await house.stores.catalog.index(house.stores.project, "again")
        assert again.info.state is IndexState.READY
        await house.stores.backups.delete(house.stores.project, BackupKind.BACKUP, backup.backup_id)
        await until(lambda: is_(house.state(backup), None))
        assert await house.snapshots() == []


async def is_(asked: Awaitable[object], expected: object) -> bool:
    return await asked is expected


async def test_what_one_process_leaves_another_takes_up(house: House) -> None:
    backup = await house.back_up()
    async with house.process():
        await asyncio.sleep(0.05)
    async with house.process():
        await until(lambda: is_(house.state(backup), BackupState.READY))
    job_id, index_id = await house.restore(backup, "again")
    async with house.process():
        await asyncio.sleep(0.05)
    async with house.process():
        await until(lambda: is_(house.job_state(job_id), RestoreState.COMPLETED))
    for name in NAMES:
        assert (await house.world.held(index_id, name)).keys() == {"r1", "r2", name}


async def test_a_schedule_makes_backups_and_they_expire(house: House) -> None:
    schedules, clock = house.stores.schedules, house.stores.clock
    made = await schedules.create(house.stores.index, "nightly", Frequency.DAILY, 2)
    async with house.process(), house.process():
        clock.at_ms += FIRST_RUN_MS + 5 * DAY_MS
        found: list[Backup] = []

        async def is_ready() -> bool:
            nonlocal found
            found = (await house.stores.backups.page(house.stores.project, 10)).items
            return [one.state for one in found] == [BackupState.READY]

        await until(is_ready)
        assert found[0].schedule_id == made.schedule_id
        assert found[0].record_count == 3 * len(NAMES)
        assert len(await house.snapshots()) == len(NAMES)
        after = await schedules.get(house.stores.project, made.schedule_id)
        assert after.last_success_ms == clock.at_ms
        clock.at_ms += 2 * DAY_MS
        await until(lambda: is_(house.state(found[0]), None))

        async def is_renewed() -> bool:
            return await is_ready() and len(await house.snapshots()) == len(NAMES)

        await until(is_renewed)


async def test_a_backup_that_is_deleted_while_it_is_taken_ends(house: House) -> None:
    async with house.process() as runner:
        backup = await house.back_up()
        runner.wake()
        await asyncio.sleep(0.01)
        await house.stores.backups.delete(house.stores.project, BackupKind.BACKUP, backup.backup_id)
        runner.wake()
        await until(lambda: is_(house.state(backup), None))
        assert await house.snapshots() == []


async def test_an_index_that_is_deleted_while_it_is_filled_ends_its_job(house: House) -> None:
    async with house.process() as runner:
        backup = await house.back_up()
        await until(lambda: is_(house.state(backup), BackupState.READY))
        job_id, _ = await house.restore(backup, "again")
        await house.stores.catalog.delete_index(house.stores.project, "again")
        runner.wake()
        await until(lambda: is_(house.job_state(job_id), RestoreState.CANCELLED))


async def test_a_backup_of_an_index_that_is_deleted_meanwhile_fails_and_says_why(
    house: House,
) -> None:
    backup = await house.back_up()
    await house.stores.catalog.delete_index(house.stores.project, "films")
    house.stores.clock.at_ms += 60_000  # the directory asks again
    async with house.process():
        await until(lambda: is_(house.state(backup), BackupState.FAILED))
    found = await house.stores.backups.get(house.stores.project, backup.backup_id)
    assert found.error is not None
    assert "deleted" in found.error
    assert await house.snapshots() == [], "nothing holds files for nobody"


async def test_a_job_that_cannot_be_done_fails_and_its_index_with_it(house: House) -> None:
    async with house.process():
        backup = await house.back_up()
        await until(lambda: is_(house.state(backup), BackupState.READY))
    (one, *_) = await house.world.snapshots.list(namespace_prefix(house.index_id, NAMES[2]))
    await house.world.snapshots.delete(one)
    job_id, _ = await house.restore(backup, "again")
    async with house.process():
        await until(lambda: is_(house.job_state(job_id), RestoreState.FAILED))
    job = await house.stores.restores.get(house.stores.project, job_id)
    assert job.error is not None
    assert NAMES[2] in job.error
    index = await house.stores.catalog.index(house.stores.project, "again")
    assert index.info.state is IndexState.INITIALIZATION_FAILED


async def test_one_projects_backlog_does_not_hold_up_another(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(self: Taking) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Taking, "run", never)
    for _ in range(JOBS_MAX + 1):
        await house.back_up()
    other = (await house.stores.catalog.ensure_project("another")).project_id
    theirs = await house.stores.catalog.create_index(other, FILMS, None)
    house.stores.clock.at_ms += 1
    last = await house.stores.backups.create(theirs, BackupKind.BACKUP, None, None)
    async with house.process() as runner:

        async def are_running() -> bool:
            running = runner._running.keys()
            return len(running) == PROJECT_JOBS_MAX + 1 and f"backup/{last.backup_id}" in running

        await until(are_running)


async def test_what_another_one_has_done_is_not_done_again_in_an_index_that_serves(
    house: House,
) -> None:
    """The jobs were listed before the other one was done, the lease is claimed after it."""
    listed = await house.back_up()
    async with house.process():
        await until(lambda: is_(house.state(listed), BackupState.READY))
    job_id, index_id = await house.restore(listed, "again")
    (job,) = await house.stores.restores.open(1)
    async with house.process():
        await until(lambda: is_(house.job_state(job_id), RestoreState.COMPLETED))
    await house.world.write(DeleteNamespace(), index=index_id, ns=NAMES[0])
    entries = len(house.world.log.records)
    await house.jobs().of_restore(job).work()
    assert len(house.world.log.records) == entries
    await house.stores.catalog.delete_index(house.stores.project, "films")
    house.stores.clock.at_ms += 60_000
    await house.jobs().of_backup(listed).work()
    assert await house.state(listed) is BackupState.READY
    assert len(await house.snapshots()) == len(NAMES)


async def test_who_fails_late_takes_nothing_from_a_backup_that_another_one_made_ready(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Taking.run

    async def run(self: Taking) -> SnapshotList:
        """Its lease runs out meanwhile, and the heir is done before it sees the index deleted."""
        whole = await real(self)
        counts = BackupCounts(whole.records, whole.namespaces, whole.bytes)
        await house.stores.backups.ready(whole.backup_id, counts)
        raise NotFound("the index is deleted")

    backup = await house.back_up()
    monkeypatch.setattr(Taking, "run", run)
    await house.jobs().of_backup(backup).work()
    assert await house.state(backup) is BackupState.READY
    assert len(await house.snapshots()) == len(NAMES)
