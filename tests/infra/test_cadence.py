"""When schedules run, against a calendar walked day by day."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from infra.catalog.backup_model import Frequency
from infra.catalog.cadence import DAY_MS, next_run, run_name

TIMES = st.datetimes(datetime(2024, 1, 1), datetime(2032, 1, 1)).map(
    lambda at: int(at.replace(tzinfo=UTC).timestamp() * 1000)
)


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@given(st.sampled_from(Frequency), TIMES, TIMES)
def test_the_next_run_is_the_first_slot_behind(
    frequency: Frequency, anchor_ms: int, after_ms: int
) -> None:
    run_ms = next_run(frequency, anchor_ms, after_ms)
    assert run_ms > after_ms or run_ms == anchor_ms > after_ms
    assert run_ms >= anchor_ms
    # Asked between two slots, it is always the same one; asked at it, the one behind.
    assert next_run(frequency, anchor_ms, run_ms - 1) == run_ms
    assert next_run(frequency, anchor_ms, run_ms) > run_ms
    if run_ms == anchor_ms:
        return
    apart = {Frequency.DAILY: 1, Frequency.WEEKLY: 7}.get(frequency)
    if apart is not None:
        assert (run_ms - anchor_ms) % (apart * DAY_MS) == 0
        assert run_ms - apart * DAY_MS <= after_ms
        return
    run, anchor = (datetime.fromtimestamp(ms / 1000, UTC) for ms in (run_ms, anchor_ms))
    assert run.timetz() == anchor.timetz()
    last_of_month = (run + timedelta(days=1)).month != run.month
    assert run.day == anchor.day or (run.day < anchor.day and last_of_month)
    assert run_ms - 31 * DAY_MS <= after_ms


def test_months_that_are_too_short() -> None:
    anchor = at("2027-01-31T06:00:00")
    runs = [anchor]
    while len(runs) < 5:
        runs.append(next_run(Frequency.MONTHLY, anchor, runs[-1]))
    assert runs[1:] == [
        at("2027-02-28T06:00:00"),
        at("2027-03-31T06:00:00"),
        at("2027-04-30T06:00:00"),
        at("2027-05-31T06:00:00"),
    ]


def test_what_a_run_is_called() -> None:
    assert run_name("nightly", at("2026-04-03T06:00:00")) == "nightly-20260403T060000Z"
