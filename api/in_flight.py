"""How many requests are being answered, REST and gRPC together, with a bound for all and for one
project.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from api.limits.turns import Turns
from core.errors import Overloaded

# Each may hold a body of 4 MiB: 2 GiB at the very worst. Beyond, clients are told to slow down.
IN_FLIGHT_MAX = 500
# A project may have so many times what is still free: one alone gets 4/5 of all places, two that
# ask for everything 4/9 each, and there is always something left for the next one (dynamic
# thresholds, Choudhury and Hahne 1998).
OF_WHAT_IS_FREE = 4


class InFlight:
    """Entered by every request for the time that it takes."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.count = 0
        self.by_project: Counter[str] = Counter()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Around a request; within, `claim` says whose it is."""
        place = _Place(self)
        before = _PLACE.set(place)
        self.count += 1
        try:
            with self._turns.request():
                yield
        finally:
            place.give_back()
            place.leave()
            _PLACE.reset(before)

    def check(self) -> None:
        """`Overloaded` when there are too many, counting the one that asks."""
        if self.count > IN_FLIGHT_MAX:
            raise Overloaded(f"{IN_FLIGHT_MAX} requests are being served; try again soon")


class _Place:
    __slots__ = ("_counted", "_in_flight", "_project_id")

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight
        self._counted = True
        self._project_id: str | None = None

    def claim(self, project_id: str) -> None:
        if self._project_id is not None:
            return
        by_project = self._in_flight.by_project
        others, mine = self._in_flight.count - 1, by_project[project_id]
        if mine >= OF_WHAT_IS_FREE * (IN_FLIGHT_MAX - others):
            raise Overloaded(
                f"{mine} requests of this project are being served, of at most {IN_FLIGHT_MAX} in "
                "all; try again soon"
            )
        self._project_id = project_id
        by_project[project_id] += 1

    def give_back(self) -> None:
        self._in_flight.count -= self._counted
        self._counted = False

    def leave(self) -> None:
        if self._project_id is None:
            return
        by_project = self._in_flight.by_project
        by_project[self._project_id] -= 1
        if not by_project[self._project_id]:
            del by_project[self._project_id]


_PLACE: ContextVar[_Place | None] = ContextVar("place", default=None)


def claim(project_id: str) -> None:
    """The request that is being answered is this project's. `Overloaded` when the project has too
    many already.
    """
    place = _PLACE.get()
    if place is not None:
        place.claim(project_id)


def give_back() -> None:
    """From here on the request that is being answered only throws away what its client sends, or
    waits for it under a bound of its own: nobody has proved anything, and it must not keep those
    out who have.
    """
    place = _PLACE.get()
    if place is not None:
        place.give_back()
