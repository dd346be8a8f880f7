"""A request's turn to use the processor, and who steps aside for whom.

Whoever serves many tenants from one event loop lets only a few requests work at once, in fair
turns (`api.limits.turns`). The parts that wait for a disk, a broker or another machine say so here,
and those that work for long offer to step aside between two steps; they need not know who asked.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Turn(Protocol):
    """Of one request, which may wait in several of its tasks at once; or of all the work that is
    nobody's request.
    """

    @property
    def of_request(self) -> bool: ...

    def pause(self) -> None:
        """One more of its tasks waits."""

    def resume(self) -> None:
        """It goes on at once: it is not queued a second time."""

    async def step_aside(self) -> None:
        """Returns when nobody at work goes before it, or when it has waited for long enough."""

    def step_aside_in_thread(self) -> None:
        """As `step_aside`, in a thread; nothing at all on the event loop's own."""


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


@contextmanager
def working_as(turn: Turn) -> Iterator[None]:
    """Tasks and threads that are begun within work in that turn."""
    before = CURRENT.set(turn)
    try:
        yield
    finally:
        CURRENT.reset(before)


async def step_aside() -> None:
    """Between two steps of some milliseconds: those who go first are let go first."""
    turn = CURRENT.get()
    if turn is not None:
        await turn.step_aside()


def step_aside_in_thread() -> None:
    """The same in `asyncio.to_thread`, every half millisecond of what holds the interpreter."""
    turn = CURRENT.get()
    if turn is not None:
        turn.step_aside_in_thread()
