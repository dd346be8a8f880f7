"""`firndb serve`: the embedded deployment, or all roles of the distributed one."""

import asyncio
import signal
from collections.abc import Awaitable, Callable

from cli.runtime.embedded import serve_embedded
from cli.runtime.folder import owned
from cli.runtime.parts import check_deployment
from infra.settings import Settings
from infra.telemetry import configure_logging


def run_serve(settings: Settings) -> None:
    """Returns after SIGTERM or SIGINT, once everything is flushed and closed."""
    configure_logging(settings.log_level, settings.log_format)
    check_deployment(settings)
    with owned(settings.data):
        if settings.kafka is None:
            run_until_signal(lambda stopped: serve_embedded(settings, stopped))
        else:
            from cli.runtime.supervisor import serve_distributed

            run_until_signal(lambda stopped: serve_distributed(settings, stopped))


def run_until_signal(serve: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run `serve` on an event loop; its event is set by the first SIGTERM or SIGINT."""

    async def run() -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        await serve(stopped)

    import uvloop

    uvloop.run(run())
