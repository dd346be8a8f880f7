"""The catalog: projects, API keys, indexes and the log's identity. Every method is one transaction.

All raise `Unavailable` while the database is away. Nothing here is cached: `directory` and
`callers` do that.
"""

from collections.abc import Callable, Collection
from dataclasses import replace

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from core.clock import Clock, new_uuid
from core.errors import AlreadyExists, Forbidden, LogMismatch, NotFound
from core.indexes import IndexState
from core.log import LogIdentity
from infra.catalog import rows
from infra.catalog.accounts import Accounts
from infra.catalog.database import Database
from infra.catalog.model import CatalogIndex, LogEpoch, NewIndex
from infra.catalog.ports import choose_port
from infra.catalog.quotas import Quotas
from infra.catalog.tables import INDEXES, LOG_EPOCHS

_LIVING = INDEXES.c.state != IndexState.DELETED.value
# Advisory lock under which PostgreSQL gives out ports; SQLite has one writer at a time anyway.
_PORT_LOCK = 0x46504F52


class Catalog(Accounts):
    """Safe for many concurrent callers on one event loop."""

    @staticmethod
    def open(url: str, clock: Clock | None = None, quotas: Quotas | None = None) -> "Catalog":
        """Connects and migrates; blocks. `ConfigError` when that fails. `quotas` None: as the
        settings say.
        """
        return Catalog(Database.open(url), clock, quotas)

    # Indexes

    async def create_index(
        self,
        project_id: str,
        new: NewIndex,
        ports: range | None,
        beside: Callable[[Connection, str, str], None] | None = None,
    ) -> CatalogIndex:
        """`ports` None: indexes have no port of their own. `beside`: done in the same transaction,
        with the new index's id and name; what it raises undoes all.

        `AlreadyExists` for a living name, `QuotaExceeded`, `FailedPrecondition` when every port is
        taken.
        """
        living = sa.select(sa.func.count()).where(_LIVING, INDEXES.c.project_id == project_id)

        def work(connection: Connection) -> CatalogIndex:
            taken = sa.select(INDEXES.c.index_id).where(_LIVING, *_named(project_id, new.name))
            if connection.execute(taken).first() is not None:
                raise AlreadyExists(f"Resource {new.name} already exists")
            self.quotas.indexes.check(connection, project_id, living)
            port = None if ports is None else _free_port(connection, ports, ())
            values = {
                "index_id": new_uuid(),
                "project_id": project_id,
                "name": new.name,
                "dimension": new.dimension,
                "metric": new.metric.value,
                "vector_type": new.vector_type.value,
                "spec": new.spec,
                "deletion_protection": new.deletion_protection,
                "tags": new.tags,
                "state": new.state.value,
                "port": port,
                "created_ms": self._clock.now_ms(),
            }
            connection.execute(sa.insert(INDEXES).values(values))
            made = _living(connection, new.name, INDEXES.c.index_id == values["index_id"])
            if beside is not None:
                beside(connection, made.info.index_id, new.name)
            return made

        try:
            return await self._database.write(work)
        except sa.exc.IntegrityError as error:
            raise AlreadyExists(f"Resource {new.name} already exists") from error

    async def index(self, project_id: str, name: str) -> CatalogIndex:
        """The living index of that name; `NotFound`."""
        return await self._database.read(
            lambda connection: _living(connection, name, *_named(project_id, name))
        )

    async def index_by_id(self, index_id: str) -> CatalogIndex | None:
        """Living or deleted; None if it never existed."""
        row = await self._first(sa.select(INDEXES).where(INDEXES.c.index_id == index_id))
        return None if row is None else rows.index_of(row)

    async def living_indexes(self, project_id: str | None = None) -> list[CatalogIndex]:
        """Ordered by name; of all projects if none is named."""
        statement = sa.select(INDEXES).where(_LIVING).order_by(INDEXES.c.name, INDEXES.c.index_id)
        if project_id is not None:
            statement = statement.where(INDEXES.c.project_id == project_id)
        return [rows.index_of(row) for row in await self._all(statement)]

    async def configure_index(
        self, project_id: str, name: str, change: Callable[[CatalogIndex], CatalogIndex]
    ) -> CatalogIndex:
        """Store what `change` (pure) makes of spec, tags and deletion protection; the rest it
        leaves alone.
        """

        def work(connection: Connection) -> CatalogIndex:
            before = _living(connection, name, *_named(project_id, name), lock=True)
            after = change(before)
            connection.execute(
                sa.update(INDEXES)
                .where(INDEXES.c.index_id == before.info.index_id)
                .values(
                    spec=after.spec, tags=after.tags, deletion_protection=after.deletion_protection
                )
            )
            return after

        return await self._database.write(work)

    async def delete_index(self, project_id: str, name: str) -> CatalogIndex:
        """Returns it as `DELETED`, which it is at once; its data stays until garbage collection.

        `NotFound`; `Forbidden` under deletion protection.
        """

        def work(connection: Connection) -> CatalogIndex:
            index = _living(connection, name, *_named(project_id, name), lock=True)
            if index.deletion_protection:
                raise Forbidden(
                    "Deletion protection is enabled for this index. "
                    "Disable deletion protection before retrying."
                )
            connection.execute(
                sa.update(INDEXES)
                .where(INDEXES.c.index_id == index.info.index_id)
                .values(state=IndexState.DELETED.value, deleted_ms=self._clock.now_ms())
            )
            return replace(index, info=replace(index.info, state=IndexState.DELETED))

        return await self._database.write(work)

    async def drop_index(self, index_id: str) -> None:
        """Delete an index that never came to serve, whatever its protection says."""
        statement = (
            sa.update(INDEXES)
            .where(INDEXES.c.index_id == index_id, _LIVING)
            .values(state=IndexState.DELETED.value, deleted_ms=self._clock.now_ms())
        )
        await self._database.write(lambda connection: connection.execute(statement))

    async def move_index(
        self, index_id: str, ports: range, unusable: Collection[int]
    ) -> CatalogIndex:
        """Give a living index another port, none of `unusable`."""

        def work(connection: Connection) -> CatalogIndex:
            port = _free_port(connection, ports, unusable)
            connection.execute(
                sa.update(INDEXES).where(INDEXES.c.index_id == index_id).values(port=port)
            )
            return _living(connection, index_id, INDEXES.c.index_id == index_id)

        return await self._database.write(work)

    # The log

    async def log(self) -> LogEpoch | None:
        """The newest epoch; None before the first start."""
        row = await self._first(sa.select(LOG_EPOCHS).order_by(LOG_EPOCHS.c.epoch.desc()).limit(1))
        return None if row is None else LogEpoch(row.log_id, row.epoch, row.partitions)

    async def register_log(self, identity: LogIdentity) -> LogEpoch:
        """Remember the log at the first start, compare it ever after.

        `LogMismatch` when another log, or another number of partitions, is remembered.
        """
        known = await self.log()
        if known is None:
            known = await self._add_epoch(identity, 1)
        if known.log_id != identity.log_id or known.partitions != identity.partitions:
            raise LogMismatch(
                f"the catalog knows log {known.log_id} with {known.partitions} partitions, but the "
                f"configured log is {identity.log_id} with {identity.partitions}: point "
                "FIRNDB_KAFKA and FIRNDB_KAFKA_PREFIX (or FIRNDB_DATA) back to the old one"
            )
        return known

    async def _add_epoch(self, identity: LogIdentity, epoch: int) -> LogEpoch:
        statement = sa.insert(LOG_EPOCHS).values(
            epoch=epoch,
            log_id=identity.log_id,
            partitions=identity.partitions,
            created_ms=self._clock.now_ms(),
        )
        try:
            await self._database.write(lambda connection: connection.execute(statement))
        except sa.exc.IntegrityError:  # another role was faster; it is compared like any other
            known = await self.log()
            if known is None:
                raise
            return known
        return LogEpoch(identity.log_id, epoch, identity.partitions)


def _named(project_id: str, name: str) -> tuple[sa.ColumnElement[bool], ...]:
    return INDEXES.c.project_id == project_id, INDEXES.c.name == name


def _living(
    connection: Connection, what: str, *where: sa.ColumnElement[bool], lock: bool = False
) -> CatalogIndex:
    """`what` is the name or id that the error tells."""
    statement = sa.select(INDEXES).where(_LIVING, *where)
    row = connection.execute(statement.with_for_update() if lock else statement).first()
    if row is None:
        raise NotFound(f"Resource {what} not found")
    return rows.index_of(row)


def _free_port(connection: Connection, allowed: range, unusable: Collection[int]) -> int:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_PORT_LOCK)))
    living = set(connection.scalars(sa.select(INDEXES.c.port).where(_LIVING)))
    released = connection.execute(
        sa.select(INDEXES.c.port, sa.func.max(INDEXES.c.deleted_ms).label("released_ms"))
        .where(~_LIVING, INDEXES.c.port.is_not(None))
        .group_by(INDEXES.c.port)
    )
    released_ms = {row.port: row.released_ms for row in released}
    return choose_port(allowed, living | set(unusable), released_ms)
