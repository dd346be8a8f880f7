"""When a backup schedule runs: pure. All times are UTC, in milliseconds since 1970."""

import calendar
from datetime import UTC, datetime

from infra.catalog.backup_model import Frequency

DAY_MS = 24 * 3_600_000
# From the making of a schedule to its first run: time to notice a mistake in it.
FIRST_RUN_MS = 3_600_000
_PERIODS_MS = {Frequency.DAILY: DAY_MS, Frequency.WEEKLY: 7 * DAY_MS}


def next_run(frequency: Frequency, anchor_ms: int, after_ms: int) -> int:
    """The first run later than `after_ms`: they are at `anchor_ms` and every day, week or month
    from there on; in a month that is too short on its last day. Those that were missed are not made
    up for.
    """
    if after_ms < anchor_ms:
        return anchor_ms
    if frequency is not Frequency.MONTHLY:
        period_ms = _PERIODS_MS[frequency]
        return anchor_ms + ((after_ms - anchor_ms) // period_ms + 1) * period_ms
    anchor, after = _time(anchor_ms), _time(after_ms)
    months = (after.year - anchor.year) * 12 + after.month - anchor.month
    run_ms = _months_later(anchor, months)
    return run_ms if run_ms > after_ms else _months_later(anchor, months + 1)


def run_name(schedule_name: str, run_ms: int) -> str:
    """What the backup of a run is called."""
    return f"{schedule_name}-{_time(run_ms):%Y%m%dT%H%M%SZ}"


def _months_later(anchor: datetime, months: int) -> int:
    year, month = divmod(anchor.year * 12 + anchor.month - 1 + months, 12)
    day = min(anchor.day, calendar.monthrange(year, month + 1)[1])
    run = anchor.replace(year=year, month=month + 1, day=day)
    return round(run.timestamp() * 1000)


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
