"""The routes of the data plane that handle whole namespaces."""

from typing import Any
from urllib.parse import unquote

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.path_names import NAME
from api.vectors import answers, headers
from api.vectors.bodies import in_json
from api.vectors.calls import RestCalls
from api.vectors.documents import is_of_documents, refusal
from api.vectors.plane import DataPlane
from api.vectors.routes import page_limit
from core.errors import NotFound
from ingest.bodies import CreateNamespaceBody


class NamespaceRoutes:
    """Each method is one route; the request's host names the index."""

    def __init__(self, calls: RestCalls, plane: DataPlane, max_request_bytes: int) -> None:
        self._calls = calls
        self._plane = plane
        self._bytes_max = max_request_bytes

    def router(self) -> APIRouter:
        routes = APIRouter()
        routes.add_route("/namespaces", self.create, methods=["POST"])
        routes.add_route("/namespaces", self.list, methods=["GET"])
        # A name may hold an encoded slash, which the path parameter shows as a plain one.
        routes.add_route(f"/namespaces/{NAME}", self.describe, methods=["GET"])
        routes.add_route(f"/namespaces/{NAME}", self.delete, methods=["DELETE"])
        return routes

    async def create(self, request: Request) -> Response:
        call, body = await self._calls.to_write(request)
        done = await self._plane.create_namespace(
            call, in_json(body, CreateNamespaceBody, self._bytes_max)
        )
        made = answers.namespace_body(done.namespace, done.namespace.name)
        return answers.json_response(
            made, headers.written(done.lsn) | headers.decided(done.existed)
        )

    async def list(self, request: Request) -> Response:
        call, _ = await self._calls.to_read(request)
        asked = request.query_params
        found = await self._plane.list_namespaces(
            call,
            asked.get("prefix", ""),
            page_limit(asked.get("limit")),
            asked.get("paginationToken"),
        )
        answer: dict[str, Any] = {
            "namespaces": [
                answers.namespace_body(n, headers.shown_namespace(request.headers, n.name))
                for n in found.namespaces
            ],
            "total_count": found.total,
        }
        if found.next_token is not None:
            answer["pagination"] = {"next": found.next_token}
        return answers.json_response(answer, headers.seen(found.freshness))

    async def describe(self, request: Request) -> Response:
        call, _ = await self._calls.to_read(request)
        found = await self._plane.describe_namespace(call, _named(request))
        shown = headers.shown_namespace(request.headers, found.namespace.name)
        answer = answers.namespace_body(found.namespace, shown)
        return answers.json_response(answer, headers.seen(found.freshness))

    async def delete(self, request: Request) -> Response:
        call, _ = await self._calls.to_write(request)
        done = await self._plane.delete_namespace(call, _named(request))
        return answers.json_response({}, headers.written(done.lsn) | headers.decided(done.existed))


def _named(request: Request) -> str:
    """The namespace of the path, from its raw form: only there `/` and `%2F` differ."""
    raw: bytes = request.scope["raw_path"]
    name = raw.split(b"?")[0].removeprefix(b"/namespaces/")
    if is_of_documents(name):
        raise refusal()
    if not name or b"/" in name:
        raise NotFound(f"There is nothing at {request.url.path}")
    return unquote(name)
