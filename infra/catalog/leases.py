"""Leases on named pieces of work: of many processes one does a job, and when it dies another one.

A lease lapses by the database's clock (on SQLite, where all are on one machine, by ours). Who has
lost one may still be in the middle of something, so what is done under a lease must bear to be done
twice, also at the same time.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from core.clock import Clock, SystemClock
from core.errors import Unavailable
from infra.catalog.database import Database
from infra.catalog.tables import LEASES

# A process that died is missed for so long; a database that is away for less costs nobody a lease.
LEASE_S = 30.0
# Extended so many times before it lapses.
_EXTENSIONS = 4


class Leases:
    """`name`: of the work, such as `backup/{id}`; `owner`: new for every life of a process."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock or SystemClock()

    async def claim(self, name: str, owner: str, for_s: float = LEASE_S) -> bool:
        """True: `owner` has it now, or had it already; until `for_s` from now. False: another one
        has. `Unavailable`.
        """

        def work(connection: Connection) -> bool:
            now_ms = self._now_ms(connection)
            until_ms = now_ms + int(for_s * 1000)
            free = sa.or_(LEASES.c.owner == owner, LEASES.c.until_ms <= now_ms)
            taken = connection.execute(
                sa.update(LEASES)
                .where(LEASES.c.name == name, free)
                .values(owner=owner, until_ms=until_ms)
            ).rowcount
            if taken:
                return True
            if connection.execute(sa.select(LEASES.c.name).where(LEASES.c.name == name)).first():
                return False
            connection.execute(sa.insert(LEASES).values(name=name, owner=owner, until_ms=until_ms))
            return True

        try:
            return await self._database.write(work)
        except sa.exc.IntegrityError:  # another process inserted it between our two statements
            return False

    async def extend(self, name: str, owner: str, for_s: float = LEASE_S) -> bool:
        """False: it is another one's by now, or was released. A lapsed one that nobody took is
        had again.
        """

        def work(connection: Connection) -> bool:
            until_ms = self._now_ms(connection) + int(for_s * 1000)
            return bool(
                connection.execute(
                    sa.update(LEASES)
                    .where(LEASES.c.name == name, LEASES.c.owner == owner)
                    .values(until_ms=until_ms)
                ).rowcount
            )

        return await self._database.write(work)

    async def release(self, name: str, owner: str) -> None:
        """Free for the next one at once; nothing happens if it is not the owner's."""
        statement = sa.delete(LEASES).where(LEASES.c.name == name, LEASES.c.owner == owner)
        await self._database.write(lambda connection: connection.execute(statement))

    async def clear(self) -> None:
        """For a process that knows itself alone: whoever had leases is dead."""
        await self._database.write(lambda connection: connection.execute(sa.delete(LEASES)))

    async def run(
        self, name: str, owner: str, work: Callable[[], Awaitable[None]], for_s: float = LEASE_S
    ) -> bool:
        """Do `work` under the lease, which is extended meanwhile and released after it. False:
        nothing is done, another one has it. `Unavailable`: it was lost, and the work ended.
        """
        if not await self._claimed(name, owner, for_s):
            return False
        working = asyncio.ensure_future(work())
        keeping = asyncio.create_task(self._keep(name, owner, for_s))
        try:
            await asyncio.wait((working, keeping), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise Unavailable(f"the lease of {name} was lost: another process goes on")
            working.result()
            return True
        finally:
            working.cancel()
            keeping.cancel()
            await asyncio.gather(working, keeping, return_exceptions=True)
            with suppress(Unavailable):  # it lapses
                await self.release(name, owner)

    async def _claimed(self, name: str, owner: str, for_s: float) -> bool:
        """As `claim`. Who is cancelled meanwhile lets go: the transaction goes on by itself."""
        claiming = asyncio.ensure_future(self.claim(name, owner, for_s))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            with suppress(Unavailable):
                await claiming
                await self.release(name, owner)
            raise

    async def _keep(self, name: str, owner: str, for_s: float) -> None:
        """Ends when it is lost."""
        while await self._extended(name, owner, for_s):
            pass

    async def _extended(self, name: str, owner: str, for_s: float) -> bool:
        """After the time for it; False: lost, or the database was away for as long as it lasts."""
        lapses_at = self._clock.monotonic() + for_s
        while True:
            await self._clock.sleep(for_s / _EXTENSIONS)
            try:
                return await self.extend(name, owner, for_s)
            except Unavailable:
                if self._clock.monotonic() >= lapses_at:
                    return False

    def _now_ms(self, connection: Connection) -> int:
        return now_ms(connection, self._clock)


def now_ms(connection: Connection, clock: Clock) -> int:
    """By the clock that leases lapse by; `clock`: ours."""
    if connection.dialect.name != "postgresql":
        return clock.now_ms()
    now_s = sa.extract("epoch", sa.func.clock_timestamp())
    return int(float(connection.execute(sa.select(now_s)).scalar_one()) * 1000)
