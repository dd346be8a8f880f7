"""Requests do not stand in line behind the work of the background."""

import asyncio
import threading

from api.limits.turns import Turns
from infra.telemetry import Metrics
from infra.threads import WorkThreads
from tests.infra.held_clock import HeldClock


async def test_a_request_finds_a_thread_however_many_the_background_has_taken() -> None:
    threads = WorkThreads()
    asyncio.get_running_loop().set_default_executor(threads)
    release, turns = threading.Event(), Turns(1, HeldClock(), Metrics())
    background = [asyncio.create_task(asyncio.to_thread(release.wait)) for _ in range(100)]
    try:
        with turns.request():
            async with asyncio.timeout(30):
                name = await asyncio.to_thread(lambda: threading.current_thread().name)
        assert name.startswith("request")
    finally:
        release.set()
    assert await asyncio.gather(*background) == [True] * 100
    name = await asyncio.to_thread(lambda: threading.current_thread().name)
    assert name.startswith("background")
