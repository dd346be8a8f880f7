"""Restore jobs in the catalog: indexes that are made of backups. One transaction each."""

from collections.abc import Callable, Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from core.clock import Clock, SystemClock, new_uuid
from core.errors import NotFound
from core.indexes import IndexState
from infra.catalog.backup_model import Page, Place, RestoreJob, RestoreState
from infra.catalog.backups import ERROR_CHARS_MAX, locked_ready
from infra.catalog.database import Database
from infra.catalog.paging import in_turns, page_of
from infra.catalog.tables import INDEXES, RESTORE_JOBS

_WITH_TARGET = sa.select(RESTORE_JOBS, INDEXES.c.state.label("target_state")).join(
    INDEXES, INDEXES.c.index_id == RESTORE_JOBS.c.target_index_id
)
_PENDING = RESTORE_JOBS.c.state == RestoreState.PENDING.value


class Restores:
    """Safe for many concurrent callers on one event loop."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock or SystemClock()

    def beginning(self, job_id: str, backup_id: str) -> Callable[[Connection, str, str], None]:
        """What adds the job, in the transaction that makes its index (id, name): there is never one
        without the other. It raises `NotFound` and `FailedPrecondition` of the backup.
        """

        def work(connection: Connection, index_id: str, index_name: str) -> None:
            backup = locked_ready(connection, backup_id)
            values = {
                "job_id": job_id,
                "project_id": backup.project_id,
                "backup_id": backup_id,
                "target_index_id": index_id,
                "target_index_name": index_name,
                "state": RestoreState.PENDING.value,
                "namespaces_done": 0,
                "namespaces_total": backup.namespace_count or 0,
                "parts_done": 0,
                "created_ms": self._clock.now_ms(),
            }
            connection.execute(sa.insert(RESTORE_JOBS).values(values))

        return work

    @staticmethod
    def new_id() -> str:
        return new_uuid()

    async def get(self, project_id: str, job_id: str) -> RestoreJob:
        """`NotFound`."""
        where = (RESTORE_JOBS.c.project_id == project_id, RESTORE_JOBS.c.job_id == job_id)
        row = await self._database.read(
            lambda connection: connection.execute(_WITH_TARGET.where(*where)).first()
        )
        if row is None:
            raise NotFound(f"Resource {job_id} not found")
        return _job_of(row)

    async def page(
        self, project_id: str, limit: int, after: Place | None = None
    ) -> Page[RestoreJob]:
        statement = _WITH_TARGET.where(RESTORE_JOBS.c.project_id == project_id)
        key = (RESTORE_JOBS.c.created_ms, RESTORE_JOBS.c.job_id)
        return await page_of(self._database, statement, key, limit, after, _job_of)

    # For whoever runs the jobs

    async def open(self, limit: int) -> list[RestoreJob]:
        """Oldest first, projects in turns."""
        key = (RESTORE_JOBS.c.created_ms, RESTORE_JOBS.c.job_id)
        owner = RESTORE_JOBS.c.project_id
        statement = in_turns(_WITH_TARGET, RESTORE_JOBS, owner, key, _PENDING, limit)
        found = await self._database.read(lambda connection: connection.execute(statement).all())
        return [_job_of(row) for row in found]

    async def wanted(self, job_ids: Collection[str]) -> set[str]:
        """Those of them that are pending, with an index that lives."""
        statement = (
            sa.select(RESTORE_JOBS.c.job_id)
            .join(INDEXES, INDEXES.c.index_id == RESTORE_JOBS.c.target_index_id)
            .where(
                RESTORE_JOBS.c.job_id.in_(job_ids),
                _PENDING,
                INDEXES.c.state != IndexState.DELETED.value,
            )
        )
        return set(
            await self._database.read(lambda connection: connection.scalars(statement).all())
        )

    async def progress(self, job_id: str, parts_done: int, done: int, total: int) -> None:
        """Never backwards, whoever tells."""
        statement = (
            sa.update(RESTORE_JOBS)
            .where(
                RESTORE_JOBS.c.job_id == job_id, _PENDING, RESTORE_JOBS.c.namespaces_done <= done
            )
            .values(parts_done=parts_done, namespaces_done=done, namespaces_total=total)
        )
        await self._database.write(lambda connection: connection.execute(statement))

    async def complete(self, job_id: str) -> None:
        """All is restored: its index serves from now on."""
        await self._end(job_id, RestoreState.COMPLETED, None, IndexState.READY)

    async def fail(self, job_id: str, error: str) -> None:
        """Its index stays as it is, to be deleted."""
        await self._end(job_id, RestoreState.FAILED, error, IndexState.INITIALIZATION_FAILED)

    async def cancel(self, job_id: str) -> None:
        """Its index is deleted."""
        await self._end(job_id, RestoreState.CANCELLED, "the index was deleted", None)

    async def _end(
        self, job_id: str, state: RestoreState, error: str | None, index: IndexState | None
    ) -> None:
        def work(connection: Connection) -> None:
            ended: dict[str, Any] = {
                "state": state.value,
                "error": None if error is None else error[:ERROR_CHARS_MAX],
                "completed_ms": self._clock.now_ms(),
            }
            changed = connection.execute(
                sa.update(RESTORE_JOBS)
                .where(RESTORE_JOBS.c.job_id == job_id, _PENDING)
                .values(ended)
            ).rowcount
            if changed and index is not None:
                target = sa.select(RESTORE_JOBS.c.target_index_id).where(
                    RESTORE_JOBS.c.job_id == job_id
                )
                connection.execute(
                    sa.update(INDEXES)
                    .where(
                        INDEXES.c.index_id == target.scalar_subquery(),
                        INDEXES.c.state == IndexState.INITIALIZING.value,
                    )
                    .values(state=index.value)
                )

        await self._database.write(work)


def _job_of(row: sa.Row[Any]) -> RestoreJob:
    return RestoreJob(
        job_id=row.job_id,
        project_id=row.project_id,
        backup_id=row.backup_id,
        target_index_id=row.target_index_id,
        target_index_name=row.target_index_name,
        target_living=IndexState(row.target_state).living,
        state=RestoreState(row.state),
        error=row.error,
        namespaces_done=row.namespaces_done,
        namespaces_total=row.namespaces_total,
        parts_done=row.parts_done,
        created_ms=row.created_ms,
        completed_ms=row.completed_ms,
    )
