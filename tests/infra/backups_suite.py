"""What the catalog must do for backups, restores and schedules on every database. A test class
inherits this and gives `url`.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest

from core.errors import AlreadyExists, FailedPrecondition, NotFound, QuotaExceeded
from core.indexes import IndexState
from infra.catalog.backup_model import (
    Backup,
    BackupCounts,
    BackupKind,
    BackupState,
    Frequency,
    RestoreState,
    ScheduleChange,
)
from infra.catalog.backups import Backups
from infra.catalog.cadence import DAY_MS, FIRST_RUN_MS
from infra.catalog.catalog import Catalog
from infra.catalog.model import CatalogIndex
from infra.catalog.quotas import Quotas
from infra.catalog.restores import Restores
from infra.catalog.schedules import Schedules
from infra.settings import Settings
from tests.infra.catalog_suite import NEW

COUNTS = BackupCounts(records=7, namespaces=2, size_bytes=4096)
RESTORED = replace(NEW, name="again")


class StillClock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.at_ms = 1_790_000_000_000

    def now_ms(self) -> int:
        return self.at_ms

    def monotonic(self) -> float:
        return self.at_ms / 1000

    async def sleep(self, seconds: float) -> None:
        self.at_ms += int(seconds * 1000)


@dataclass
class Stores:
    """index: `movies`, of project `project`."""

    catalog: Catalog
    clock: StillClock
    backups: Backups
    restores: Restores
    schedules: Schedules
    project: str
    index: CatalogIndex

    async def ready(self, name: str | None = None) -> Backup:
        made = await self.backups.create(self.index, BackupKind.BACKUP, name, None)
        await self.backups.ready(made.backup_id, COUNTS)
        return await self.backups.get(self.project, made.backup_id)

    async def begin(self, backup: Backup, name: str = "again") -> str:
        """The job that fills a new index of that name."""
        job_id = self.restores.new_id()
        new = replace(RESTORED, name=name, state=IndexState.INITIALIZING)
        beside = self.restores.beginning(job_id, backup.backup_id)
        await self.catalog.create_index(self.project, new, None, beside)
        return job_id


async def opened(url: str, **quotas: int) -> Stores:
    clock = StillClock()
    limits = Quotas.of(Settings.load(quotas))
    catalog = Catalog.open(url, clock, limits)
    project = (await catalog.ensure_project()).project_id
    try:
        index = await catalog.index(project, NEW.name)
    except NotFound:
        index = await catalog.create_index(project, NEW, None)
    database = catalog.database
    return Stores(
        catalog=catalog,
        clock=clock,
        backups=Backups(database, limits, clock),
        restores=Restores(database, clock),
        schedules=Schedules(database, limits, clock),
        project=project,
        index=index,
    )


class BackupsSuite:
    """Fixture `url`: of an empty database."""

    @pytest.fixture
    async def stores(self, url: str) -> AsyncIterator[Stores]:
        stores = await opened(url)
        yield stores
        await stores.catalog.close()

    # Backups

    async def test_who_has_many_jobs_does_not_hide_those_of_others(self, stores: Stores) -> None:
        """What runs the jobs sees only so many of those that wait."""
        ready = await stores.ready()
        mine = [
            await stores.backups.create(stores.index, BackupKind.BACKUP, None, None)
            for _ in range(5)
        ]
        jobs = [await stores.begin(ready, f"again-{n}") for n in range(5)]
        stores.clock.at_ms += 1
        other = (await stores.catalog.ensure_project("another")).project_id
        index = await stores.catalog.create_index(other, NEW, None)
        theirs = await stores.backups.create(index, BackupKind.BACKUP, None, None)
        seen = [one.backup_id for one in await stores.backups.open(3)]
        assert seen[1] == theirs.backup_id
        assert {seen[0], seen[2]} < {one.backup_id for one in mine}
        await stores.backups.ready(theirs.backup_id, COUNTS)
        job = stores.restores.new_id()
        new = replace(RESTORED, state=IndexState.INITIALIZING)
        beside = stores.restores.beginning(job, theirs.backup_id)
        await stores.catalog.create_index(other, new, None, beside)
        waiting = [one.job_id for one in await stores.restores.open(3)]
        assert waiting[1] == job
        assert {waiting[0], waiting[2]} < set(jobs)
        assert len(await stores.restores.open(10)) == 6

    async def test_a_backup_is_taken_shown_and_deleted(self, stores: Stores) -> None:
        made = await stores.backups.create(stores.index, BackupKind.BACKUP, "mine", "about")
        assert (made.state, made.record_count) == (BackupState.INITIALIZING, None)
        assert (made.dimension, made.metric, made.spec, made.tags) == (
            *(NEW.dimension, NEW.metric, NEW.spec, NEW.tags),
        )
        assert [one.backup_id for one in await stores.backups.open(10)] == [made.backup_id]
        await stores.backups.ready(made.backup_id, COUNTS)
        found = await stores.backups.get(stores.project, made.backup_id)
        assert (found.state, found.record_count) == (BackupState.READY, COUNTS.records)
        assert await stores.backups.open(10) == []
        for _ in range(2):
            gone = await stores.backups.delete(stores.project, BackupKind.BACKUP, made.backup_id)
            assert gone.state is BackupState.TERMINATING
        assert [one.backup_id for one in await stores.backups.open(10)] == [made.backup_id]
        await stores.backups.gone(made.backup_id)
        with pytest.raises(NotFound):
            await stores.backups.get(stores.project, made.backup_id)

    async def test_a_backup_that_is_being_deleted_does_not_become_ready(
        self, stores: Stores
    ) -> None:
        made = await stores.backups.create(stores.index, BackupKind.BACKUP, None, None)
        await stores.backups.delete(stores.project, BackupKind.BACKUP, made.backup_id)
        await stores.backups.ready(made.backup_id, COUNTS)
        await stores.backups.failed(made.backup_id, "no")
        states = await stores.backups.states([made.backup_id, "0" * 32])
        assert states == {made.backup_id: BackupState.TERMINATING}

    async def test_a_failed_backup_says_why_and_is_no_source(self, stores: Stores) -> None:
        made = await stores.backups.create(stores.index, BackupKind.BACKUP, None, None)
        await stores.backups.failed(made.backup_id, "the disk " * 1000)
        found = await stores.backups.get(stores.project, made.backup_id)
        assert found.state is BackupState.FAILED
        assert found.error is not None
        assert found.error.startswith("the disk")
        assert len(found.error) == 500
        with pytest.raises(FailedPrecondition, match="InitializationFailed"):
            await stores.begin(found)
        with pytest.raises(NotFound):
            await stores.catalog.index(stores.project, "again")

    async def test_it_outlives_its_index_and_knows_it(self, stores: Stores) -> None:
        made = await stores.ready()
        await stores.catalog.delete_index(stores.project, NEW.name)
        found = await stores.backups.get(stores.project, made.backup_id)
        assert found.source_deleted_ms == stores.clock.at_ms
        page = await stores.backups.page(stores.project, 10, index_name=NEW.name)
        assert [one.backup_id for one in page.items] == [made.backup_id]
        with pytest.raises(NotFound):
            await stores.backups.create(stores.index, BackupKind.BACKUP, None, None)

    async def test_pages_come_newest_first_and_nothing_shifts_them(self, stores: Stores) -> None:
        made: list[str] = []
        for number in range(7):
            stores.clock.at_ms += number % 2  # some at the same moment
            made.append((await stores.ready(f"b{number}")).backup_id)
        first = await stores.backups.page(stores.project, 3)
        stores.clock.at_ms += 1
        await stores.ready("newer")
        seen = [one.backup_id for one in first.items]
        place = first.next
        while place is not None:
            page = await stores.backups.page(stores.project, 3, place)
            seen += [one.backup_id for one in page.items]
            place = page.next
        assert sorted(seen) == sorted(made)
        assert len(set(seen)) == len(made)
        assert (await stores.backups.page("f" * 32, 10)).items == []

    async def test_collections_are_known_by_name_and_are_no_backups(self, stores: Stores) -> None:
        kind = BackupKind.COLLECTION
        made = await stores.backups.create(stores.index, kind, "frozen", None)
        with pytest.raises(AlreadyExists):
            await stores.backups.create(stores.index, kind, "frozen", None)
        assert await stores.backups.collection(stores.project, "frozen") == made
        assert await stores.backups.collections(stores.project) == [made]
        assert (await stores.backups.page(stores.project, 10)).items == []
        with pytest.raises(NotFound):
            await stores.backups.get(stores.project, made.backup_id)
        other = (await stores.catalog.ensure_project("another")).project_id
        with pytest.raises(NotFound):
            await stores.backups.collection(other, "frozen")
        await stores.backups.delete(stores.project, kind, "frozen")
        await stores.backups.gone(made.backup_id)
        await stores.backups.create(stores.index, kind, "frozen", None)

    async def test_quotas_bound_both_kinds(self, url: str) -> None:
        stores = await opened(url, max_backups=2, max_collections=1)
        try:
            create = stores.backups.create
            tries = [create(stores.index, BackupKind.BACKUP, None, None) for _ in range(5)]
            made = await asyncio.gather(*tries, return_exceptions=True)
            assert sum(isinstance(one, QuotaExceeded) for one in made) == 3
            await create(stores.index, BackupKind.COLLECTION, "one", None)
            with pytest.raises(QuotaExceeded, match="FIRNDB_MAX_COLLECTIONS"):
                await create(stores.index, BackupKind.COLLECTION, "two", None)
        finally:
            await stores.catalog.close()

    # Restores

    async def test_an_index_is_ready_when_its_job_is_completed(self, stores: Stores) -> None:
        backup = await stores.ready()
        job_id = await stores.begin(backup)
        index = await stores.catalog.index(stores.project, "again")
        assert index.info.state is IndexState.INITIALIZING
        with pytest.raises(FailedPrecondition, match="Initializing"):
            await stores.backups.create(index, BackupKind.BACKUP, None, None)
        with pytest.raises(FailedPrecondition, match="restore job"):
            await stores.backups.delete(stores.project, BackupKind.BACKUP, backup.backup_id)
        (job,) = await stores.restores.open(10)
        assert (job.job_id, job.namespaces_total, job.target_living) == (job_id, 2, True)
        await stores.restores.progress(job_id, 1, 2, 2)
        await stores.restores.progress(job_id, 0, 1, 2)
        assert (await stores.restores.get(stores.project, job_id)).namespaces_done == 2
        assert await stores.restores.wanted([job_id, "0" * 32]) == {job_id}
        await stores.restores.complete(job_id)
        await stores.restores.fail(job_id, "too late")
        ended = await stores.restores.get(stores.project, job_id)
        assert (ended.state, ended.error) == (RestoreState.COMPLETED, None)
        assert ended.completed_ms == stores.clock.at_ms
        index = await stores.catalog.index(stores.project, "again")
        assert index.info.state is IndexState.READY
        assert await stores.restores.open(10) == []
        await stores.backups.delete(stores.project, BackupKind.BACKUP, backup.backup_id)
        assert (await stores.restores.page(stores.project, 10)).items == [ended]

    async def test_a_taken_name_makes_no_job(self, stores: Stores) -> None:
        backup = await stores.ready()
        with pytest.raises(AlreadyExists):
            await stores.begin(backup, NEW.name)
        assert await stores.restores.open(10) == []

    async def test_a_backup_that_goes_while_a_restore_begins_has_one_of_both(
        self, stores: Stores
    ) -> None:
        backup = await stores.ready()
        kind = BackupKind.BACKUP
        began, gone = await asyncio.gather(
            stores.begin(backup),
            stores.backups.delete(stores.project, kind, backup.backup_id),
            return_exceptions=True,
        )
        failed = [isinstance(one, FailedPrecondition) for one in (began, gone)]
        assert sorted(failed) == [False, True], (began, gone)

    async def test_a_failed_job_leaves_an_index_that_says_so(self, stores: Stores) -> None:
        job_id = await stores.begin(await stores.ready())
        await stores.restores.fail(job_id, "a part is gone")
        job = await stores.restores.get(stores.project, job_id)
        assert (job.state, job.error) == (RestoreState.FAILED, "a part is gone")
        index = await stores.catalog.index(stores.project, "again")
        assert index.info.state is IndexState.INITIALIZATION_FAILED
        await stores.catalog.delete_index(stores.project, "again")

    async def test_a_job_without_its_index_is_cancelled(self, stores: Stores) -> None:
        job_id = await stores.begin(await stores.ready())
        await stores.catalog.delete_index(stores.project, "again")
        assert await stores.restores.wanted([job_id]) == set()
        (job,) = await stores.restores.open(10)
        assert not job.target_living
        await stores.restores.cancel(job_id)
        job = await stores.restores.get(stores.project, job_id)
        assert job.state is RestoreState.CANCELLED

    # Schedules

    async def test_a_schedule_runs_once_however_many_look(self, stores: Stores) -> None:
        made = await stores.schedules.create(stores.index, "nightly", Frequency.DAILY, 3)
        assert made.next_run_ms == stores.clock.at_ms + FIRST_RUN_MS
        assert await stores.schedules.run_due() == 0
        stores.clock.at_ms += FIRST_RUN_MS
        ran = await asyncio.gather(*(stores.schedules.run_due() for _ in range(6)))
        assert sum(ran) == 1
        (backup,) = (await stores.backups.page(stores.project, 9)).items
        assert backup.schedule_id == made.schedule_id
        assert backup.name is not None
        assert backup.name.startswith("nightly-20")
        assert backup.expires_ms == stores.clock.at_ms + 3 * DAY_MS
        again = await stores.schedules.get(stores.project, made.schedule_id)
        assert again.next_run_ms == made.anchor_ms + DAY_MS

    async def test_after_a_downtime_there_is_one_run(self, stores: Stores) -> None:
        made = await stores.schedules.create(stores.index, "nightly", Frequency.DAILY, 30)
        stores.clock.at_ms += FIRST_RUN_MS + 10 * DAY_MS + 17
        assert await stores.schedules.run_due() == 1
        assert await stores.schedules.run_due() == 0
        found = await stores.schedules.get(stores.project, made.schedule_id)
        assert found.next_run_ms == made.anchor_ms + 11 * DAY_MS
        stores.clock.at_ms = found.next_run_ms
        assert await stores.schedules.run_due() == 0, "the last one is still being taken"
        (backup,) = await stores.backups.open(10)
        await stores.backups.ready(backup.backup_id, COUNTS)
        found = await stores.schedules.get(stores.project, made.schedule_id)
        assert found.last_success_ms == stores.clock.at_ms
        assert await stores.schedules.last_successes() == {Frequency.DAILY: stores.clock.at_ms}

    async def test_backups_expire_but_for_what_is_restored(self, stores: Stores) -> None:
        made = await stores.schedules.create(stores.index, "nightly", Frequency.DAILY, 2)
        by_hand = await stores.ready("by hand")
        stores.clock.at_ms += FIRST_RUN_MS
        await stores.schedules.run_due()
        (backup,) = await stores.backups.open(10)
        await stores.backups.ready(backup.backup_id, COUNTS)
        job_id = await stores.begin(backup)
        stores.clock.at_ms += 2 * DAY_MS
        assert await stores.backups.expire() == 0
        await stores.restores.complete(job_id)
        assert await stores.backups.expire() == 1
        states = await stores.backups.states([backup.backup_id, by_hand.backup_id])
        assert states[backup.backup_id] is BackupState.TERMINATING
        assert states[by_hand.backup_id] is BackupState.READY
        assert made.retention_days == 2

    async def test_another_retention_holds_for_what_was_made(self, stores: Stores) -> None:
        made = await stores.schedules.create(stores.index, "nightly", Frequency.DAILY, 2)
        stores.clock.at_ms += FIRST_RUN_MS
        await stores.schedules.run_due()
        (backup,) = await stores.backups.open(10)
        await stores.backups.ready(backup.backup_id, COUNTS)
        change = ScheduleChange(retention_days=5)
        await stores.schedules.update(stores.project, made.schedule_id, change)
        stores.clock.at_ms += 4 * DAY_MS
        assert await stores.backups.expire() == 0
        await stores.schedules.delete(stores.project, made.schedule_id)
        stores.clock.at_ms += 400 * DAY_MS
        assert await stores.backups.expire() == 0, "without its schedule it stays"
        with pytest.raises(NotFound):
            await stores.schedules.get(stores.project, made.schedule_id)

    async def test_one_schedule_of_an_index_is_enabled(self, stores: Stores) -> None:
        create = stores.schedules.create
        first = await create(stores.index, "one", Frequency.DAILY, 2)
        with pytest.raises(AlreadyExists, match="disable"):
            await create(stores.index, "two", Frequency.WEEKLY, 2)
        off, on = ScheduleChange(enabled=False), ScheduleChange(enabled=True)
        disabled = await stores.schedules.update(stores.project, first.schedule_id, off)
        assert disabled.next_run_ms is None
        stores.clock.at_ms += DAY_MS
        assert await stores.schedules.run_due() == 0
        second = await create(stores.index, "two", Frequency.WEEKLY, 2)
        with pytest.raises(AlreadyExists):
            await stores.schedules.update(stores.project, first.schedule_id, on)
        page = await stores.schedules.page(stores.index.info.index_id, 1)
        assert [one.schedule_id for one in page.items] == [second.schedule_id]
        rest = await stores.schedules.page(stores.index.info.index_id, 5, page.next)
        assert [one.schedule_id for one in rest.items] == [first.schedule_id]
        await stores.schedules.delete(stores.project, second.schedule_id)
        enabled = await stores.schedules.update(stores.project, first.schedule_id, on)
        assert enabled.next_run_ms == stores.clock.at_ms + FIRST_RUN_MS, "not at the old slot"

    async def test_schedules_end_with_their_index(self, stores: Stores) -> None:
        made = await stores.schedules.create(stores.index, "one", Frequency.DAILY, 2)
        await stores.catalog.delete_index(stores.project, NEW.name)
        with pytest.raises(NotFound):
            await stores.schedules.get(stores.project, made.schedule_id)
        stores.clock.at_ms += DAY_MS
        assert await stores.schedules.run_due() == 0
        assert await stores.schedules.last_successes() == {}

    async def test_a_run_beyond_the_quota_is_a_failed_backup(self, url: str) -> None:
        stores = await opened(url, max_backups=1)
        try:
            await stores.ready()
            await stores.schedules.create(stores.index, "one", Frequency.DAILY, 2)
            stores.clock.at_ms += FIRST_RUN_MS
            assert await stores.schedules.run_due() == 1
            (newest, _) = (await stores.backups.page(stores.project, 9)).items
            assert newest.state is BackupState.FAILED
            assert newest.error is not None
            assert "FIRNDB_MAX_BACKUPS" in newest.error
        finally:
            await stores.catalog.close()
