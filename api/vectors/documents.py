"""The documents API, which this server does not have: every request for it says so.

`GET` and `DELETE` of `/namespaces/a/documents/b` come to the routes of namespaces, which ask here
before they take `a/documents/b` for a name.
"""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from api.errors import NotSupported
from api.path_names import NAME
from api.vectors.calls import RestCalls

METHODS = ("POST", "PUT", "PATCH")


class DocumentRoutes:
    """Refuses after the caller is proved, as every route does."""

    def __init__(self, calls: RestCalls) -> None:
        self._calls = calls

    def router(self) -> APIRouter:
        routes = APIRouter()
        path = f"/namespaces/{NAME}/documents/{{operation:path}}"
        routes.add_route(path, self.refuse, methods=list(METHODS))
        return routes

    async def refuse(self, request: Request) -> Response:
        await self._calls.to_read(request)
        raise refusal()


def is_of_documents(raw_name: bytes) -> bool:
    """raw_name: what follows `/namespaces/` in the raw path, where `/` and `%2F` differ."""
    return raw_name.split(b"/")[1:2] == [b"documents"]


def refusal() -> NotSupported:
    return NotSupported(
        "This server does not have the documents API: write and search vectors with "
        "/vectors/upsert and /query, or texts with /records/namespaces/{namespace}/upsert and "
        "/records/namespaces/{namespace}/search"
    )
