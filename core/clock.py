"""Time and unique ids, injected wherever a test wants to hold them still."""

import asyncio
import time
import uuid
from typing import Protocol


class Clock(Protocol):
    def now_ms(self) -> int:
        """Wall clock, milliseconds since 1970, for people and stored timestamps."""

    def monotonic(self) -> float:
        """Seconds that never go back, for ages and deadlines."""

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's own clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def new_uuid() -> str:
    """32 hex digits, random; the name of a file, a commit, a request."""
    return uuid.uuid4().hex
