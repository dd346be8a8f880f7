"""The freshness layer over HTTP, for query services in other processes. Bodies are msgpack
(`freshness.wire`).

421 says that the partition is somebody else's now: the reader looks for its owner again. Not for
the open network: no keys are checked here.
"""

import asyncio

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from core.errors import CorruptData
from freshness.layer import FreshnessLayer
from freshness.protocol import FreshStatus
from freshness.wire import (
    MEDIA_TYPE,
    decode_namespaces_request,
    decode_request,
    encode_answer,
    encode_plain,
)

NOT_OWNER = 421
# A filter of the largest size and ten thousand ids of 512 characters are 7 MB.
BODY_BYTES_MAX = 16 << 20
# Encoding some hundred records with vectors takes half a millisecond.
INLINE_RECORDS = 200


def freshness_router(layer: FreshnessLayer) -> APIRouter:
    """POST /read, /namespaces and /usage/{partition}."""
    router = APIRouter()

    async def read(request: Request) -> Response:
        try:
            asked = decode_request(await _body(request))
        except CorruptData as error:
            return _refused(error)
        answer = await layer.read(asked)
        if answer.status is FreshStatus.NOT_OWNER:
            return Response(status_code=NOT_OWNER)
        records = len(answer.hits) + len(answer.current) + len(answer.selected.records)
        if records + len(answer.patches) > INLINE_RECORDS:
            return _packed(await asyncio.to_thread(encode_answer, answer))
        return _packed(encode_answer(answer))

    async def namespaces(request: Request) -> Response:
        try:
            asked = decode_namespaces_request(await _body(request))
        except CorruptData as error:
            return _refused(error)
        answer = await layer.namespaces(asked)
        if answer.status is FreshStatus.NOT_OWNER:
            return Response(status_code=NOT_OWNER)
        return _packed(encode_plain(answer))

    async def usage(partition: int) -> Response:
        if partition not in layer.partitions:
            return Response(status_code=NOT_OWNER)
        return _packed(encode_plain(await layer.usage(partition)))

    router.add_api_route("/read", read, methods=["POST"])
    router.add_api_route("/namespaces", namespaces, methods=["POST"])
    router.add_api_route("/usage/{partition}", usage, methods=["POST"])
    return router


async def _body(request: Request) -> bytes:
    """`CorruptData` for one that no reader of ours would send."""
    parts = bytearray()
    async for part in request.stream():
        parts += part
        if len(parts) > BODY_BYTES_MAX:
            raise CorruptData(f"a request of more than {BODY_BYTES_MAX} bytes")
    return bytes(parts)


def _packed(body: bytes) -> Response:
    return Response(body, media_type=MEDIA_TYPE)


def _refused(error: CorruptData) -> Response:
    return Response(str(error), status_code=400, media_type="text/plain")
