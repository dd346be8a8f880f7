"""`GET /firndb/export`: a namespace as a Parquet file, streamed."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from api.vectors.calls import RestCalls
from api.vectors.plane import DataPlane
from query.export import Export

LSN = "x-firndb-lsn"
RECORDS = "x-firndb-records"
PARQUET = "application/vnd.apache.parquet"


class ExportRoutes:
    def __init__(self, calls: RestCalls, plane: DataPlane) -> None:
        self._calls = calls
        self._plane = plane

    def router(self) -> APIRouter:
        routes = APIRouter()
        routes.add_route("/firndb/export", self.export, methods=["GET"])
        return routes

    async def export(self, request: Request) -> Response:
        """The file ends with its footer: one that breaks off is not taken for a whole one."""
        call, _ = await self._calls.to_read(request)
        namespace = request.query_params.get("namespace")
        stack = AsyncExitStack()
        try:
            made = await stack.enter_async_context(self._plane.export(call, namespace))
        except BaseException:
            await stack.aclose()
            raise
        headers = {
            LSN: str(made.lsn),
            RECORDS: str(made.records),
            "content-disposition": 'attachment; filename="export.parquet"',
        }
        return StreamingResponse(_sent(made, stack), headers=headers, media_type=PARQUET)


async def _sent(made: Export, stack: AsyncExitStack) -> AsyncIterator[bytes]:
    async with stack:
        async for chunk in made.chunks:
            yield chunk
