"""`GET /firndb/audit`: the audit log of the caller's project, for its admins."""

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.auth import Gate
from api.control.body import json_response
from core.errors import InvalidRequest
from core.times import parse_time, shown_time
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
        since = request.query_params.get("since")
        found = await self._audit.entries(
            caller.project_id,
            limit,
            since_ms=parse_time(since) if since else None,
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
    return {"time": shown_time(plain.pop("at_ms")), **plain}


def _number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name)
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidRequest(f"{name} must be a whole number, not {text[:40]!r}")
    return int(text)
