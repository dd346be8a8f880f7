"""Backups and collections in the catalog. Every method is one transaction; see `Catalog`."""

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from core.clock import Clock, SystemClock, new_uuid
from core.errors import AlreadyExists, FailedPrecondition, NotFound
from core.indexes import IndexState, VectorType
from core.metric import Metric
from infra.catalog.backup_model import (
    Backup,
    BackupCounts,
    BackupKind,
    BackupState,
    Page,
    Place,
    RestoreState,
)
from infra.catalog.database import Database
from infra.catalog.model import CatalogIndex
from infra.catalog.paging import in_turns, page_of
from infra.catalog.quotas import Quotas
from infra.catalog.tables import BACKUP_SCHEDULES, BACKUPS, INDEXES, RESTORE_JOBS

# What is shown of an error; the log has all of it.
ERROR_CHARS_MAX = 500

_WITH_SOURCE = sa.select(BACKUPS, INDEXES.c.deleted_ms).join(
    INDEXES, INDEXES.c.index_id == BACKUPS.c.source_index_id
)
_RESTORED_NOW = sa.exists().where(
    RESTORE_JOBS.c.backup_id == BACKUPS.c.backup_id,
    RESTORE_JOBS.c.state == RestoreState.PENDING.value,
)


class Backups:
    """Safe for many concurrent callers on one event loop."""

    def __init__(self, database: Database, quotas: Quotas, clock: Clock | None = None) -> None:
        self._database = database
        self._quotas = quotas
        self._clock = clock or SystemClock()

    async def create(
        self, source: CatalogIndex, kind: BackupKind, name: str | None, description: str | None
    ) -> Backup:
        """To be taken by whoever runs the jobs.

        `AlreadyExists`: a collection of that name; `NotFound`: the index was deleted meanwhile;
        `FailedPrecondition`: it is not filled yet. `QuotaExceeded`.
        """

        def work(connection: Connection) -> Backup:
            check_source(connection, source)
            check_quota(connection, self._quotas, source.info.project_id, kind)
            values = new_backup(source, self._clock.now_ms())
            values |= {"kind": kind.value, "name": name, "description": description}
            connection.execute(sa.insert(BACKUPS).values(values))
            return _of_id(connection, values["backup_id"])

        try:
            return await self._database.write(work)
        except sa.exc.IntegrityError as error:
            raise AlreadyExists(f"Resource {name} already exists") from error

    async def get(self, project_id: str, backup_id: str) -> Backup:
        """Not a collection; `NotFound`."""
        return await self._database.read(
            lambda connection: _one(connection, project_id, BackupKind.BACKUP, backup_id)
        )

    async def collection(self, project_id: str, name: str) -> Backup:
        """`NotFound`."""
        return await self._database.read(
            lambda connection: _one(connection, project_id, BackupKind.COLLECTION, name)
        )

    async def page(
        self,
        project_id: str,
        limit: int,
        after: Place | None = None,
        *,
        index_id: str | None = None,
        index_name: str | None = None,
        schedule_id: str | None = None,
    ) -> Page[Backup]:
        """Of one index, of all that ever had the name, of one schedule, or of the whole project."""
        where = [
            BACKUPS.c.project_id == project_id,
            BACKUPS.c.kind == BackupKind.BACKUP.value,
        ]
        if index_id is not None:
            where.append(BACKUPS.c.source_index_id == index_id)
        if index_name is not None:
            where.append(BACKUPS.c.source_index_name == index_name)
        if schedule_id is not None:
            where.append(BACKUPS.c.schedule_id == schedule_id)
        key = (BACKUPS.c.created_ms, BACKUPS.c.backup_id)
        return await page_of(
            self._database, _WITH_SOURCE.where(*where), key, limit, after, backup_of
        )

    async def collections(self, project_id: str) -> list[Backup]:
        """By name; there is no paging of them."""
        where = (
            BACKUPS.c.project_id == project_id,
            BACKUPS.c.kind == BackupKind.COLLECTION.value,
        )
        return await self._many(_WITH_SOURCE.where(*where).order_by(BACKUPS.c.name))

    async def delete(self, project_id: str, kind: BackupKind, called: str) -> Backup:
        """From now on it is on its way out; twice is fine. called: an id, or a collection's name.

        `NotFound`; `FailedPrecondition` while an index is made of it.
        """

        def work(connection: Connection) -> Backup:
            found = _one(connection, project_id, kind, called, lock=True)
            mine = BACKUPS.c.backup_id == found.backup_id
            if connection.execute(sa.select(BACKUPS.c.backup_id).where(mine, _RESTORED_NOW)).all():
                raise FailedPrecondition(
                    "An index is being created from it: wait until that restore job has ended"
                )
            connection.execute(
                sa.update(BACKUPS).where(mine).values(state=BackupState.TERMINATING.value)
            )
            return _of_id(connection, found.backup_id)

        return await self._database.write(work)

    # For whoever runs the jobs

    async def open(self, limit: int) -> list[Backup]:
        """To be taken or to be deleted, oldest first, projects in turns."""
        states = (BackupState.INITIALIZING.value, BackupState.TERMINATING.value)
        wanted = BACKUPS.c.state.in_(states)
        key = (BACKUPS.c.created_ms, BACKUPS.c.backup_id)
        owner = BACKUPS.c.project_id
        return await self._many(in_turns(_WITH_SOURCE, BACKUPS, owner, key, wanted, limit))

    async def states(self, backup_ids: Collection[str]) -> dict[str, BackupState]:
        """Of those that are there."""
        statement = sa.select(BACKUPS.c.backup_id, BACKUPS.c.state).where(
            BACKUPS.c.backup_id.in_(backup_ids)
        )
        found = await self._database.read(lambda connection: connection.execute(statement).all())
        return {row.backup_id: BackupState(row.state) for row in found}

    async def ready(self, backup_id: str, counts: BackupCounts) -> None:
        """It is complete; nothing happens if it is being deleted."""

        def work(connection: Connection) -> None:
            now_ms = self._clock.now_ms()
            mine = (
                BACKUPS.c.backup_id == backup_id,
                BACKUPS.c.state == BackupState.INITIALIZING.value,
            )
            made = connection.execute(
                sa.update(BACKUPS)
                .where(*mine)
                .values(
                    state=BackupState.READY.value,
                    ready_ms=now_ms,
                    record_count=counts.records,
                    namespace_count=counts.namespaces,
                    size_bytes=counts.size_bytes,
                )
            ).rowcount
            if made:
                schedule = sa.select(BACKUPS.c.schedule_id).where(BACKUPS.c.backup_id == backup_id)
                connection.execute(
                    sa.update(BACKUP_SCHEDULES)
                    .where(BACKUP_SCHEDULES.c.schedule_id == schedule.scalar_subquery())
                    .values(last_success_ms=now_ms)
                )

        await self._database.write(work)

    async def failed(self, backup_id: str, error: str) -> bool:
        """It stays, with what was wrong, until it is deleted. False: it has ended otherwise."""
        statement = (
            sa.update(BACKUPS)
            .where(
                BACKUPS.c.backup_id == backup_id,
                BACKUPS.c.state == BackupState.INITIALIZING.value,
            )
            .values(state=BackupState.FAILED.value, error=error[:ERROR_CHARS_MAX])
        )
        changed = await self._database.write(lambda c: c.execute(statement).rowcount)
        return changed == 1

    async def gone(self, backup_id: str) -> None:
        """Nothing of it is left in the store."""
        statement = sa.delete(BACKUPS).where(
            BACKUPS.c.backup_id == backup_id, BACKUPS.c.state == BackupState.TERMINATING.value
        )
        await self._database.write(lambda connection: connection.execute(statement))

    async def expire(self) -> int:
        """Those whose time is over are on their way out, but for what an index is made of now."""
        states = (BackupState.READY.value, BackupState.FAILED.value)
        statement = (
            sa.update(BACKUPS)
            .where(
                BACKUPS.c.expires_ms <= self._clock.now_ms(),
                BACKUPS.c.state.in_(states),
                ~_RESTORED_NOW,
            )
            .values(state=BackupState.TERMINATING.value)
        )
        return await self._database.write(lambda connection: connection.execute(statement).rowcount)

    async def _many(self, statement: sa.Select[Any]) -> list[Backup]:
        found = await self._database.read(lambda connection: connection.execute(statement).all())
        return [backup_of(row) for row in found]


def new_backup(source: CatalogIndex, now_ms: int) -> dict[str, Any]:
    """A row but for kind, name and description."""
    info = source.info
    return {
        "backup_id": new_uuid(),
        "project_id": info.project_id,
        "source_index_id": info.index_id,
        "source_index_name": info.name,
        "dimension": info.dimension,
        "metric": info.metric.value,
        "vector_type": info.vector_type.value,
        "spec": source.spec,
        "tags": source.tags,
        "state": BackupState.INITIALIZING.value,
        "created_ms": now_ms,
    }


def check_quota(connection: Connection, quotas: Quotas, project_id: str, kind: BackupKind) -> None:
    """`QuotaExceeded`: the project has too many to get one more."""
    quota = quotas.backups if kind is BackupKind.BACKUP else quotas.collections
    count = sa.select(sa.func.count()).where(
        BACKUPS.c.project_id == project_id, BACKUPS.c.kind == kind.value
    )
    quota.check(connection, project_id, count)


def check_source(connection: Connection, source: CatalogIndex) -> None:
    """`NotFound`, `FailedPrecondition` unless it is an index that serves."""
    statement = sa.select(INDEXES.c.state).where(INDEXES.c.index_id == source.info.index_id)
    state = IndexState(connection.execute(statement).scalar_one())
    if not state.living:
        raise NotFound(f"Resource {source.info.name} not found")
    if state is not IndexState.READY:
        raise FailedPrecondition(f"The index is {state.value}: wait until it is Ready")


def locked_ready(connection: Connection, backup_id: str) -> Backup:
    """For a transaction that begins to use it. `NotFound`, `FailedPrecondition`."""
    found = _of_id(connection, backup_id, lock=True)
    if found.state is not BackupState.READY:
        raise FailedPrecondition(
            f"The {found.kind.value} is {found.state.value}: an index can be created from it when "
            "it is Ready"
        )
    return found


def _one(
    connection: Connection, project_id: str, kind: BackupKind, called: str, *, lock: bool = False
) -> Backup:
    """called: an id, or a collection's name. `NotFound`."""
    by = BACKUPS.c.backup_id if kind is BackupKind.BACKUP else BACKUPS.c.name
    mine = (BACKUPS.c.project_id == project_id, BACKUPS.c.kind == kind.value)
    return _found(connection, called, *mine, by == called, lock=lock)


def _of_id(connection: Connection, backup_id: str, *, lock: bool = False) -> Backup:
    """`NotFound`."""
    return _found(connection, backup_id, BACKUPS.c.backup_id == backup_id, lock=lock)


def _found(
    connection: Connection, called: str, *where: sa.ColumnElement[bool], lock: bool
) -> Backup:
    statement = _WITH_SOURCE.where(*where)
    if lock:
        statement = statement.with_for_update(of=BACKUPS)
    row = connection.execute(statement).first()
    if row is None:
        raise NotFound(f"Resource {called} not found")
    return backup_of(row)


def backup_of(row: sa.Row[Any]) -> Backup:
    return Backup(
        backup_id=row.backup_id,
        project_id=row.project_id,
        kind=BackupKind(row.kind),
        name=row.name,
        description=row.description,
        source_index_id=row.source_index_id,
        source_index_name=row.source_index_name,
        dimension=row.dimension,
        metric=Metric(row.metric),
        vector_type=VectorType(row.vector_type),
        spec=row.spec,
        tags=row.tags,
        state=BackupState(row.state),
        error=row.error,
        record_count=row.record_count,
        namespace_count=row.namespace_count,
        size_bytes=row.size_bytes,
        schedule_id=row.schedule_id,
        expires_ms=row.expires_ms,
        created_ms=row.created_ms,
        ready_ms=row.ready_ms,
        source_deleted_ms=row.deleted_ms,
    )
