"""Token buckets: how much may happen per second, and how much at once after a pause. Pure."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """`per_s` tokens come in a second; a bucket holds `burst_s` seconds of them, at least one."""

    per_s: float
    burst_s: float

    @property
    def capacity(self) -> float:
        return max(1.0, self.per_s * self.burst_s)


class Bucket:
    """Starts full. Times are seconds of one monotonic clock.

    What is larger than the bucket is let through when the bucket is full, and leaves a debt that
    is paid off at the rate: so nothing is refused that could not succeed later.
    """

    __slots__ = ("_at_s", "_level", "_rate")

    def __init__(self, rate: Rate, now_s: float) -> None:
        self._rate = rate
        self._level = rate.capacity
        self._at_s = now_s

    def fraction(self, now_s: float) -> float:
        """How full it is: 1 full, 0 empty, below 0 in debt."""
        self._refill(now_s)
        return self._level / self._rate.capacity

    def wait_s(self, tokens: float, now_s: float) -> float:
        """Seconds until that many may be taken; 0: now."""
        self._refill(now_s)
        missing = min(tokens, self._rate.capacity) - self._level
        return missing / self._rate.per_s if missing > 0 else 0.0

    def take(self, tokens: float, now_s: float) -> None:
        self._refill(now_s)
        self._level -= tokens

    def _refill(self, now_s: float) -> None:
        come = (now_s - self._at_s) * self._rate.per_s
        self._level = min(self._rate.capacity, self._level + come)
        self._at_s = now_s


class Fading:
    """A sum in which what happened `window_s` ago counts 1/e."""

    __slots__ = ("_at_s", "_sum", "_window_s")

    def __init__(self, window_s: float, now_s: float) -> None:
        self._window_s = window_s
        self._sum = 0.0
        self._at_s = now_s

    def add(self, amount: float, now_s: float) -> None:
        self._sum = self.value(now_s) + amount
        self._at_s = now_s

    def value(self, now_s: float) -> float:
        return self._sum * math.exp((self._at_s - now_s) / self._window_s)


class Crowd:
    """About how many different names were active in the last `window_s` to 2 `window_s`.

    Beyond `names_max` they are not told apart any more: memory stays bounded.
    """

    __slots__ = ("_before", "_names", "_names_max", "_since_s", "_window_s")

    def __init__(self, window_s: float, names_max: int, now_s: float) -> None:
        self._window_s = window_s
        self._names_max = names_max
        self._since_s = now_s
        self._names: set[str] = set()
        self._before = 0

    def add(self, name: str, now_s: float) -> int:
        """The size of the crowd with that name in it."""
        if now_s - self._since_s >= self._window_s:
            recent = now_s - self._since_s < 2 * self._window_s
            self._before = len(self._names) if recent else 0
            self._names = set()
            self._since_s = now_s
        if len(self._names) < self._names_max:
            self._names.add(name)
        return max(len(self._names), self._before)
