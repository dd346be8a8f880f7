"""Who does the jobs: backups to take and to delete, indexes to fill, schedules that are due.

Any process with the catalog, the store and the log may run one; a lease says which of them has a
job, and another one takes it over when that one dies.
"""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress

from builder.backups.jobs import Job, JobKind, Jobs, JobStores
from builder.backups.metrics import BackupMetrics
from builder.parts import BuilderParts
from core.clock import new_uuid
from core.errors import Unavailable
from infra.catalog.backup_model import BackupState
from ingest.writer import LogWriter

log = logging.getLogger(__name__)

# Jobs that other processes were asked for are seen so late.
POLL_S = 2.0
# Schedules and what has expired: a look is a transaction that writes.
SCHEDULES_S = 15.0
# Jobs of one process; the others wait, so that a backlog after a downtime is no flood.
JOBS_MAX = 4
# Of them for one project, so that its backlog does not hold up the others.
PROJECT_JOBS_MAX = 2
# What one look reads of the jobs that wait.
OPEN_MAX = 100


class BackupRunner:
    """Between `start` and `stop`. `writer` is open for as long."""

    def __init__(
        self,
        parts: BuilderParts,
        writer: LogWriter,
        stores: JobStores,
        *,
        poll_s: float = POLL_S,
        schedules_s: float = SCHEDULES_S,
    ) -> None:
        self._clock = parts.clock
        self._stores = stores
        self._poll_s = poll_s
        self._schedules_s = schedules_s
        self._metrics = BackupMetrics(parts.metrics, parts.clock)
        self._jobs = Jobs(parts, writer, stores, self._metrics)
        self._owner = new_uuid()
        self._woken = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        # By lease.
        self._running: dict[str, tuple[Job, asyncio.Task[None]]] = {}
        # Leases that others have, and until when they are left to them.
        self._left: dict[str, float] = {}
        self._schedules_at = 0.0

    async def start(self) -> None:
        self._looking = asyncio.create_task(self._look_again_and_again(), name="backups")

    async def stop(self) -> None:
        """What runs is left where it is; its leases are free at once."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        tasks = [task for _, task in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def wake(self) -> None:
        """There is a new job."""
        self._woken.set()

    async def _look_again_and_again(self) -> None:
        away = False
        while True:
            self._woken.clear()
            try:
                await self._look()
                away = False
            except Unavailable as error:
                if not away:
                    log.warning("backups and restores wait for the catalog: %s", error)
                away = True
            except Exception:  # one bad look must not be the last one
                log.exception("backups and restores wait after an error")
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):
                    await self._woken.wait()

    async def _look(self) -> None:
        stores, now_s = self._stores, self._clock.monotonic()
        if now_s >= self._schedules_at:
            await stores.backups.expire()
            await stores.schedules.run_due()
            self._metrics.saw_schedules(await stores.schedules.last_successes())
            self._schedules_at = now_s + self._schedules_s
        await self._end_unwanted()
        # Restores first: somebody waits for an index.
        jobs = [self._jobs.of_restore(one) for one in await stores.restores.open(OPEN_MAX)]
        jobs += [self._jobs.of_backup(one) for one in await stores.backups.open(OPEN_MAX)]
        self._left = {lease: until for lease, until in self._left.items() if until > now_s}
        for job in jobs:
            if len(self._running) >= JOBS_MAX:
                break
            if job.lease in self._running or job.lease in self._left:
                continue
            projects = [running.project_id for running, _ in self._running.values()]
            if projects.count(job.project_id) < PROJECT_JOBS_MAX:
                self._begin(job)

    async def _end_unwanted(self) -> None:
        """What takes a backup that is to be deleted by now, or fills an index that is deleted."""
        running = [job for job, _ in self._running.values()]
        taking = [job for job in running if job.kind is JobKind.BACKUP]
        if taking:
            states = await self._stores.backups.states([job.id for job in taking])
            wanted = {one for one, state in states.items() if state is BackupState.INITIALIZING}
            self._cancel(job for job in taking if job.id not in wanted)
        filling = [job for job in running if job.kind is JobKind.RESTORE]
        if filling:
            wanted = await self._stores.restores.wanted([job.id for job in filling])
            self._cancel(job for job in filling if job.id not in wanted)

    def _cancel(self, jobs: Iterable[Job]) -> None:
        for job in jobs:
            if job.lease in self._running:
                self._running[job.lease][1].cancel()

    def _begin(self, job: Job) -> None:
        task = asyncio.create_task(self._run(job), name=job.lease)
        self._running[job.lease] = (job, task)

        def ended(_: asyncio.Task[None]) -> None:
            del self._running[job.lease]
            self.wake()

        task.add_done_callback(ended)

    async def _run(self, job: Job) -> None:
        running = self._metrics.running.labels(job.kind)
        running.inc()
        try:
            done = await self._stores.leases.run(job.lease, self._owner, job.work)
        except Unavailable as error:
            log.warning("%s is left for now: %s", job.lease, error)
            done = False
        except Exception:
            log.exception("%s is left after an error", job.lease)
            done = False
        finally:
            running.dec()
        if not done:
            self._left[job.lease] = self._clock.monotonic() + 2 * self._poll_s
