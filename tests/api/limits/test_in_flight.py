"""Places of a process: never more than the bound, and no project can have them all."""

from contextlib import ExitStack

import pytest

from api.in_flight import IN_FLIGHT_MAX, InFlight, claim, give_back
from api.limits.turns import Turns
from core.errors import Overloaded
from infra.telemetry import Metrics
from tests.infra.held_clock import HeldClock


@pytest.fixture
def places() -> InFlight:
    return InFlight(Turns(2, HeldClock(), Metrics()))


def take_all(places: InFlight, held: ExitStack, projects: list[str]) -> dict[str, int]:
    """Each asks for one place after the other, in turn, until all are refused; what they got."""
    got = dict.fromkeys(projects, 0)
    asking = list(projects)
    while asking:
        for project in list(asking):
            request = places.request()
            request.__enter__()
            try:
                places.check()
                claim(project)
            except Overloaded:
                asking.remove(project)
                request.__exit__(None, None, None)
            else:
                got[project] += 1
                held.push(request)
    return got


@pytest.mark.parametrize(("projects", "least_each"), [(1, 400), (2, 220), (5, 90), (20, 20)])
def test_floods_share_the_places_and_leave_one_for_the_next(
    places: InFlight, projects: int, least_each: int
) -> None:
    with ExitStack() as held:
        got = take_all(places, held, [f"p{n}" for n in range(projects)])
        assert min(got.values()) >= least_each
        assert sum(got.values()) < IN_FLIGHT_MAX
        with places.request():
            places.check()
            claim("newcomer")
    assert places.count == 0
    assert not places.by_project


def test_the_bound_holds_for_those_without_a_project_too(places: InFlight) -> None:
    with ExitStack() as held:
        for _ in range(IN_FLIGHT_MAX):
            held.enter_context(places.request())
            places.check()
        held.enter_context(places.request())
        with pytest.raises(Overloaded, match="500 requests are being served"):
            places.check()


def test_who_only_throws_away_what_comes_gives_its_place_back_once(places: InFlight) -> None:
    with places.request():
        claim("p")
        for _ in range(2):
            give_back()
            assert (places.count, places.by_project) == (0, {"p": 1})
    assert (places.count, places.by_project) == (0, {})
    give_back()  # outside of any request nothing is counted
    assert places.count == 0


def test_a_request_counts_once_however_often_its_key_is_proved(places: InFlight) -> None:
    with places.request():
        claim("p")
        claim("p")
        assert places.by_project == {"p": 1}
    claim("p")  # outside of any request nothing is counted
    assert not places.by_project
