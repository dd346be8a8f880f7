"""The way in for every request that changes what a project has: by admins only, and audited."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

from api.auth import Gate, may_administer
from api.errors import meaning_of
from core.clock import Clock
from core.errors import Forbidden
from infra.catalog.audit import DONE, AuditLog
from infra.catalog.model import Caller

# Refusals for a key's role that are written down, per project and second: a client that repeats
# itself would otherwise write to the database as fast as it can, and push older entries out.
REFUSALS_A_SECOND = 5
# The client went away, or the server stops; what was begun may have been done.
CANCELLED = "failed: CANCELLED"


@dataclass(slots=True)
class Change:
    """One change under way. Project and resource can be set once they are known."""

    project_id: str
    resource: str


@dataclass(slots=True)
class RequestedChange:
    """A change that an admin asks for."""

    caller: Caller
    _entry: Change

    @property
    def resource(self) -> str:
        return self._entry.resource

    @resource.setter
    def resource(self, name: str) -> None:
        self._entry.resource = name


class Changes:
    """`async with changes.change(request, "index.delete", "index/movies") as change:`"""

    def __init__(self, gate: Gate, audit: AuditLog, clock: Clock) -> None:
        self._gate = gate
        self._audit = audit
        self._clock = clock
        self._refusals: dict[str, int] = {}
        self._refusals_of_s = 0

    @asynccontextmanager
    async def change(
        self, request: Request, action: str, resource: str
    ) -> AsyncIterator[RequestedChange]:
        """Proves an admin of the project, and audits how the block ends.

        `Unauthenticated`; `Forbidden` for another role. `Unavailable`: the entry cannot be written,
        so the block does not begin.
        """
        caller = await self._gate.reader(request)
        request_id: str = request.scope["firn.request_id"]
        who = (caller.project_id, caller.key_id, request_id)
        try:
            may_administer(caller)
        except Forbidden as error:
            if self._is_worth_an_entry(caller.project_id):
                await self._audit.record(*who, action, resource, _outcome_of(error))
            raise
        async with audited(self._audit, *who, action, resource) as entry:
            yield RequestedChange(caller, entry)

    def _is_worth_an_entry(self, project_id: str) -> bool:
        second = int(self._clock.monotonic())
        if second != self._refusals_of_s:
            self._refusals_of_s, self._refusals = second, {}
        self._refusals[project_id] = self._refusals.get(project_id, 0) + 1
        return self._refusals[project_id] <= REFUSALS_A_SECOND


@asynccontextmanager
async def audited(
    audit: AuditLog, project_id: str, key_id: str, request_id: str, action: str, resource: str
) -> AsyncIterator[Change]:
    """One entry for the block: `begun`, then how it ended."""
    audit_id = await audit.begin(project_id, key_id, request_id, action, resource)
    change, outcome = Change(project_id, resource), CANCELLED
    try:
        yield change
        outcome = DONE
    except Exception as error:
        outcome = _outcome_of(error)
        raise
    finally:
        await asyncio.shield(audit.end(audit_id, change.project_id, change.resource, outcome))


def _outcome_of(error: Exception) -> str:
    if isinstance(error, ClientDisconnect):
        return CANCELLED
    meaning = meaning_of(error)
    return f"{'refused' if meaning.status < 500 else 'failed'}: {meaning.code}"
