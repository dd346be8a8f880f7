"""Projects and their API keys, as the catalog keeps them. Every method is one transaction."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from core.clock import Clock, SystemClock, new_uuid
from core.errors import AlreadyExists, InvalidRequest, NotFound
from infra.catalog import keys, rows
from infra.catalog.database import Database
from infra.catalog.model import ApiKey, Caller, KeyRole, Project
from infra.catalog.quotas import Quotas
from infra.catalog.tables import API_KEYS, PROJECTS
from infra.settings import Settings

DEFAULT_PROJECT = "default"


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

    async def ensure_project(self, name: str = DEFAULT_PROJECT) -> Project:
        """The project of that name, made if it is not there."""

        def work(connection: Connection) -> Project:
            found = connection.execute(sa.select(PROJECTS).where(PROJECTS.c.name == name)).first()
            if found is not None:
                return rows.project_of(found)
            project = Project(new_uuid(), name, self._clock.now_ms())
            connection.execute(
                sa.insert(PROJECTS).values(
                    project_id=project.project_id, name=name, created_ms=project.created_ms
                )
            )
            return project

        try:
            return await self._database.write(work)
        except sa.exc.IntegrityError:  # another process made it between our two statements
            return await self._database.write(work)

    async def add_key(
        self, project_id: str, secret: str, *, name: str = "", role: KeyRole = KeyRole.ADMIN
    ) -> ApiKey:
        """Make `secret` a valid key.

        `AlreadyExists` if it is or ever was one, `InvalidRequest` if it cannot be one.
        """
        if not keys.is_fit(secret):
            raise InvalidRequest(keys.FIT)
        key = ApiKey(
            key_id=new_uuid(),
            project_id=project_id,
            name=name,
            prefix=keys.shown_prefix(secret),
            role=role,
            created_ms=self._clock.now_ms(),
            revoked_ms=None,
        )
        statement = sa.insert(API_KEYS).values(
            key_id=key.key_id,
            project_id=project_id,
            name=name,
            prefix=key.prefix,
            key_hash=keys.hash_of(secret),
            role=role.value,
            created_ms=key.created_ms,
        )
        try:
            await self._database.write(lambda connection: connection.execute(statement))
        except sa.exc.IntegrityError as error:
            raise AlreadyExists("this API key is known already; choose another one") from error
        return key

    async def keys(self, project_id: str | None = None) -> list[ApiKey]:
        """Valid and revoked ones, oldest first; of all projects if none is named."""
        statement = sa.select(API_KEYS).order_by(API_KEYS.c.created_ms, API_KEYS.c.key_id)
        if project_id is not None:
            statement = statement.where(API_KEYS.c.project_id == project_id)
        found = await self._all(statement)
        return [rows.key_of(row) for row in found]

    async def revoke_key(self, key_id: str) -> None:
        """From now on the key is refused. `NotFound` if there is no such key; twice is fine."""

        def work(connection: Connection) -> int:
            known = API_KEYS.c.key_id == key_id
            if connection.execute(sa.select(API_KEYS.c.key_id).where(known)).first() is None:
                raise NotFound(f"there is no API key {key_id}; `firndb keys list` shows them")
            return connection.execute(
                sa.update(API_KEYS)
                .where(known, API_KEYS.c.revoked_ms.is_(None))
                .values(revoked_ms=self._clock.now_ms())
            ).rowcount

        await self._database.write(work)

    async def caller_of(self, key_hash: str) -> Caller | None:
        """Who the valid key with this hash belongs to."""
        statement = sa.select(API_KEYS).where(
            API_KEYS.c.key_hash == key_hash, API_KEYS.c.revoked_ms.is_(None)
        )
        row = await self._first(statement)
        if row is None or not keys.same_hash(row.key_hash, key_hash):
            return None
        return Caller(row.key_id, row.project_id, KeyRole(row.role))

    async def _first(self, statement: sa.Select[Any]) -> sa.Row[Any] | None:
        return await self._database.read(lambda connection: connection.execute(statement).first())

    async def _all(self, statement: sa.Select[Any]) -> list[sa.Row[Any]]:
        return await self._database.read(
            lambda connection: list(connection.execute(statement).all())
        )
