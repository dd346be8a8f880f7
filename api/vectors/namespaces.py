"""The routes of the data plane that handle whole namespaces."""

from typing import Any
from urllib.parse import unquote

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.ports import Reads, Writes
from api.routing import Router
from api.vectors import answers, headers
from api.vectors.bodies import judged
from api.vectors.outcome import existed_before
from api.vectors.routes import page_limit
from core.errors import AlreadyExists, NotFound
from core.operations import DeleteNamespace
from ingest.validate import create_namespace
from ingest.vectors import checked_namespace
from query.model import NamespaceStats


class CreateBody(msgspec.Struct):
    """`schema` is accepted and needs nothing: every metadata field can be filtered by."""

    name: str
    schema: dict[str, Any] | None = None


class NamespaceRoutes:
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
        routes.add_route("/namespaces", self.create, methods=["POST"])
        routes.add_route("/namespaces", self.list, methods=["GET"])
        # A name may hold an encoded slash, which the path parameter shows as a plain one.
        routes.add_route("/namespaces/{name:path}", self.describe, methods=["GET"])
        routes.add_route("/namespaces/{name:path}", self.delete, methods=["DELETE"])
        return routes

    async def create(self, request: Request) -> Response:
        """409 if it existed at the moment of the creation in the log."""
        index = await self._router.index_to_write(request)
        body, operation = await judged(
            request,
            CreateBody,
            lambda b: create_namespace(checked_namespace(b.name)),
            self._bytes_max,
        )
        request_id: str = request.scope["firn.request_id"]
        lsn = await self._writes.write(index, body.name, (operation,), request_id=request_id)
        existed = await existed_before(self._reads, request, index, body.name, lsn)
        if existed:
            raise AlreadyExists(f"Namespace {body.name} already exists")
        made = answers.namespace_body(NamespaceStats(body.name, 0, 0), body.name)
        return answers.json_response(made, headers.written(lsn) | headers.decided(existed))

    async def list(self, request: Request) -> Response:
        index = await self._router.index_to_read(request)
        parameters = request.query_params
        result = await self._reads.namespaces(
            index,
            parameters.get("prefix", ""),
            page_limit(parameters.get("limit")),
            parameters.get("paginationToken") or None,
            headers.read_options(request),
        )
        body: dict[str, Any] = {
            "namespaces": [
                answers.namespace_body(n, headers.shown_namespace(request, n.name))
                for n in result.namespaces
            ],
            "total_count": result.total,
        }
        if result.next_token is not None:
            body["pagination"] = {"next": result.next_token}
        return answers.json_response(body, headers.seen(result.freshness))

    async def describe(self, request: Request) -> Response:
        index = await self._router.index_to_read(request)
        namespace = _named(request)
        options = headers.read_options(request)
        result = await self._reads.describe_namespace(index, namespace, options)
        shown = headers.shown_namespace(request, namespace)
        body = answers.namespace_body(result.namespace, shown)
        return answers.json_response(body, headers.seen(result.freshness))

    async def delete(self, request: Request) -> Response:
        """404 if it did not exist at the moment of the deletion in the log."""
        index = await self._router.index_to_write(request)
        namespace = _named(request)
        request_id: str = request.scope["firn.request_id"]
        lsn = await self._writes.write(
            index, namespace, (DeleteNamespace(),), request_id=request_id
        )
        existed = await existed_before(self._reads, request, index, namespace, lsn)
        if existed is False:
            raise NotFound("Namespace not found")
        return answers.json_response({}, headers.written(lsn) | headers.decided(existed))


def _named(request: Request) -> str:
    """The namespace of the path, from its raw form: only there `/` and `%2F` differ."""
    raw: bytes = request.scope["raw_path"]
    name = raw.split(b"?")[0].removeprefix(b"/namespaces/")
    if not name or b"/" in name:  # no name must not mean the default namespace, least to DELETE
        raise NotFound(f"There is nothing at {request.url.path}")
    return checked_namespace(unquote(name))
