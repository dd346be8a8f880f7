"""The audit log: who changed what in a project, and how it ended.

An entry is written before its change, as `begun`, and completed after it: no change is without an
entry, and a change that was made keeps its answer when the entry cannot be completed (it then
stays `begun`, which says that the outcome is not known). One transaction for both would tie every
change to one database transaction, which creating an index, a backup or an import is not.
"""

import logging
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from core.clock import Clock, SystemClock
from core.errors import Unavailable
from infra.catalog.database import Database
from infra.catalog.tables import AUDIT_LOG
from infra.settings import Settings

log = logging.getLogger(__name__)

BEGUN = "begun"
DONE = "done"
# Who changes things from the command line has the data folder or the database, not a key.
OPERATOR = "operator"

# Names come from URLs and bodies, which are longer than any name that exists.
TEXT_CHARS_MAX = 256
# Between two deletions of old entries: what a process may write beyond the bound.
PRUNE_EVERY = 64
PAGE_MAX = 1000


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """`key_id`: of the API key, or `operator`. `resource`: `index/movies`, `api-key/…`.

    `outcome`: `begun`, `done`, or `refused` or `failed` and the error's code.
    """

    audit_id: int
    at_ms: int
    project_id: str
    key_id: str
    request_id: str
    action: str
    resource: str
    outcome: str


class AuditLog:
    """Keeps `rows_max` entries of each project, none older than `age_s`."""

    def __init__(self, database: Database, clock: Clock, *, rows_max: int, age_s: float) -> None:
        self._database = database
        self._clock = clock
        self._rows_max = rows_max
        self._age_s = age_s
        self._unpruned: set[str] = set()
        self._written = 0
        self._pruned_at = 1 - PRUNE_EVERY

    @staticmethod
    def of(database: Database, settings: Settings, clock: Clock | None = None) -> "AuditLog":
        return AuditLog(
            database,
            clock or SystemClock(),
            rows_max=settings.audit_rows,
            age_s=settings.audit_age_s,
        )

    async def begin(
        self, project_id: str, key_id: str, request_id: str, action: str, resource: str
    ) -> int:
        """Before a change; returns what `end` needs. `Unavailable`: then nothing may be changed."""
        return await self._insert(project_id, key_id, request_id, action, resource, BEGUN)

    async def end(self, audit_id: int, project_id: str, resource: str, outcome: str) -> None:
        """After it. Never raises for a database that is away: what was done is done."""
        statement = (
            sa.update(AUDIT_LOG)
            .where(AUDIT_LOG.c.audit_id == audit_id)
            .values(project_id=project_id, resource=_kept(resource), outcome=_kept(outcome))
        )
        try:
            await self._database.write(lambda connection: connection.execute(statement))
        except Unavailable as error:
            log.error("audit entry %d of %s stays %s: %s", audit_id, resource, BEGUN, error)
            return
        await self._prune_at_times()

    async def record(
        self,
        project_id: str,
        key_id: str,
        request_id: str,
        action: str,
        resource: str,
        outcome: str = DONE,
    ) -> None:
        """In one step, for what was refused before it began. While the database is away the entry
        is lost.
        """
        try:
            await self._insert(project_id, key_id, request_id, action, resource, outcome)
        except Unavailable as error:
            log.error("no audit entry for %s of %s, %s: %s", action, resource, outcome, error)
            return
        await self._prune_at_times()

    async def entries(
        self,
        project_id: str | None,
        limit: int,
        since_ms: int | None = None,
        before: int | None = None,
    ) -> list[AuditEntry]:
        """The newest first, at most `limit`; of all projects if none is named.

        since_ms: inclusive. before: only those with a lower id, for the next page.
        """
        oldest = max(since_ms or 0, self._clock.now_ms() - int(self._age_s * 1000))
        statement = sa.select(AUDIT_LOG).where(AUDIT_LOG.c.at_ms >= oldest)
        if project_id is not None:
            statement = statement.where(AUDIT_LOG.c.project_id == project_id)
        if before is not None:
            statement = statement.where(AUDIT_LOG.c.audit_id < before)
        statement = statement.order_by(AUDIT_LOG.c.audit_id.desc()).limit(min(limit, PAGE_MAX))
        rows = await self._database.read(lambda connection: connection.execute(statement).all())
        return [AuditEntry(**row._mapping) for row in rows]

    async def _insert(
        self,
        project_id: str,
        key_id: str,
        request_id: str,
        action: str,
        resource: str,
        outcome: str,
    ) -> int:
        values: dict[str, Any] = {
            "at_ms": self._clock.now_ms(),
            "project_id": project_id,
            "key_id": key_id,
            "request_id": request_id,
            "action": action,
            "resource": _kept(resource),
            "outcome": _kept(outcome),
        }

        def work(connection: Connection) -> int:
            made = connection.execute(sa.insert(AUDIT_LOG).values(values)).inserted_primary_key
            assert made is not None
            return int(made[0])

        audit_id = await self._database.write(work)
        self._unpruned.add(project_id)
        self._written += 1
        return audit_id

    async def _prune_at_times(self) -> None:
        """At the first entry of a process, then at every `PRUNE_EVERY`th."""
        if self._written < self._pruned_at + PRUNE_EVERY:
            return
        self._pruned_at = self._written
        projects, self._unpruned = self._unpruned, set()
        oldest = self._clock.now_ms() - int(self._age_s * 1000)

        def work(connection: Connection) -> None:
            connection.execute(sa.delete(AUDIT_LOG).where(AUDIT_LOG.c.at_ms < oldest))
            for project_id in sorted(projects):
                of_project = AUDIT_LOG.c.project_id == project_id
                last = connection.scalar(
                    sa.select(AUDIT_LOG.c.audit_id)
                    .where(of_project)
                    .order_by(AUDIT_LOG.c.audit_id.desc())
                    .offset(self._rows_max)
                    .limit(1)
                )
                if last is not None:
                    connection.execute(
                        sa.delete(AUDIT_LOG).where(of_project, AUDIT_LOG.c.audit_id <= last)
                    )

        try:
            await self._database.write(work)
        except Unavailable as error:
            log.warning("old audit entries stay for now: %s", error)
            self._unpruned |= projects


def _kept(text: str) -> str:
    """Paths can hold anything; PostgreSQL takes no NUL."""
    return text[:TEXT_CHARS_MAX].replace("\0", "\ufffd")
