"""From an HTTP request to a `Call` of the data plane."""

from starlette.requests import Request

from api.routing import Asked, Router
from api.vectors import headers
from api.vectors.plane import Call
from query.model import DEFAULT_READ, ReadOptions


class RestCalls:
    """Proves the caller and finds the index before it takes in the body."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def to_read(self, request: Request) -> tuple[Call, bytes]:
        """The call and its body; reads say in their headers how fresh the answer must be."""
        asked = await self._router.to_read(request, *_place(request))
        return await _call(request, asked, headers.read_options(request.headers))

    async def to_write(self, request: Request) -> tuple[Call, bytes]:
        asked = await self._router.to_write(request, *_place(request))
        return await _call(request, asked, DEFAULT_READ)


def _place(request: Request) -> tuple[int, str]:
    _address, port = request.scope["server"]
    return port, request.headers.get("host", "")


async def _call(request: Request, asked: Asked, options: ReadOptions) -> tuple[Call, bytes]:
    body = await request.body()
    request_id: str = request.scope["firn.request_id"]
    return Call(asked.caller, asked.index, request_id, options, len(body), asked.spec), body
