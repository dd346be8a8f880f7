"""Moments as people write them: ISO 8601, in UTC unless they say otherwise."""

from datetime import UTC, datetime

from core.errors import InvalidRequest


def parse_time(text: str) -> int:
    """Milliseconds since 1970. `InvalidRequest`, also for a time that `shown_time` cannot show: in
    UTC it may be in the year 0 or 10000.
    """
    try:
        at = datetime.fromisoformat(text)
        at = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
        return int(at.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"{text[:40]!r} is no time: give one such as 2026-01-31T18:00:00Z"
        ) from None


def shown_time(ms: int) -> str:
    """To the millisecond, so that it can be given back."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
