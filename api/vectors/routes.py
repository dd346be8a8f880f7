"""The data plane's routes for records: upsert, query, fetch, update, delete, list, stats."""

from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.errors import NotSupported
from api.ports import Reads, Writes
from api.routing import Router
from api.vectors import answers, headers
from api.vectors.bodies import judged
from api.vectors.outcome import existed_before
from core.errors import InvalidRequest, NotFound
from core.indexes import IndexInfo
from core.limits import FETCH_IDS_MAX, LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX
from core.operations import Operation
from ingest import validate
from ingest.bodies import DeleteBody, QueryBody, UpdateBody, UpsertBody
from ingest.search import search
from ingest.vectors import checked_namespace
from query.model import QueryRequest


class StatsBody(msgspec.Struct):
    filter: dict[str, Any] | None = None


class VectorRoutes:
    """Each method is one route; the request's host names the index."""

    def __init__(
        self, router: Router, writes: Writes, reads: Reads, max_request_bytes: int
    ) -> None:
        self._router = router
        self._writes = writes
        self._reads = reads
        self._bytes_max = max_request_bytes

    def router(self) -> APIRouter:
        routes = APIRouter()
        routes.add_route("/vectors/upsert", self.upsert, methods=["POST"])
        routes.add_route("/query", self.query, methods=["POST"])
        routes.add_route("/vectors/fetch", self.fetch, methods=["GET"])
        routes.add_route("/vectors/update", self.update, methods=["POST"])
        routes.add_route("/vectors/delete", self.delete, methods=["POST"])
        routes.add_route("/vectors/list", self.list, methods=["GET"])
        routes.add_route("/describe_index_stats", self.stats, methods=["GET", "POST"])
        return routes

    async def upsert(self, request: Request) -> Response:
        index = await self._router.index_to_write(request)
        body, operation = await judged(
            request, UpsertBody, lambda b: validate.upsert(b.vectors, index), self._bytes_max
        )
        lsn = await self._write(request, index, checked_namespace(body.namespace), operation)
        return answers.json_response({"upsertedCount": len(body.vectors)}, headers.written(lsn))

    async def query(self, request: Request) -> Response:
        index = await self._router.index_to_read(request)
        options = headers.read_options(request)
        explain = headers.is_set(request, headers.EXPLAIN)
        _, wanted = await judged(request, QueryBody, lambda b: search(b, index), self._bytes_max)
        result = await self._reads.query(
            index,
            wanted.namespace,
            QueryRequest(
                top_k=wanted.top_k,
                vector=wanted.vector,
                id=wanted.id,
                sparse=wanted.sparse,
                filter=wanted.filter,
                include_values=wanted.include_values,
                include_metadata=wanted.include_metadata,
                exhaustive=headers.is_set(request, headers.EXHAUSTIVE),
                explain=explain,
                options=options,
            ),
        )
        shown = headers.shown_namespace(request, wanted.namespace)
        body = answers.query_body(result.matches, shown, result.cost, explain)
        return answers.raw_response(body, headers.seen(result.freshness))

    async def fetch(self, request: Request) -> Response:
        index = await self._router.index_to_read(request)
        parameters = request.query_params
        namespace = checked_namespace(parameters.get("namespace"))
        ids = validate.checked_ids(parameters.getlist("ids"), FETCH_IDS_MAX)
        options = headers.read_options(request)
        result = await self._reads.fetch(index, namespace, ids, options)
        shown = headers.shown_namespace(request, namespace)
        body = answers.fetch_body(result.records, shown, result.cost)
        return answers.raw_response(body, headers.seen(result.freshness))

    async def update(self, request: Request) -> Response:
        """By filter, too, but without `matchedRecords`: that count is not known at the write."""
        index = await self._router.index_to_write(request)
        body, operation = await judged(
            request, UpdateBody, lambda b: validate.update(b, index), self._bytes_max
        )
        if body.dry_run and body.id is None:
            raise NotSupported("This server cannot count what a filter matches: leave out dryRun")
        lsn = await self._write(request, index, checked_namespace(body.namespace), operation)
        return answers.json_response({}, headers.written(lsn))

    async def delete(self, request: Request) -> Response:
        """404 if the namespace did not exist at the moment of the deletion in the log."""
        index = await self._router.index_to_write(request)
        body, operation = await judged(request, DeleteBody, validate.delete, self._bytes_max)
        namespace = checked_namespace(body.namespace)
        lsn = await self._write(request, index, namespace, operation)
        existed = await existed_before(self._reads, request, index, namespace, lsn)
        if existed is False:
            raise NotFound("Namespace not found")
        return answers.json_response({}, headers.written(lsn) | headers.decided(existed))

    async def list(self, request: Request) -> Response:
        index = await self._router.index_to_read(request)
        parameters = request.query_params
        namespace = checked_namespace(parameters.get("namespace"))
        result = await self._reads.list_ids(
            index,
            namespace,
            parameters.get("prefix", ""),
            page_limit(parameters.get("limit")),
            parameters.get("paginationToken") or None,
            headers.read_options(request),
        )
        body: dict[str, Any] = {
            "vectors": [{"id": record_id} for record_id in result.ids],
            "namespace": headers.shown_namespace(request, namespace),
            "usage": answers.usage(result.cost),
        }
        if result.next_token is not None:
            body["pagination"] = {"next": result.next_token}
        return answers.json_response(body, headers.seen(result.freshness))

    async def stats(self, request: Request) -> Response:
        index = await self._router.index_to_read(request)
        body, _ = await judged(request, StatsBody, lambda b: b, self._bytes_max)
        if body.filter:
            raise InvalidRequest("Serverless indexes do not support describing stats with a filter")
        result = await self._reads.stats(index, headers.read_options(request))
        shown: dict[str, Any] = {
            "namespaces": {
                headers.shown_namespace(request, name): {"vectorCount": stats.record_count}
                for name, stats in result.namespaces.items()
            },
            "indexFullness": 0.0,
            "totalVectorCount": result.total,
            "metric": index.metric.value,
            "vectorType": index.vector_type.value,
            "memoryFullness": 0.0,
            "storageFullness": 0.0,
        }
        if index.dimension is not None:
            shown["dimension"] = index.dimension
        return answers.json_response(shown, headers.seen(result.freshness))

    async def _write(
        self, request: Request, index: IndexInfo, namespace: str, operation: Operation
    ) -> int:
        request_id: str = request.scope["firn.request_id"]
        return await self._writes.write(index, namespace, (operation,), request_id=request_id)


def page_limit(asked: str | None) -> int:
    """The size of a page; `InvalidRequest` if it is none."""
    if asked is None or asked == "":
        return LIST_LIMIT_DEFAULT
    if not asked.isascii() or not asked.isdigit() or not 1 <= int(asked[:9]) <= LIST_LIMIT_MAX:
        raise InvalidRequest(f"limit must be between 1 and {LIST_LIMIT_MAX}, not {asked!r}")
    return int(asked)
