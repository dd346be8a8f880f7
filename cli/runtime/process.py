"""A process's life around what it serves: its event loop, its signals, its supervisor."""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable

from infra.settings import Settings
from infra.telemetry import configure_logging
from infra.threads import WorkThreads

log = logging.getLogger(__name__)

# Rounds over the middle-aged objects before one over all; Python's own is 10.
FULL_ROUNDS_AFTER = 100
# How long a thread keeps the interpreter while others wait for it; Python's own is 5 ms, and the
# loop may have to wait so long at each of the ten crossings of a query.
SWITCH_S = 0.0002

Serve = Callable[[Settings, asyncio.Event], Awaitable[None]]


def run_process(serve: Serve, settings: Settings, *, supervised: bool = False) -> None:
    """Run `serve` until SIGTERM, SIGINT or the supervisor's end sets its event, or it raises.

    `supervised`: standard input is a pipe that the supervisor holds; its end is the end of us, so
    that no role outlives a supervisor that was killed. A second signal ends the process at once:
    what was acknowledged is in the log.
    """
    configure_logging(settings.log_level, settings.log_format)

    settle_interpreter()

    async def run() -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.set_default_executor(WorkThreads())
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _stop_at, number, stopped, supervised)
        if supervised:
            loop.add_reader(sys.stdin.fileno(), _ended_with, stopped)
        await serve(settings, stopped)

    import uvloop

    uvloop.run(run())


def settle_interpreter() -> None:
    """For a server whose loop must not wait.

    Python's collector looks at every object now and then, and all requests wait: 60 to 110 ms
    for the half million that the imports made, which never go. They are left out from here on, and
    full rounds become ten times rarer; young garbage is collected as before.
    """
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, FULL_ROUNDS_AFTER)
    sys.setswitchinterval(SWITCH_S)


def _stop_at(number: signal.Signals, stopped: asyncio.Event, supervised: bool) -> None:
    asyncio.get_running_loop().remove_signal_handler(number)
    if not supervised:
        log.info("stopping: running requests end, then a last flush")
    stopped.set()


def _ended_with(stopped: asyncio.Event) -> None:
    if os.read(sys.stdin.fileno(), 1024) == b"":
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        stopped.set()
