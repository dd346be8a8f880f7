"""Backup schedules in the catalog. Every method is one transaction; see `Catalog`.

A schedule ends with its index: it is not found any more, and `run_due` removes it.
"""

from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from core.clock import Clock, SystemClock, new_uuid
from core.errors import AlreadyExists, FailedPrecondition, NotFound, QuotaExceeded
from core.indexes import IndexState
from infra.catalog import rows
from infra.catalog.backup_model import (
    BackupKind,
    BackupState,
    Frequency,
    Page,
    Place,
    Schedule,
    ScheduleChange,
)
from infra.catalog.backups import ERROR_CHARS_MAX, check_quota, check_source, new_backup
from infra.catalog.cadence import DAY_MS, FIRST_RUN_MS, next_run, run_name
from infra.catalog.database import Database
from infra.catalog.model import CatalogIndex
from infra.catalog.paging import page_of
from infra.catalog.quotas import Quotas
from infra.catalog.tables import BACKUP_SCHEDULES, BACKUPS, INDEXES

# Of one index, the disabled ones included.
SCHEDULES_MAX = 100
# Due ones that one call takes on; the next one takes the others.
DUE_MAX = 100

_OF_LIVING = (
    sa.select(BACKUP_SCHEDULES)
    .join(INDEXES, INDEXES.c.index_id == BACKUP_SCHEDULES.c.index_id)
    .where(INDEXES.c.state != IndexState.DELETED.value)
)
_ANOTHER = "The index has another schedule that is enabled: disable or delete that one first"


class Schedules:
    """Safe for many concurrent callers on one event loop."""

    def __init__(self, database: Database, quotas: Quotas, clock: Clock | None = None) -> None:
        self._database = database
        self._quotas = quotas
        self._clock = clock or SystemClock()

    async def create(
        self, index: CatalogIndex, name: str, frequency: Frequency, retention_days: int
    ) -> Schedule:
        """Enabled, its first run planned.

        `AlreadyExists`: the index has an enabled one; `FailedPrecondition`: or too many others.
        """

        def work(connection: Connection) -> Schedule:
            check_source(connection, index)
            of_index = BACKUP_SCHEDULES.c.index_id == index.info.index_id
            count = sa.select(sa.func.count()).select_from(BACKUP_SCHEDULES).where(of_index)
            if connection.execute(count).scalar_one() >= SCHEDULES_MAX:
                raise FailedPrecondition(
                    f"The index has {SCHEDULES_MAX} schedules, the most there may be: delete some"
                )
            now_ms = self._clock.now_ms()
            made = Schedule(
                schedule_id=new_uuid(),
                project_id=index.info.project_id,
                index_id=index.info.index_id,
                name=name,
                frequency=frequency,
                retention_days=retention_days,
                enabled=True,
                anchor_ms=now_ms + FIRST_RUN_MS,
                next_run_ms=now_ms + FIRST_RUN_MS,
                last_success_ms=None,
                created_ms=now_ms,
            )
            connection.execute(sa.insert(BACKUP_SCHEDULES).values(_values(made)))
            return made

        return await self._written(work)

    async def get(self, project_id: str, schedule_id: str) -> Schedule:
        """`NotFound`."""
        return await self._database.read(
            lambda connection: _one(connection, project_id, schedule_id)
        )

    async def page(self, index_id: str, limit: int, after: Place | None = None) -> Page[Schedule]:
        """Of one index."""
        statement = _OF_LIVING.where(BACKUP_SCHEDULES.c.index_id == index_id)
        key = (BACKUP_SCHEDULES.c.created_ms, BACKUP_SCHEDULES.c.schedule_id)
        return await page_of(self._database, statement, key, limit, after, _schedule_of)

    async def update(self, project_id: str, schedule_id: str, change: ScheduleChange) -> Schedule:
        """Enabled again, or of another frequency, it counts its runs from now on; another retention
        holds for the backups that it has made as well. `NotFound`, `AlreadyExists`.
        """

        def work(connection: Connection) -> Schedule:
            before = _one(connection, project_id, schedule_id, lock=True)
            after = _changed(before, change, self._clock.now_ms())
            connection.execute(
                sa.update(BACKUP_SCHEDULES)
                .where(BACKUP_SCHEDULES.c.schedule_id == schedule_id)
                .values(_values(after))
            )
            if after.retention_days != before.retention_days:
                connection.execute(
                    sa.update(BACKUPS)
                    .where(BACKUPS.c.schedule_id == schedule_id)
                    .values(expires_ms=BACKUPS.c.created_ms + after.retention_days * DAY_MS)
                )
            return after

        return await self._written(work)

    async def delete(self, project_id: str, schedule_id: str) -> None:
        """The backups that it has made stay, until somebody deletes them. `NotFound`."""

        def work(connection: Connection) -> None:
            _one(connection, project_id, schedule_id, lock=True)
            connection.execute(
                sa.delete(BACKUP_SCHEDULES).where(BACKUP_SCHEDULES.c.schedule_id == schedule_id)
            )
            connection.execute(
                sa.update(BACKUPS)
                .where(BACKUPS.c.schedule_id == schedule_id)
                .values(expires_ms=None)
            )

        await self._database.write(work)

    # For whoever runs the jobs

    async def run_due(self) -> int:
        """Add the backups that are due, once, whoever else calls; how many. However many runs a
        schedule has missed, there is one; and none while its last one is being taken.
        """

        def work(connection: Connection) -> int:
            ended = sa.select(INDEXES.c.index_id).where(INDEXES.c.state == IndexState.DELETED.value)
            connection.execute(
                sa.delete(BACKUP_SCHEDULES).where(BACKUP_SCHEDULES.c.index_id.in_(ended))
            )
            now_ms = self._clock.now_ms()
            due = (
                sa.select(BACKUP_SCHEDULES)
                .where(BACKUP_SCHEDULES.c.enabled, BACKUP_SCHEDULES.c.next_run_ms <= now_ms)
                .order_by(BACKUP_SCHEDULES.c.next_run_ms)
                .limit(DUE_MAX)
                .with_for_update(skip_locked=True)
            )
            found = [_schedule_of(row) for row in connection.execute(due)]
            return sum(_run(connection, self._quotas, schedule, now_ms) for schedule in found)

        return await self._database.write(work)

    async def last_successes(self) -> dict[Frequency, int]:
        """When the schedule that waits the longest for a backup had its last one (or was made),
        by frequency; of the enabled ones.
        """
        success = sa.func.coalesce(
            BACKUP_SCHEDULES.c.last_success_ms, BACKUP_SCHEDULES.c.created_ms
        )
        statement = (
            sa.select(BACKUP_SCHEDULES.c.frequency, sa.func.min(success).label("at_ms"))
            .where(BACKUP_SCHEDULES.c.enabled)
            .group_by(BACKUP_SCHEDULES.c.frequency)
        )
        found = await self._database.read(lambda connection: connection.execute(statement).all())
        return {Frequency(row.frequency): row.at_ms for row in found}

    async def _written(self, work: Any) -> Schedule:
        try:
            written: Schedule = await self._database.write(work)
        except sa.exc.IntegrityError as error:
            raise AlreadyExists(_ANOTHER) from error
        return written


def _run(connection: Connection, quotas: Quotas, schedule: Schedule, now_ms: int) -> int:
    """Plan the next run, and make the backup of this one: 1, or 0. Where the project may have no
    more of them it is a failed one, for people to see.
    """
    planned = next_run(schedule.frequency, schedule.anchor_ms, now_ms)
    connection.execute(
        sa.update(BACKUP_SCHEDULES)
        .where(BACKUP_SCHEDULES.c.schedule_id == schedule.schedule_id)
        .values(next_run_ms=planned)
    )
    index = connection.execute(
        sa.select(INDEXES).where(
            INDEXES.c.index_id == schedule.index_id, INDEXES.c.state == IndexState.READY.value
        )
    ).first()
    going_on = sa.select(BACKUPS.c.backup_id).where(
        BACKUPS.c.schedule_id == schedule.schedule_id,
        BACKUPS.c.state == BackupState.INITIALIZING.value,
    )
    if index is None or connection.execute(going_on).first() is not None:
        return 0
    values = new_backup(rows.index_of(index), now_ms)
    values |= {
        "kind": BackupKind.BACKUP.value,
        "name": run_name(schedule.name, now_ms),
        "schedule_id": schedule.schedule_id,
        "expires_ms": now_ms + schedule.retention_days * DAY_MS,
    }
    try:
        check_quota(connection, quotas, schedule.project_id, BackupKind.BACKUP)
    except QuotaExceeded as error:
        values |= {"state": BackupState.FAILED.value, "error": str(error)[:ERROR_CHARS_MAX]}
    connection.execute(sa.insert(BACKUPS).values(values))
    return 1


def _changed(before: Schedule, change: ScheduleChange, now_ms: int) -> Schedule:
    frequency = change.frequency or before.frequency
    enabled = before.enabled if change.enabled is None else change.enabled
    after = replace(
        before,
        frequency=frequency,
        retention_days=change.retention_days or before.retention_days,
        enabled=enabled,
    )
    if not enabled:
        return replace(after, next_run_ms=None)
    if before.enabled and frequency is before.frequency:
        return after
    anchor_ms = now_ms + FIRST_RUN_MS
    return replace(after, anchor_ms=anchor_ms, next_run_ms=anchor_ms)


def _one(
    connection: Connection, project_id: str, schedule_id: str, *, lock: bool = False
) -> Schedule:
    statement = _OF_LIVING.where(
        BACKUP_SCHEDULES.c.project_id == project_id, BACKUP_SCHEDULES.c.schedule_id == schedule_id
    )
    if lock:
        statement = statement.with_for_update(of=BACKUP_SCHEDULES)
    row = connection.execute(statement).first()
    if row is None:
        raise NotFound(f"Resource {schedule_id} not found")
    return _schedule_of(row)


def _values(schedule: Schedule) -> dict[str, Any]:
    return {
        "schedule_id": schedule.schedule_id,
        "project_id": schedule.project_id,
        "index_id": schedule.index_id,
        "name": schedule.name,
        "frequency": schedule.frequency.value,
        "retention_days": schedule.retention_days,
        "enabled": schedule.enabled,
        "anchor_ms": schedule.anchor_ms,
        "next_run_ms": schedule.next_run_ms,
        "last_success_ms": schedule.last_success_ms,
        "created_ms": schedule.created_ms,
    }


def _schedule_of(row: sa.Row[Any]) -> Schedule:
    return Schedule(
        schedule_id=row.schedule_id,
        project_id=row.project_id,
        index_id=row.index_id,
        name=row.name,
        frequency=Frequency(row.frequency),
        retention_days=row.retention_days,
        enabled=row.enabled,
        anchor_ms=row.anchor_ms,
        next_run_ms=row.next_run_ms,
        last_success_ms=row.last_success_ms,
        created_ms=row.created_ms,
    )
