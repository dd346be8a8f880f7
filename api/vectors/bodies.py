"""Request bodies, read and judged without holding up the event loop."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import msgspec
from starlette.requests import Request

from ingest.bodies import decode_body

B = TypeVar("B", bound=msgspec.Struct)
R = TypeVar("R")

# A body of this size takes about half a millisecond to decode and check: a query by a vector of
# 3,000 dimensions. Bigger ones go to a thread, so that queries on the loop get their turns between.
INLINE_BYTES_MAX = 64 << 10


async def judged(
    request: Request, kind: type[B], judge: Callable[[B], R], bytes_max: int
) -> tuple[B, R]:
    """The body as `kind`, and what `judge` makes of it. `InvalidRequest`, `TooLarge`."""
    body = await request.body()

    def work() -> tuple[B, R]:
        decoded = decode_body(body or b"{}", kind, bytes_max)
        return decoded, judge(decoded)

    return work() if len(body) <= INLINE_BYTES_MAX else await asyncio.to_thread(work)
