"""The port `OwnerBoard`: which freshness worker serves which partition."""

from typing import Protocol


class OwnerBoard(Protocol):
    """Announcements may be late; whoever is asked and is not the owner says so, and the asker looks
    again. Nobody's correctness rests on the board.
    """

    async def announce(self, partition: int, url: str) -> None:
        """From now on `url` (scheme, host, port) serves the partition."""

    async def withdraw(self, partition: int, url: str) -> None:
        """`url` no longer does; nothing happens if another one was announced meanwhile."""

    def owner_of(self, partition: int) -> str | None:
        """The URL announced last; None if nobody is known."""
