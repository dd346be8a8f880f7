"""From a data plane request to the index it is for: by its port, or by its Host header."""

from dataclasses import dataclass

from api.auth import Arrival, Gate
from api.living import LivingIndexes
from core.errors import NotFound
from core.indexes import IndexInfo
from infra.catalog.model import Caller, Spec


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks for what: a proved caller, and an index of its project with its spec."""

    caller: Caller
    index: IndexInfo
    spec: Spec


class Router:
    """Proves the caller, then finds the index; an index of another project is simply not found.

    `port`: the one that the client connected to; `host`: the one that it says it talks to.
    """

    def __init__(self, gate: Gate, living: LivingIndexes) -> None:
        self._gate = gate
        self._living = living

    async def to_read(self, request: Arrival, port: int, host: str) -> Asked:
        return await self._asked(await self._gate.reader(request), port, host)

    async def to_write(self, request: Arrival, port: int, host: str) -> Asked:
        return await self._asked(await self._gate.writer(request), port, host)

    async def _asked(self, caller: Caller, port: int, host: str) -> Asked:
        found = await self._living.at(port, host, caller.project_id)
        if found is None:
            raise NotFound(
                "This is not the host of an index. Send data plane requests to the host that "
                "GET /indexes/{name} tells for the index."
            )
        return Asked(caller, found.info, found.spec)
