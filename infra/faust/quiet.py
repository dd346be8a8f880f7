"""Keeps aiokafka's log readable while a broker is away: it writes some 90 error lines a second."""

import contextlib
import logging
from collections.abc import Iterator

from infra.telemetry import Repeats

NOISY = (
    "aiokafka",
    "aiokafka.conn",
    "aiokafka.consumer.fetcher",
    "aiokafka.consumer.group_coordinator",
)


@contextlib.contextmanager
def fewer_repeats() -> Iterator[None]:
    """Within the block; several at once are fine."""
    repeats = Repeats()
    for name in NOISY:
        logging.getLogger(name).addFilter(repeats)
    try:
        yield
    finally:
        for name in NOISY:
            logging.getLogger(name).removeFilter(repeats)
