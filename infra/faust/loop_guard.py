"""Ends the process when its event loop stays blocked, whatever blocks it."""

import contextlib
import faulthandler
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator

logger = logging.getLogger(__name__)

EXIT_STUCK = 70  # EX_SOFTWARE


@contextlib.contextmanager
def loop_guard(timeout_s: float) -> Iterator[Callable[[], None]]:
    """Yields `beat`. A process that does not beat for `timeout_s` prints its stacks and exits.

    Kafka's heartbeats come from another thread, so a blocked worker would keep its partitions.
    """
    last = time.monotonic()
    ended = threading.Event()

    def beat() -> None:
        nonlocal last
        last = time.monotonic()

    def watch() -> None:
        while not ended.wait(min(1.0, timeout_s / 4)):
            if time.monotonic() - last > timeout_s:
                logger.critical("the event loop has been blocked for %.0f s; exiting", timeout_s)
                faulthandler.dump_traceback()
                os._exit(EXIT_STUCK)

    thread = threading.Thread(target=watch, name="loop-guard", daemon=True)
    thread.start()
    try:
        yield beat
    finally:
        ended.set()
        thread.join()
