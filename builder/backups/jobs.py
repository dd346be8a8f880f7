"""The jobs as the catalog knows them: what is done until a row says that it is done, or failed."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

from builder.backups.metrics import BackupMetrics
from builder.backups.removing import remove_backup
from builder.backups.restoring import RestoreProgress, Restoring
from builder.backups.taking import Taking
from builder.branching.branches import Branches
from builder.parts import BuilderParts
from core.errors import FirnError, NotFound, Unavailable
from core.indexes import IndexInfo
from infra.catalog.backup_model import Backup, BackupCounts, BackupState, RestoreJob
from infra.catalog.backups import Backups
from infra.catalog.leases import Leases
from infra.catalog.restores import Restores
from infra.catalog.schedules import Schedules
from ingest.writer import LogWriter

log = logging.getLogger(__name__)

RETRY_S = 2.0
# Without a step forward for so long, while the store, the log or the builder is away, a job fails.
PATIENCE_S = 3_600.0
INTERNAL = "internal error; the server's log has more"


class JobKind(StrEnum):
    BACKUP = "backup"
    RESTORE = "restore"
    REMOVAL = "removal"


@dataclass(frozen=True, slots=True)
class JobStores:
    backups: Backups
    restores: Restores
    schedules: Schedules
    leases: Leases


@dataclass(frozen=True, slots=True)
class Job:
    """id: of the backup or restore job."""

    kind: JobKind
    id: str
    project_id: str
    work: Callable[[], Awaitable[None]]

    @property
    def lease(self) -> str:
        """A backup is never taken and removed at the same time."""
        what = "restore" if self.kind is JobKind.RESTORE else "backup"
        return f"{what}/{self.id}"


class _Patience:
    """Runs out where nothing moves."""

    def __init__(self, parts: BuilderParts) -> None:
        self._clock = parts.clock
        self.moved()

    def moved(self) -> None:
        self._since_s = self._clock.monotonic()

    @property
    def over(self) -> bool:
        return self._clock.monotonic() - self._since_s > PATIENCE_S


class Jobs:
    """`writer` is open for as long as jobs run."""

    def __init__(
        self, parts: BuilderParts, writer: LogWriter, stores: JobStores, metrics: BackupMetrics
    ) -> None:
        self._parts = parts
        self._stores = stores
        self._metrics = metrics
        self._branches = Branches(parts, writer)

    def of_backup(self, backup: Backup) -> Job:
        if backup.state is BackupState.TERMINATING:
            kind, work = JobKind.REMOVAL, self._remove
        else:
            kind, work = JobKind.BACKUP, self._take
        return Job(kind, backup.backup_id, backup.project_id, lambda: work(backup))

    def of_restore(self, job: RestoreJob) -> Job:
        return Job(JobKind.RESTORE, job.job_id, job.project_id, lambda: self._restore(job))

    async def _take(self, backup: Backup) -> None:
        # As it is under the lease: another one may have had it, and be done, since it was listed.
        known = await self._stores.backups.states([backup.backup_id])
        if known.get(backup.backup_id) is not BackupState.INITIALIZING:
            return

        async def work(patience: _Patience) -> None:
            index = await self._index(backup.source_index_id)
            taking = Taking(self._parts, self._branches, backup.backup_id, index, patience.moved)
            whole = await taking.run()
            counts = BackupCounts(whole.records, whole.namespaces, whole.bytes)
            await self._stores.backups.ready(backup.backup_id, counts)

        async def fail(error: str) -> None:
            # In this order: what is half removed must never be taken for the half of a backup, and
            # where our lease ran out, somebody else may have made it ready.
            if not await self._stores.backups.failed(backup.backup_id, error):
                return
            try:
                await remove_backup(self._parts, backup.backup_id, backup.source_index_id)
            except Unavailable as away:
                log.warning(
                    "failed backup %s keeps files in use until it is deleted: %s",
                    *(backup.backup_id, away),
                )

        await self._persist(JobKind.BACKUP, f"backup {backup.backup_id}", work, fail)

    async def _restore(self, job: RestoreJob) -> None:
        if not job.target_living:
            await self._stores.restores.cancel(job.job_id)
            return
        # As it is under the lease, as above: who fills an index that serves writes beside clients.
        if not await self._stores.restores.wanted([job.job_id]):
            return

        parts_done = job.parts_done

        async def work(patience: _Patience) -> None:
            async def told(progress: RestoreProgress) -> None:
                nonlocal parts_done
                patience.moved()
                parts_done = progress.parts
                await self._stores.restores.progress(
                    job.job_id, progress.parts, progress.namespaces, progress.total
                )

            target = await self._parts.directory.find(job.target_index_id)
            if target is None or not target.state.living:
                await self._stores.restores.cancel(job.job_id)
                return
            restoring = Restoring(self._parts, self._branches, job.job_id, job.created_ms, target)
            await restoring.run(job.backup_id, parts_done, told)
            await self._stores.restores.complete(job.job_id)

        async def fail(error: str) -> None:
            await self._stores.restores.fail(job.job_id, error)

        await self._persist(JobKind.RESTORE, f"restore job {job.job_id}", work, fail)

    async def _remove(self, backup: Backup) -> None:
        """It has no other end than that it is done."""
        await remove_backup(self._parts, backup.backup_id, backup.source_index_id)
        await self._stores.backups.gone(backup.backup_id)
        self._metrics.ended.labels(JobKind.REMOVAL, "done").inc()

    async def _persist(
        self,
        kind: JobKind,
        name: str,
        work: Callable[[_Patience], Awaitable[None]],
        fail: Callable[[str], Awaitable[None]],
    ) -> None:
        """Until it is done, or cannot be."""
        patience = _Patience(self._parts)
        while True:
            try:
                await work(patience)
            except Unavailable as error:
                if not patience.over:
                    log.info("%s waits: %s", name, error)
                    await self._parts.clock.sleep(RETRY_S)
                    continue
                text = str(error)
            except FirnError as error:
                text = str(error)
            except Exception:
                log.exception("%s fails", name)
                text = INTERNAL
            else:
                log.info("%s is done", name)
                self._metrics.ended.labels(kind, "done").inc()
                return
            log.error("%s has failed: %s", name, text)
            await fail(text)
            self._metrics.ended.labels(kind, "failed").inc()
            return

    async def _index(self, index_id: str) -> IndexInfo:
        found = await self._parts.directory.find(index_id)
        if found is None or not found.state.living:
            raise NotFound("the index is deleted")
        return found
