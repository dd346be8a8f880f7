"""The routes of bulk imports: asked for here, done by whoever runs the index builder."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.vectors import answers
from api.vectors.calls import RestCalls
from api.vectors.plane import page_size
from api.vectors.routes import page_limit
from core.errors import InvalidRequest, NotFound
from core.limits import IMPORT_ID_CHARS_MAX
from infra.catalog.imports import ErrorMode, Import, ImportState, ImportStore
from infra.imports.locations import ImportLocations
from ingest.bodies import decode_body
from query.records import decode_token, encode_token

# Building is nearly all of the work; the rest is attaching.
_BUILT_PERCENT = 99.0


class ErrorModeBody(msgspec.Struct, rename="camel"):
    """What a row that is no record does: `continue` leaves it out, `abort` ends the import."""

    on_error: ErrorMode | None = None


class ImportBody(msgspec.Struct, kw_only=True, rename="camel"):
    """`uri`: a folder with a sub-folder of Parquet files for each namespace."""

    uri: str
    error_mode: ErrorModeBody | None = None
    integration_id: str | None = None


class ImportRoutes:
    """Each method is one route; the request's host names the index."""

    def __init__(
        self,
        calls: RestCalls,
        imports: ImportStore,
        locations: ImportLocations,
        max_request_bytes: int,
    ) -> None:
        self._calls = calls
        self._imports = imports
        self._locations = locations
        self._bytes_max = max_request_bytes

    def router(self) -> APIRouter:
        routes = APIRouter()
        routes.add_route("/bulk/imports", self.start, methods=["POST"])
        routes.add_route("/bulk/imports", self.list, methods=["GET"])
        routes.add_route("/bulk/imports/{import_id}", self.describe, methods=["GET"])
        routes.add_route("/bulk/imports/{import_id}", self.cancel, methods=["DELETE"])
        return routes

    async def start(self, request: Request) -> Response:
        call, given = await self._calls.to_write(request)
        body = decode_body(given or b"{}", ImportBody, self._bytes_max)
        integration = body.integration_id or ""
        self._locations.place(body.uri, integration)
        chosen = None if body.error_mode is None else body.error_mode.on_error
        made = await self._imports.create(
            call.index.index_id, body.uri, chosen or ErrorMode.CONTINUE, integration
        )
        return answers.json_response({"id": made.import_id})

    async def list(self, request: Request) -> Response:
        call, _ = await self._calls.to_read(request)
        asked = request.query_params
        limit = page_size(page_limit(asked.get("limit")))
        token = asked.get("paginationToken")
        after = decode_token(token) if token else ""
        try:
            found = await self._imports.page(call.index.index_id, limit + 1, after)
        except NotFound as error:
            raise InvalidRequest(
                "the pagination token is not one that this server gave, or its import is forgotten"
            ) from error
        answer: dict[str, Any] = {"data": [_shown(one) for one in found[:limit]]}
        if len(found) > limit:
            answer["pagination"] = {"next": encode_token(found[limit - 1].import_id)}
        return answers.json_response(answer)

    async def describe(self, request: Request) -> Response:
        call, _ = await self._calls.to_read(request)
        found = await self._imports.get(call.index.index_id, _id_of(request))
        return answers.json_response(_shown(found))

    async def cancel(self, request: Request) -> Response:
        """One that has ended already stays as it is."""
        call, _ = await self._calls.to_write(request)
        await self._imports.cancel(call.index.index_id, _id_of(request))
        return answers.json_response({})


def _id_of(request: Request) -> str:
    import_id: str = request.path_params["import_id"]
    if len(import_id) > IMPORT_ID_CHARS_MAX:
        raise InvalidRequest(f"An import's id has {IMPORT_ID_CHARS_MAX} characters at most.")
    return import_id


def _shown(one: Import) -> dict[str, Any]:
    """As Pinecone's clients read it; what rows were left out, and why, under FirnDB's own name."""
    progress = one.progress
    percent = 100.0
    if one.state is not ImportState.COMPLETED:
        percent = _BUILT_PERCENT * progress.bytes_done / max(1, progress.bytes_total)
    shown: dict[str, Any] = {
        "id": one.import_id,
        "uri": one.uri,
        "status": one.state.value,
        "createdAt": _time(one.created_ms),
        "percentComplete": round(percent, 1),
        "recordsImported": progress.records,
    }
    if one.finished_ms is not None:
        shown["finishedAt"] = _time(one.finished_ms)
    if one.error:
        shown["error"] = one.error
    if progress.skipped:
        shown["firndb"] = {"rowsSkipped": progress.skipped, "reasons": list(progress.reasons)}
    return shown


def _time(at_ms: int) -> str:
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
