"""`firndb serve` on Kafka: the gateway in this process, the Faust roles as supervised children.

A Faust worker wants an event loop and a process of its own. A child that ends is started again,
after a wait that doubles while it keeps failing. Children end with this process however it dies:
each reads a pipe whose other end is here, and stops when that closes.
"""

import asyncio
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from cli.runtime.parts import check_reachable
from cli.runtime.roles import serve_api
from infra.settings import Settings

log = logging.getLogger(__name__)

ROLES = ("builder", "freshness")
BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 30.0
# A child that lived this long was healthy: the next failure starts with the shortest wait again.
HEALTHY_S = 60.0
# Longer than a builder's last flush (20 s) and a Faust worker's departure (10 s) together.
STOP_S = 40.0


@dataclass(slots=True)
class Child:
    """One supervised role: running until `stop` is called."""

    role: str
    folder: Path
    process: asyncio.subprocess.Process | None = None

    async def run(self) -> None:
        """Start it, wait for its end, start it again; for ever."""
        wait_s = BACKOFF_FIRST_S
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                self.process = await self._start()
            except OSError as error:  # no memory or no process number left, for now
                log.error("%s does not start: %s; again in %.1f s", self.role, error, wait_s)
            else:
                log.info("%s runs as process %d", self.role, self.process.pid)
                status = await self.process.wait()
                if loop.time() - began > HEALTHY_S:
                    wait_s = BACKOFF_FIRST_S
                log.error("%s ended with status %d; again in %.1f s", self.role, status, wait_s)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, BACKOFF_MAX_S)

    async def _start(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cli.main", self.role, "--supervised"),
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C at a terminal is for us: we stop them in order
            env={**os.environ, "FIRNDB_DATA": str(self.folder)},
        )

    async def stop(self) -> None:
        """Ask it to end and wait; a child that does not is killed."""
        process = self.process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            log.error("%s does not end; killing it", self.role)
            process.kill()
            await process.wait()


async def serve_distributed(settings: Settings, stopped: asyncio.Event) -> None:
    """All roles, until `stopped` is set. What cannot be reached is told once, before they start."""
    # Once here, instead of a complaint of each role, and a race for topics and tables.
    await check_reachable(settings)
    children = [Child(role, settings.data.absolute()) for role in ROLES]
    running = [asyncio.create_task(child.run()) for child in children]
    try:
        await serve_api(settings, stopped)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await asyncio.gather(*(child.stop() for child in children))
