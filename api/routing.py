"""From a data plane request to the index it is for: by its port, or by its Host header."""

from starlette.requests import Request

from api.auth import Gate
from api.living import LivingIndexes
from core.errors import NotFound
from core.indexes import IndexInfo
from infra.catalog.model import Caller


class Router:
    """Proves the caller, then finds the index; an index of another project is simply not found."""

    def __init__(self, gate: Gate, living: LivingIndexes) -> None:
        self._gate = gate
        self._living = living

    async def index_to_read(self, request: Request) -> IndexInfo:
        return await self._index(request, await self._gate.reader(request))

    async def index_to_write(self, request: Request) -> IndexInfo:
        return await self._index(request, await self._gate.writer(request))

    async def _index(self, request: Request, caller: Caller) -> IndexInfo:
        _address, port = request.scope["server"]
        host = request.headers.get("host", "")
        found = await self._living.at(port, host, caller.project_id)
        if found is None:
            raise NotFound(
                "This is not the host of an index. Send data plane requests to the host that "
                "GET /indexes/{name} tells for the index."
            )
        return found.info
