"""A freshness worker is found by the queries, whatever its predecessor says late."""

import asyncio
from typing import cast

import pytest

from cli.runtime import roles
from core.owners import OwnerBoard
from freshness.layer import FreshnessLayer
from infra.feed.owners import LogOwners

US, PREDECESSOR = "http://us", "http://predecessor"


class Layer:
    partitions = (0,)


class Board(OwnerBoard):
    def __init__(self) -> None:
        self.owner: str | None = None
        self.announced = asyncio.Event()

    async def announce(self, partition: int, url: str) -> None:
        self.owner = url
        self.announced.set()

    async def withdraw(self, partition: int, url: str) -> None:
        self.owner = None

    def owner_of(self, partition: int) -> str | None:
        return self.owner


@pytest.mark.parametrize("late", [None, PREDECESSOR])
async def test_what_a_predecessor_says_late_is_corrected(
    late: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roles, "ANNOUNCE_S", 0.001)
    board = Board()
    announcing = asyncio.create_task(
        roles._announce(cast(FreshnessLayer, Layer()), cast(LogOwners, board), US)
    )
    async with asyncio.timeout(10):
        await board.announced.wait()
        board.announced.clear()
        board.owner = late
        await board.announced.wait()
    assert board.owner == US
    announcing.cancel()
    await asyncio.gather(announcing, return_exceptions=True)
