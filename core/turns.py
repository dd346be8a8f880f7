"""A request's turn to use the processor: who waits for somebody else gives it up meanwhile.

Whoever serves many tenants from one event loop lets only a few requests work at once, in fair
turns (`api.limits.turns`). The parts that wait for a disk, a broker or another machine say so here,
and need not know who asked.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Turn(Protocol):
    """Of one request, which may wait in several of its tasks at once."""

    def pause(self) -> None:
        """One more of its tasks waits."""

    def resume(self) -> None:
        """It goes on at once: it is not queued a second time."""


CURRENT: ContextVar[Turn | None] = ContextVar("turn", default=None)


@contextmanager
def waiting() -> Iterator[None]:
    """Around an `await` of what is done elsewhere: others may use the processor meanwhile."""
    turn = CURRENT.get()
    if turn is None:
        yield
        return
    turn.pause()
    try:
        yield
    finally:
        turn.resume()
