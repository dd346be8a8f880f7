"""Keeps aiokafka's log readable while a broker is away: it writes some 90 error lines a second."""

import contextlib
import logging
import time
from collections.abc import Iterator

NOISY = (
    "aiokafka",
    "aiokafka.conn",
    "aiokafka.consumer.fetcher",
    "aiokafka.consumer.group_coordinator",
)
REPEAT_S = 10.0


class Repeats(logging.Filter):
    """Lets a message (by its template) through once in `REPEAT_S`, with the number held back."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[str, tuple[float, int]] = {}  # as many entries as aiokafka has messages

    def filter(self, record: logging.LogRecord) -> bool:
        template = str(record.msg)
        said, held_back = self._seen.get(template, (-REPEAT_S, 0))
        if time.monotonic() - said < REPEAT_S:
            self._seen[template] = (said, held_back + 1)
            return False
        self._seen[template] = (time.monotonic(), 0)
        if held_back:
            record.msg = f"{template} (and {held_back} more like it)"
        return True


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
