"""The routes of the local admin endpoint: one per verb, answers as lines of JSON."""

from collections.abc import AsyncIterator
from contextlib import aclosing

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import StreamingResponse

from api.admin import admin_router
from cli.runtime.parts import Parts
from cli.runtime.verbs import run_verb
from core.errors import FirnError


def admin_routes(parts: Parts, token: str) -> APIRouter:
    """`POST /firndb/admin/{verb}` with JSON arguments; progress lines, then a result or error."""
    router = admin_router(token)

    async def run(verb: str, request: Request) -> StreamingResponse:
        arguments = orjson.loads(await request.body() or b"{}")
        return StreamingResponse(_lines(parts, verb, arguments), media_type="application/x-ndjson")

    router.add_api_route("/{verb}", run, methods=["POST"])
    return router


async def _lines(parts: Parts, verb: str, arguments: dict[str, object]) -> AsyncIterator[bytes]:
    try:
        async with aclosing(run_verb(parts, verb, arguments)) as lines:
            async for line in lines:
                yield orjson.dumps(line) + b"\n"
    except FirnError as error:
        yield orjson.dumps({"error": str(error)}) + b"\n"
