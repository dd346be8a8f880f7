"""Backup schedules: `/indexes/{name}/backup-schedules`, `/backup-schedules`."""

from typing import Any, Literal

from fastapi import APIRouter
from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from api.auth import Gate
from api.control import rules
from api.control.backups import NAME_CHARS_MAX, check_no_pods, known_id, shown_backup
from api.control.body import decode, json_response
from api.control.changes import Changes
from api.control.pages import asked_page, page_body
from core.errors import InvalidRequest
from infra.catalog.backup_model import Frequency, Schedule, ScheduleChange
from infra.catalog.backups import Backups
from infra.catalog.catalog import Catalog
from infra.catalog.schedules import Schedules

RETENTION_DAYS_MAX = 3650
TYPE = "time-based"


class ScheduleTime(Struct):
    frequency: Frequency
    type: Literal["time-based"] = "time-based"


class Retention(Struct):
    expire_after_days: int


class CreateSchedule(Struct):
    name: str
    schedule: ScheduleTime
    retention: Retention


class UpdateSchedule(Struct):
    frequency: Frequency | None = None
    retention: Retention | None = None
    enabled: bool | None = None


class ScheduleRoutes:
    """Of the caller's project; what belongs to another one is not found."""

    def __init__(
        self,
        gate: Gate,
        changes: Changes,
        catalog: Catalog,
        backups: Backups,
        schedules: Schedules,
    ) -> None:
        self._gate = gate
        self._changes = changes
        self._catalog = catalog
        self._backups = backups
        self._schedules = schedules

    def router(self) -> APIRouter:
        router = APIRouter()
        of_index, one = "/indexes/{name}/backup-schedules", "/backup-schedules/{schedule_id}"
        router.add_api_route(of_index, self.create, methods=["POST"])
        router.add_api_route(of_index, self.list, methods=["GET"])
        router.add_api_route(one, self.describe, methods=["GET"])
        router.add_api_route(one, self.update, methods=["PATCH"])
        router.add_api_route(one, self.delete, methods=["DELETE"])
        router.add_api_route(f"{one}/history", self.history, methods=["GET"])
        return router

    async def create(self, request: Request, name: str) -> Response:
        action = "backup-schedule.create"
        async with self._changes.change(request, action, f"index/{name}") as change:
            wanted = decode(await request.body(), CreateSchedule)
            called = rules.check_text(wanted.name, "A schedule's name", NAME_CHARS_MAX)
            if called is None:
                raise InvalidRequest("A schedule needs a name")
            days = _checked_days(wanted.retention)
            index = await self._catalog.index(change.caller.project_id, name)
            check_no_pods(index)
            frequency = wanted.schedule.frequency
            made = await self._schedules.create(index, called, frequency, days)
            change.resource = f"backup-schedule/{made.schedule_id}"
        return json_response(shown_schedule(made), 201)

    async def list(self, request: Request, name: str) -> Response:
        caller = await self._gate.reader(request)
        limit, after = asked_page(request)
        index = await self._catalog.index(caller.project_id, name)
        page = await self._schedules.page(index.info.index_id, limit, after)
        return json_response(page_body(page, shown_schedule))

    async def describe(self, request: Request, schedule_id: str) -> Response:
        caller = await self._gate.reader(request)
        found = await self._schedules.get(caller.project_id, known_id(schedule_id))
        return json_response(shown_schedule(found))

    async def update(self, request: Request, schedule_id: str) -> Response:
        resource = f"backup-schedule/{schedule_id}"
        async with self._changes.change(request, "backup-schedule.update", resource) as change:
            wanted = decode(await request.body(), UpdateSchedule)
            wants = ScheduleChange(
                frequency=wanted.frequency,
                retention_days=None
                if wanted.retention is None
                else _checked_days(wanted.retention),
                enabled=wanted.enabled,
            )
            called = known_id(schedule_id)
            after = await self._schedules.update(change.caller.project_id, called, wants)
        return json_response(shown_schedule(after))

    async def delete(self, request: Request, schedule_id: str) -> Response:
        resource = f"backup-schedule/{schedule_id}"
        async with self._changes.change(request, "backup-schedule.delete", resource) as change:
            await self._schedules.delete(change.caller.project_id, known_id(schedule_id))
        return Response(status_code=202)

    async def history(self, request: Request, schedule_id: str) -> Response:
        """The backups that it has made, and that are still there."""
        caller = await self._gate.reader(request)
        limit, after = asked_page(request)
        found = await self._schedules.get(caller.project_id, known_id(schedule_id))
        page = await self._backups.page(
            caller.project_id, limit, after, schedule_id=found.schedule_id
        )
        return json_response(page_body(page, lambda one: shown_backup(one, request)))


def shown_schedule(schedule: Schedule) -> dict[str, Any]:
    return {
        "schedule_id": schedule.schedule_id,
        "name": schedule.name,
        "index_id": schedule.index_id,
        "project_id": schedule.project_id,
        "schedule_type": TYPE,
        "frequency": schedule.frequency.value,
        "retention_expire_after_days": schedule.retention_days,
        "enabled": schedule.enabled,
        "next_scheduled_run": rules.shown_time(schedule.next_run_ms),
        "created_at": rules.shown_time(schedule.created_ms),
    }


def _checked_days(retention: Retention) -> int:
    days = retention.expire_after_days
    if not 1 <= days <= RETENTION_DAYS_MAX:
        raise InvalidRequest(
            f"retention.expire_after_days must be between 1 and {RETENTION_DAYS_MAX}, not {days}"
        )
    return days
