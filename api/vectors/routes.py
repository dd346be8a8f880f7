"""The data plane's routes for records: upsert, query, fetch, update, delete, list, stats."""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.vectors import answers, headers
from api.vectors.bodies import in_json, upsert_in_json
from api.vectors.calls import RestCalls
from api.vectors.plane import DataPlane
from core.errors import InvalidRequest
from core.limits import LIST_LIMIT_MAX
from ingest.bodies import (
    DeleteBody,
    FetchByMetadataBody,
    QueryBody,
    StatsBody,
    UpdateBody,
)


class VectorRoutes:
    """Each method is one route; the request's host names the index."""

    def __init__(self, calls: RestCalls, plane: DataPlane, max_request_bytes: int) -> None:
        self._calls = calls
        self._plane = plane
        self._bytes_max = max_request_bytes

    def router(self) -> APIRouter:
        routes = APIRouter()
        routes.add_route("/vectors/upsert", self.upsert, methods=["POST"])
        routes.add_route("/query", self.query, methods=["POST"])
        routes.add_route("/vectors/fetch", self.fetch, methods=["GET"])
        routes.add_route("/vectors/fetch_by_metadata", self.fetch_by_metadata, methods=["POST"])
        routes.add_route("/vectors/update", self.update, methods=["POST"])
        routes.add_route("/vectors/delete", self.delete, methods=["POST"])
        routes.add_route("/vectors/list", self.list, methods=["GET"])
        routes.add_route("/describe_index_stats", self.stats, methods=["GET", "POST"])
        return routes

    async def upsert(self, request: Request) -> Response:
        call, body = await self._calls.to_write(request)
        done = await self._plane.upsert(call, upsert_in_json(body, self._bytes_max))
        return answers.json_response({"upsertedCount": done.count}, headers.written(done.lsn))

    async def query(self, request: Request) -> Response:
        call, body = await self._calls.to_read(request)
        explain = headers.is_set(request.headers, headers.EXPLAIN)
        found = await self._plane.query(
            call,
            in_json(body, QueryBody, self._bytes_max),
            exhaustive=headers.is_set(request.headers, headers.EXHAUSTIVE),
            explain=explain,
        )
        shown = headers.shown_namespace(request.headers, found.namespace)
        answer = await answers.apart(
            found.matches,
            lambda: answers.query_body(found.matches, shown, found.cost, explain),
        )
        return answers.raw_response(answer, headers.seen(found.freshness))

    async def fetch(self, request: Request) -> Response:
        call, _ = await self._calls.to_read(request)
        asked = request.query_params
        found = await self._plane.fetch(call, asked.get("namespace"), asked.getlist("ids"))
        shown = headers.shown_namespace(request.headers, found.namespace)
        answer = await answers.apart(
            found.records.values(), lambda: answers.fetch_body(found.records, shown, found.cost)
        )
        return answers.raw_response(answer, headers.seen(found.freshness))

    async def fetch_by_metadata(self, request: Request) -> Response:
        call, body = await self._calls.to_read(request)
        found = await self._plane.fetch_by_metadata(
            call, in_json(body, FetchByMetadataBody, self._bytes_max)
        )
        shown = headers.shown_namespace(request.headers, found.namespace)
        answer = await answers.apart(
            found.records.values(),
            lambda: answers.fetch_body(found.records, shown, found.cost, found.next_token),
        )
        return answers.raw_response(answer, headers.seen(found.freshness))

    async def update(self, request: Request) -> Response:
        call, body = await self._calls.to_write(request)
        done = await self._plane.update(call, in_json(body, UpdateBody, self._bytes_max))
        answer = {} if done.matched is None else {"matchedRecords": done.matched}
        told = {} if done.lsn is None else headers.written(done.lsn)
        if done.by_filter:
            told |= headers.decided(done.matched)
        return answers.json_response(answer, told)

    async def delete(self, request: Request) -> Response:
        call, body = await self._calls.to_write(request)
        done = await self._plane.delete(call, in_json(body, DeleteBody, self._bytes_max))
        return answers.json_response({}, headers.written(done.lsn) | headers.decided(done.existed))

    async def list(self, request: Request) -> Response:
        call, _ = await self._calls.to_read(request)
        asked = request.query_params
        found = await self._plane.list_ids(
            call,
            asked.get("namespace"),
            asked.get("prefix", ""),
            page_limit(asked.get("limit")),
            asked.get("paginationToken"),
        )
        answer: dict[str, Any] = {
            "vectors": [{"id": record_id} for record_id in found.ids],
            "namespace": headers.shown_namespace(request.headers, found.namespace),
            "usage": answers.usage(found.cost),
        }
        if found.next_token is not None:
            answer["pagination"] = {"next": found.next_token}
        return answers.json_response(answer, headers.seen(found.freshness))

    async def stats(self, request: Request) -> Response:
        call, body = await self._calls.to_read(request)
        found = await self._plane.stats(call, in_json(body, StatsBody, self._bytes_max))
        answer: dict[str, Any] = {
            "namespaces": {
                headers.shown_namespace(request.headers, name): {"vectorCount": stats.record_count}
                for name, stats in found.namespaces.items()
            },
            "indexFullness": 0.0,
            "totalVectorCount": found.total,
            "metric": call.index.metric.value,
            "vectorType": call.index.vector_type.value,
            # clients read the one or the other
            **dict.fromkeys(("memoryFullness", "memory_fullness"), 0.0),
            **dict.fromkeys(("storageFullness", "storage_fullness"), 0.0),
        }
        if call.index.dimension is not None:
            answer["dimension"] = call.index.dimension
        return answers.json_response(answer, headers.seen(found.freshness))


def page_limit(asked: str | None) -> int | None:
    """The size of a page, None for the default; `InvalidRequest` if it is no whole number."""
    if asked is None or asked == "":
        return None
    if not asked.isascii() or not asked.isdigit() or len(asked) > 9:
        raise InvalidRequest(f"limit must be between 1 and {LIST_LIMIT_MAX}, not {asked!r}")
    return int(asked)
