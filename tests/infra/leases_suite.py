"""What leases must do on every database. A test class inherits this and gives `url`."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from core.errors import Unavailable
from infra.catalog.catalog import Catalog
from infra.catalog.leases import Leases

# It lapses as it is given.
AT_ONCE = 0.0


class LeasesSuite:
    """Fixture `url`: of an empty database."""

    @pytest.fixture
    async def leases(self, url: str) -> AsyncIterator[Leases]:
        catalog = Catalog.open(url)
        yield Leases(catalog.database)
        await catalog.close()

    async def test_one_of_many_has_it_until_it_lets_go(self, leases: Leases) -> None:
        won = await asyncio.gather(*(leases.claim("job/1", f"owner-{n}") for n in range(12)))
        assert sum(won) == 1
        winner = f"owner-{won.index(True)}"
        assert await leases.claim("job/1", winner)
        assert not await leases.claim("job/1", "somebody")
        assert await leases.claim("job/2", "somebody")
        await leases.release("job/1", "somebody")
        assert not await leases.claim("job/1", "somebody")
        await leases.release("job/1", winner)
        assert await leases.claim("job/1", "somebody")

    async def test_of_many_that_take_over_from_a_dead_owner_one_succeeds(
        self, leases: Leases
    ) -> None:
        assert await leases.claim("job", "dead", AT_ONCE)
        won = await asyncio.gather(*(leases.claim("job", f"heir-{n}") for n in range(12)))
        assert sum(won) == 1
        assert not await leases.extend("job", "dead")
        assert await leases.extend("job", f"heir-{won.index(True)}", AT_ONCE)
        assert await leases.claim("job", "dead")

    async def test_alone_all_are_free(self, leases: Leases) -> None:
        assert await leases.claim("job", "dead")
        await leases.clear()
        assert await leases.claim("job", "living")

    async def test_work_runs_under_its_lease_alone(self, leases: Leases) -> None:
        done: list[bool] = []

        async def look() -> None:
            done.append(await leases.claim("job", "another"))

        assert await leases.run("job", "me", look)
        assert done == [False]
        assert await leases.claim("job", "another")
        assert not await leases.run("job", "me", look)
        assert done == [False]

    async def test_work_that_fails_lets_go(self, leases: Leases) -> None:
        async def fail() -> None:
            raise ValueError("no luck")

        with pytest.raises(ValueError, match="no luck"):
            await leases.run("job", "me", fail)
        assert await leases.claim("job", "another")

    async def test_who_loses_the_lease_stops_and_the_heir_keeps_it(self, leases: Leases) -> None:
        began, ended = asyncio.Event(), asyncio.Event()

        async def go_on() -> None:
            try:
                began.set()
                await asyncio.Event().wait()
            finally:
                ended.set()

        running = asyncio.create_task(leases.run("job", "me", go_on, for_s=0.2))
        await began.wait()
        await leases.release("job", "me")
        assert await leases.claim("job", "heir")
        with pytest.raises(Unavailable, match="lost"):
            await running
        assert ended.is_set()
        assert not await leases.claim("job", "me")

    async def test_long_work_keeps_it(self, leases: Leases) -> None:
        """For several times as long as it lasts, nobody else gets it."""

        async def be_long() -> None:
            for _ in range(40):
                assert not await leases.claim("job", "another")
                await asyncio.sleep(0.05)

        assert await leases.run("job", "me", be_long, for_s=1.0)

    async def test_who_is_cancelled_while_it_claims_lets_go(self, leases: Leases) -> None:
        async def be_long() -> None:
            await asyncio.Event().wait()

        for turns in range(12):
            claiming = asyncio.create_task(leases.run("job", "cancelled", be_long))
            await asyncio.sleep(turns / 1000)
            claiming.cancel()
            await asyncio.gather(claiming, return_exceptions=True)
            assert await leases.claim("job", "next")
            await leases.release("job", "next")
