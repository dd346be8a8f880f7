"""Request bodies, decoded and judged without holding up the event loop."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import msgspec

from core.turns import step_aside, step_aside_in_thread
from ingest.bodies import UpsertBody, decode_body, decode_upsert

B = TypeVar("B")
S = TypeVar("S", bound=msgspec.Struct)
R = TypeVar("R")

# A body of this size takes about half a millisecond to decode and check: a query by a vector of
# 3,000 dimensions. Bigger ones go to a thread, so that queries on the loop get their turns between.
INLINE_BYTES_MAX = 64 << 10


def in_json(body: bytes, kind: type[S], bytes_max: int) -> Callable[[], S]:
    """How to decode a JSON body, for `judged`: `InvalidRequest`, `TooLarge`."""
    return lambda: decode_body(body or b"{}", kind, bytes_max)


def upsert_in_json(body: bytes, bytes_max: int) -> Callable[[], UpsertBody]:
    """As `in_json`."""
    if len(body) <= INLINE_BYTES_MAX:
        return in_json(body, UpsertBody, bytes_max)
    return lambda: decode_upsert(body, bytes_max)


async def judged(body_bytes: int, given: Callable[[], B], judge: Callable[[B], R]) -> tuple[B, R]:
    """The body that `given` decodes, and what `judge` makes of it; their errors are passed on.

    body_bytes: its size on the wire, which decides where they run.
    """

    def work() -> tuple[B, R]:
        decoded = given()
        step_aside_in_thread()
        return decoded, judge(decoded)

    if body_bytes <= INLINE_BYTES_MAX:
        return work()
    await step_aside()
    return await asyncio.to_thread(work)
