"""A role is started again, also if for a moment the machine cannot start any process."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cli.runtime import supervisor
from cli.runtime.supervisor import Child


async def test_a_role_that_could_not_be_started_is_started_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "BACKOFF_FIRST_S", 0.001)
    tries, started = 0, asyncio.Event()

    async def no_process(*_: Any, **__: Any) -> None:
        nonlocal tries
        tries += 1
        if tries == 3:
            started.set()
        raise BlockingIOError("no process number left")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", no_process)
    running = asyncio.create_task(Child("builder", tmp_path).run())
    async with asyncio.timeout(10):
        await started.wait()
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
