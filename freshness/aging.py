"""Numbers that count only after a grace time: published LSNs and checkpoints, before anything is
dropped on their word.
"""

from collections import deque

from core.log import NO_LSN


class Aged:
    """A growing number with the second at which it was learnt. Holds one entry a second of the
    grace time at most.
    """

    def __init__(self) -> None:
        self._news: deque[tuple[int, int]] = deque()
        self._matured = NO_LSN

    def learn(self, value: int, now_s: float) -> None:
        second = int(now_s) + 1  # rounded up: never matures early
        if self._news and self._news[-1][1] >= value:
            return
        if self._news and self._news[-1][0] == second:
            self._news.pop()
        self._news.append((second, value))

    def matured(self, now_s: float, grace_s: float) -> int:
        """The highest value learnt at least `grace_s` ago; NO_LSN for none."""
        while self._news and self._news[0][0] + grace_s <= now_s:
            self._matured = max(self._matured, self._news.popleft()[1])
        return self._matured

    @property
    def newest(self) -> int:
        return self._news[-1][1] if self._news else self._matured
