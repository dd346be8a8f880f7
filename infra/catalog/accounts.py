"""Projects and their API keys, as the catalog keeps them. Every method is one transaction."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from core.clock import Clock, SystemClock, new_uuid
from core.errors import AlreadyExists, FailedPrecondition, InvalidRequest, NotFound
from core.indexes import IndexState
from infra.catalog import keys, rows
from infra.catalog.database import Database
from infra.catalog.model import ApiKey, Caller, KeyChange, KeyRole, Project
from infra.catalog.quotas import Quotas
from infra.catalog.tables import API_KEYS, BACKUPS, INDEXES, PROJECTS, RETIRED_SECRETS
from infra.settings import Settings

DEFAULT_PROJECT = "default"
NAME_CHARS_MAX = 80
# A rotation is done when every client has the new secret: a month is more than any of them needs.
OVERLAP_S_MAX = 30 * 86_400

# Keys of a project that ended, and former secrets of a key, are kept so that none of them is made
# valid again, in these numbers (a row is 300 bytes); beyond, the oldest are forgotten.
ENDED_KEPT = 10_000
FORMER_KEPT = 100

LAST_ADMIN = (
    "This is the last valid admin key of its project, and nobody could make another one: make one "
    "first (the command `firndb keys` can do without)."
)


class Accounts:
    """The part of the catalog that says who may come in. All methods raise `Unavailable` while the
    database is away.
    """

    def __init__(
        self, database: Database, clock: Clock | None = None, quotas: Quotas | None = None
    ) -> None:
        self.quotas = quotas or Quotas.of(Settings.load())
        self._database = database
        self._clock = clock or SystemClock()

    async def close(self) -> None:
        await self._database.close()

    @property
    def database(self) -> Database:
        """For the stores beside this one, which close nothing."""
        return self._database

    # Projects

    async def ensure_project(self, name: str = DEFAULT_PROJECT) -> Project:
        """The project of that name, made if it is not there."""

        def work(connection: Connection) -> Project:
            found = connection.execute(sa.select(PROJECTS).where(PROJECTS.c.name == name)).first()
            return self._add_project(connection, name) if found is None else rows.project_of(found)

        try:
            return await self._database.write(work)
        except sa.exc.IntegrityError:  # another process made it between our two statements
            return await self._database.write(work)

    async def create_project(self, name: str) -> Project:
        """`AlreadyExists`; `InvalidRequest` for what cannot be a name."""
        check_name(name, "A project's name")
        try:
            return await self._database.write(lambda c: self._add_project(c, name))
        except sa.exc.IntegrityError as error:
            raise AlreadyExists(f"there is a project {name} already") from error

    async def projects(self) -> list[Project]:
        """Those that are not deleted, by name."""
        living = sa.select(PROJECTS).where(PROJECTS.c.deleted_ms.is_(None))
        return [rows.project_of(row) for row in await self._all(living.order_by(PROJECTS.c.name))]

    async def project(self, project_id: str) -> Project:
        """`NotFound`."""
        return await self._database.read(lambda c: _living_project(c, project_id))

    async def delete_project(self, project_id: str) -> None:
        """Its keys are revoked, its name is free again. `FailedPrecondition` while it has living
        indexes, collections or backups; `NotFound`.
        """

        def work(connection: Connection) -> None:
            project = _living_project(connection, project_id, lock=True)
            living = (INDEXES, INDEXES.c.state != IndexState.DELETED.value)
            for things, (table, alive) in {
                "indexes": living,
                "backups or collections": (BACKUPS, sa.true()),
            }.items():
                left = sa.select(sa.func.count()).where(table.c.project_id == project_id, alive)
                if connection.scalar(left):
                    raise FailedPrecondition(
                        f"the project {project.name} still has {things}: delete them first"
                    )
            now_ms = self._clock.now_ms()
            connection.execute(
                sa.update(API_KEYS)
                .where(API_KEYS.c.project_id == project_id, API_KEYS.c.revoked_ms.is_(None))
                .values(revoked_ms=now_ms)
            )
            # Names are unique, and deleted indexes refer to this row for ever.
            connection.execute(
                sa.update(PROJECTS)
                .where(PROJECTS.c.project_id == project_id)
                .values(deleted_ms=now_ms, name=f"{project.name} (deleted, {project_id})")
            )

        await self._database.write(work)

    def _add_project(self, connection: Connection, name: str) -> Project:
        project = Project(new_uuid(), name, self._clock.now_ms())
        connection.execute(
            sa.insert(PROJECTS).values(
                project_id=project.project_id, name=name, created_ms=project.created_ms
            )
        )
        return project

    # Keys

    async def add_key(
        self,
        project_id: str,
        secret: str,
        *,
        name: str = "",
        role: KeyRole = KeyRole.ADMIN,
        expires_ms: int | None = None,
    ) -> ApiKey:
        """Make `secret` a valid key, until `expires_ms` (exclusive).

        `AlreadyExists` if it is or ever was one, `InvalidRequest` if it cannot be one,
        `QuotaExceeded`, `NotFound` for a deleted project.
        """
        if not keys.is_fit(secret):
            raise InvalidRequest(keys.FIT)
        if name:
            check_name(name, "A key's name")
        key = ApiKey(
            key_id=new_uuid(),
            project_id=project_id,
            name=name,
            prefix=keys.shown_prefix(secret),
            role=role,
            created_ms=self._clock.now_ms(),
            revoked_ms=None,
            expires_ms=expires_ms,
        )
        if not key.is_valid(key.created_ms):
            raise InvalidRequest("the time at which the key expires has passed already")
        key_hash = keys.hash_of(secret)

        def work(connection: Connection) -> None:
            valid = sa.select(sa.func.count()).where(API_KEYS.c.project_id == project_id)
            self.quotas.api_keys.check(connection, project_id, valid.where(self._valid()))
            retired = sa.select(RETIRED_SECRETS).where(RETIRED_SECRETS.c.key_hash == key_hash)
            if connection.execute(retired).first() is not None:
                raise AlreadyExists(KNOWN)
            connection.execute(
                sa.insert(API_KEYS).values(
                    key_id=key.key_id,
                    project_id=project_id,
                    name=name,
                    prefix=key.prefix,
                    key_hash=key_hash,
                    role=role.value,
                    created_ms=key.created_ms,
                    expires_ms=expires_ms,
                )
            )
            self._forget_ended(connection, project_id)

        try:
            await self._database.write(work)
        except sa.exc.IntegrityError as error:
            raise AlreadyExists(KNOWN) from error
        return key

    async def keys(self, project_id: str | None = None) -> list[ApiKey]:
        """Valid ones and others, oldest first; of all projects if none is named."""
        statement = sa.select(API_KEYS).order_by(API_KEYS.c.created_ms, API_KEYS.c.key_id)
        if project_id is not None:
            statement = statement.where(API_KEYS.c.project_id == project_id)
        found = await self._all(statement)
        return [rows.key_of(row) for row in found]

    async def key(self, key_id: str) -> ApiKey:
        """`NotFound`."""
        return await self._database.read(lambda connection: _key(connection, key_id))

    async def change_key(
        self, key_id: str, change: KeyChange, *, spare_last_admin: bool = False
    ) -> ApiKey:
        """Another name or role for a key that is not revoked; its secret stays.

        `NotFound`; `FailedPrecondition` if it is to be spared (see `revoke_key`).
        """
        if change.name:
            check_name(change.name, "A key's name")
        wanted = {"name": change.name, "role": change.role and change.role.value}
        values = {name: value for name, value in wanted.items() if value is not None}

        def work(connection: Connection) -> ApiKey:
            key = self._held(connection, key_id)
            if key.revoked_ms is not None:
                raise NotFound(_no_key(key_id))
            if spare_last_admin and change.role not in (None, KeyRole.ADMIN):
                self._spare_last_admin(connection, key)
            if values:
                connection.execute(
                    sa.update(API_KEYS).where(API_KEYS.c.key_id == key_id).values(values)
                )
            return _key(connection, key_id)

        return await self._database.write(work)

    async def rotate_key(self, key_id: str, secret: str, keep_old_s: float = 0) -> ApiKey:
        """Give a valid key a new secret. Those that it had before end after `keep_old_s`, if not
        sooner. `NotFound`; `InvalidRequest` for a wrong overlap.
        """
        if not 0 <= keep_old_s <= OVERLAP_S_MAX:
            raise InvalidRequest(f"the old secret can stay valid for 0 to {OVERLAP_S_MAX} seconds")

        def work(connection: Connection) -> ApiKey:
            key = self._held(connection, key_id)
            now_ms = self._clock.now_ms()
            if not key.is_valid(now_ms):
                raise NotFound(_no_key(key_id))
            ends_ms = now_ms + int(keep_old_s * 1000)
            of_key = RETIRED_SECRETS.c.key_id == key_id
            connection.execute(
                sa.update(RETIRED_SECRETS)
                .where(of_key, RETIRED_SECRETS.c.valid_until_ms > ends_ms)
                .values(valid_until_ms=ends_ms)
            )
            current = sa.select(
                API_KEYS.c.key_hash, API_KEYS.c.key_id, sa.literal(ends_ms, sa.BigInteger)
            ).where(API_KEYS.c.key_id == key_id)
            columns = ["key_hash", "key_id", "valid_until_ms"]
            connection.execute(sa.insert(RETIRED_SECRETS).from_select(columns, current))
            connection.execute(
                sa.update(API_KEYS)
                .where(API_KEYS.c.key_id == key_id)
                .values(key_hash=keys.hash_of(secret), prefix=keys.shown_prefix(secret))
            )
            kept = sa.select(RETIRED_SECRETS.c.key_hash).where(of_key)
            kept = kept.order_by(RETIRED_SECRETS.c.valid_until_ms.desc()).limit(FORMER_KEPT)
            connection.execute(
                sa.delete(RETIRED_SECRETS).where(
                    of_key, RETIRED_SECRETS.c.key_hash.not_in(kept.scalar_subquery())
                )
            )
            return _key(connection, key_id)

        return await self._database.write(work)

    async def revoke_key(self, key_id: str, *, spare_last_admin: bool = False) -> None:
        """From now on the key is refused. `NotFound` if there is no such key; twice is fine.

        spare_last_admin: `FailedPrecondition` if no other valid admin key of the project is left.
        """

        def work(connection: Connection) -> None:
            key = self._held(connection, key_id)
            if key.revoked_ms is not None:
                return
            if spare_last_admin:
                self._spare_last_admin(connection, key)
            connection.execute(
                sa.update(API_KEYS)
                .where(API_KEYS.c.key_id == key_id)
                .values(revoked_ms=self._clock.now_ms())
            )

        await self._database.write(work)

    async def caller_of(self, key_hash: str) -> Caller | None:
        """Who the valid key with this hash belongs to. One statement, whatever the key is."""
        now_ms = self._clock.now_ms()
        columns = (API_KEYS.c.key_id, API_KEYS.c.project_id, API_KEYS.c.role, API_KEYS.c.expires_ms)
        current = sa.select(*columns, API_KEYS.c.key_hash, sa.null().label("valid_until_ms")).where(
            API_KEYS.c.key_hash == key_hash, self._valid()
        )
        retired = (
            sa.select(*columns, RETIRED_SECRETS.c.key_hash, RETIRED_SECRETS.c.valid_until_ms)
            .join(RETIRED_SECRETS, RETIRED_SECRETS.c.key_id == API_KEYS.c.key_id)
            .where(
                RETIRED_SECRETS.c.key_hash == key_hash,
                RETIRED_SECRETS.c.valid_until_ms > now_ms,
                self._valid(),
            )
        )
        row = await self._first(sa.union_all(current, retired))
        if row is None or not keys.same_hash(row.key_hash, key_hash):
            return None
        ends = [ms for ms in (row.expires_ms, row.valid_until_ms) if ms is not None]
        return Caller(row.key_id, row.project_id, KeyRole(row.role), min(ends, default=None))

    def _forget_ended(self, connection: Connection, project_id: str) -> None:
        ended = (
            sa.select(API_KEYS.c.key_id)
            .where(API_KEYS.c.project_id == project_id, ~self._valid())
            .order_by(API_KEYS.c.created_ms.desc(), API_KEYS.c.key_id)
            .offset(ENDED_KEPT)
            .limit(FORMER_KEPT)
        )
        gone = list(connection.scalars(ended))
        if gone:
            for table in (RETIRED_SECRETS, API_KEYS):
                connection.execute(sa.delete(table).where(table.c.key_id.in_(gone)))

    def _valid(self) -> sa.ColumnElement[bool]:
        expires = API_KEYS.c.expires_ms
        unexpired = sa.or_(expires.is_(None), expires > self._clock.now_ms())
        return sa.and_(API_KEYS.c.revoked_ms.is_(None), unexpired)

    def _held(self, connection: Connection, key_id: str) -> ApiKey:
        """The key; changes of its project's keys take turns from here on. `NotFound`."""
        key = _key(connection, key_id)
        _living_project(connection, key.project_id, lock=True)
        return _key(connection, key_id)

    def _spare_last_admin(self, connection: Connection, key: ApiKey) -> None:
        if key.role is not KeyRole.ADMIN or not key.is_valid(self._clock.now_ms()):
            return
        others = sa.select(API_KEYS.c.key_id).where(
            API_KEYS.c.project_id == key.project_id,
            API_KEYS.c.key_id != key.key_id,
            API_KEYS.c.role == KeyRole.ADMIN.value,
            self._valid(),
        )
        if connection.execute(others.limit(1)).first() is None:
            raise FailedPrecondition(LAST_ADMIN)

    async def _first(self, statement: sa.Select[Any] | sa.CompoundSelect[Any]) -> Any:
        return await self._database.read(lambda connection: connection.execute(statement).first())

    async def _all(self, statement: sa.Select[Any]) -> list[sa.Row[Any]]:
        return await self._database.read(
            lambda connection: list(connection.execute(statement).all())
        )


KNOWN = "this API key is known already; choose another one"


def check_name(name: str, whose: str) -> str:
    """`InvalidRequest` unless it can be shown on one line."""
    if not 1 <= len(name) <= NAME_CHARS_MAX or not name.isprintable():
        raise InvalidRequest(f"{whose} has 1 to {NAME_CHARS_MAX} printable characters.")
    return name


def _living_project(connection: Connection, project_id: str, *, lock: bool = False) -> Project:
    statement = sa.select(PROJECTS).where(
        PROJECTS.c.project_id == project_id, PROJECTS.c.deleted_ms.is_(None)
    )
    row = connection.execute(statement.with_for_update(key_share=True) if lock else statement)
    found = row.first()
    if found is None:
        raise NotFound(f"there is no project {project_id}")
    return rows.project_of(found)


def _key(connection: Connection, key_id: str) -> ApiKey:
    row = connection.execute(sa.select(API_KEYS).where(API_KEYS.c.key_id == key_id)).first()
    if row is None:
        raise NotFound(_no_key(key_id))
    return rows.key_of(row)


def _no_key(key_id: str) -> str:
    return f"there is no API key {key_id}; `firndb keys list` shows them"
