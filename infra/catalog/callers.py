"""Who an API key belongs to: asked by every request, so answered from memory.

A revoked key is refused `fresh_s` later at the latest, and at once in the process that revoked it.
While the database is away, keys that were valid go on for `stale_s`, then nobody gets in: a
revocation can be late by no more than that. A key that expires does so in time, always.

Unknown, revoked, expired and malformed keys all take the same way: the hash, the memory, the same
one statement. So nobody learns which of them a key is from how long its refusal takes.
"""

import asyncio

from core.clock import Clock, SystemClock
from core.errors import Overloaded, Unauthenticated
from infra.catalog.accounts import Accounts
from infra.catalog.keys import hash_of
from infra.catalog.model import Caller
from infra.catalog.read_through import Lifetimes, ReadThrough

# absent_s: one read a second for a client that hammers with one wrong key.
LIFETIMES = Lifetimes(fresh_s=3.0, absent_s=1.0, stale_s=600.0)
# About 500 bytes each, twice: 10 MB, also under a rain of ever new wrong keys.
KEPT_MAX = 10_000
# Keys that this process does not know are looked up so many at once (the database has four
# connections, and known keys and the control plane need them, too), and so many may wait for that.
STRANGERS_AT_ONCE = 2
STRANGERS_MAX = 200


class Callers:
    """Proves API keys."""

    def __init__(self, accounts: Accounts, clock: Clock | None = None) -> None:
        self._accounts = accounts
        self._clock = clock or SystemClock()
        self._callers = ReadThrough(self._read, LIFETIMES, KEPT_MAX, self._clock)
        self._strangers = 0
        self._turns = asyncio.Semaphore(STRANGERS_AT_ONCE)

    async def prove(self, key: str) -> Caller:
        """`Unauthenticated` for a key that is not valid; `Overloaded` for one that is not known
        here while too many such wait to be looked up.
        """
        caller = await self._callers.get(hash_of(key))
        if caller is None or self._is_over(caller):
            raise Unauthenticated("Invalid API Key")
        return caller

    def forget(self, key_id: str | None = None) -> None:
        """After this key (None: any) was made, changed or revoked in this process: it is asked for
        anew.
        """
        self._callers.forget(lambda caller: key_id in (None, caller.key_id))

    @property
    def strangers(self) -> int:
        """Keys that are not known here and wait to be looked up."""
        return self._strangers

    def _is_over(self, caller: Caller) -> bool:
        return caller.until_ms is not None and self._clock.now_ms() >= caller.until_ms

    async def _read(self, key_hash: str) -> Caller | None:
        if key_hash in self._callers:
            return await self._accounts.caller_of(key_hash)
        if self._strangers >= STRANGERS_MAX:
            raise Overloaded(
                f"{STRANGERS_MAX} API keys that are not known yet wait to be looked up; try again "
                "soon"
            )
        self._strangers += 1
        try:
            async with self._turns:
                return await self._accounts.caller_of(key_hash)
        finally:
            self._strangers -= 1
