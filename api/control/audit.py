"""`GET /firndb/audit`: the audit log of the caller's project, for its admins."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.auth import Gate
from api.control.body import json_response
from core.errors import InvalidRequest
from infra.catalog.audit import PAGE_MAX, AuditEntry, AuditLog

PAGE_DEFAULT = 100


class AuditRoutes:
    """Newest first; `before` takes the `next` of an answer, `since` a time as ISO 8601."""

    def __init__(self, gate: Gate, audit: AuditLog) -> None:
        self._gate = gate
        self._audit = audit

    def router(self) -> APIRouter:
        router = APIRouter()
        router.add_api_route("/firndb/audit", self.list, methods=["GET"])
        return router

    async def list(self, request: Request) -> Response:
        caller = await self._gate.admin(request)
        limit = _number(request, "limit")
        limit = PAGE_DEFAULT if limit is None else limit
        if not 1 <= limit <= PAGE_MAX:
            raise InvalidRequest(f"limit must be between 1 and {PAGE_MAX}, not {limit}")
        found = await self._audit.entries(
            caller.project_id,
            limit,
            since_ms=parse_time(request.query_params.get("since")),
            before=_number(request, "before"),
        )
        body: dict[str, Any] = {"entries": [shown(entry) for entry in found]}
        if len(found) == limit:
            body["next"] = str(found[-1].audit_id)
        return json_response(body)


def shown(entry: AuditEntry) -> dict[str, Any]:
    """One entry for people and programs."""
    plain = asdict(entry)
    plain["id"] = str(plain.pop("audit_id"))
    at = datetime.fromtimestamp(plain.pop("at_ms") / 1000, UTC)
    return {"time": at.isoformat(timespec="milliseconds"), **plain}


def parse_time(text: str | None) -> int | None:
    """Milliseconds since 1970 of an ISO 8601 time, in UTC unless it says otherwise."""
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
        return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"{text[:40]!r} is no time: give one such as 2026-01-31T18:00:00Z"
        ) from None


def _number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name)
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidRequest(f"{name} must be a whole number, not {text[:40]!r}")
    return int(text)
