"""From an HTTP request to a `Call` of the data plane."""

from starlette.requests import Request

from api.limits.tenants import Tenants
from api.routing import Asked, Router
from api.vectors import headers
from api.vectors.bodies import INLINE_BYTES_MAX
from api.vectors.plane import Call
from core.turns import step_aside
from query.model import DEFAULT_READ, ReadOptions


class RestCalls:
    """Proves the caller and finds the index before it takes in the body."""

    def __init__(self, router: Router, tenants: Tenants) -> None:
        self._router = router
        self._tenants = tenants

    async def to_read(self, request: Request) -> tuple[Call, bytes]:
        """The call and its body; reads say in their headers how fresh the answer must be."""
        asked = await self._router.to_read(request, *_place(request))
        return await self._call(request, asked, headers.read_options(request.headers))

    async def to_write(self, request: Request) -> tuple[Call, bytes]:
        asked = await self._router.to_write(request, *_place(request))
        return await self._call(request, asked, DEFAULT_READ)

    async def _call(
        self, request: Request, asked: Asked, options: ReadOptions
    ) -> tuple[Call, bytes]:
        body = await self._body(request, asked)
        request_id: str = request.scope["firn.request_id"]
        return Call(asked.caller, asked.index, request_id, options, len(body), asked.spec), body

    async def _body(self, request: Request, asked: Asked) -> bytes:
        """A big one is taken in piece by piece, and not while others go first: its sender is held
        back by what is not read.
        """
        announced = request.headers.get("content-length", "")
        if announced.isdigit() and int(announced) <= INLINE_BYTES_MAX:
            return await request.body()
        self._tenants.sends(asked.index)
        parts: list[bytes] = []
        async for part in request.stream():
            parts.append(part)
            await step_aside()
        return b"".join(parts)


def _place(request: Request) -> tuple[int, str]:
    _address, port = request.scope["server"]
    return port, request.headers.get("host", "")
