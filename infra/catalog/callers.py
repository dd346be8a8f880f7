"""Who an API key belongs to: asked by every request, so answered from memory.

A revoked key is refused `fresh_s` later at the latest. While the database is away, keys that were
valid go on for `stale_s`, then nobody gets in: a revocation can be late by no more than that.
"""

from core.clock import Clock, SystemClock
from core.errors import Unauthenticated
from infra.catalog.catalog import Catalog
from infra.catalog.keys import CHOSEN_CHARS_MAX, hash_of
from infra.catalog.model import Caller
from infra.catalog.read_through import Lifetimes, ReadThrough

# absent_s: one read a second for a client that hammers with one wrong key.
LIFETIMES = Lifetimes(fresh_s=3.0, absent_s=1.0, stale_s=600.0)
# About 500 bytes each: 5 MB, also under a rain of ever new wrong keys.
KEPT_MAX = 10_000


class Callers:
    """Proves API keys."""

    def __init__(self, catalog: Catalog, clock: Clock | None = None) -> None:
        self._callers = ReadThrough(catalog.caller_of, LIFETIMES, KEPT_MAX, clock or SystemClock())

    async def prove(self, key: str) -> Caller:
        """`Unauthenticated` for a key that is not known or revoked."""
        caller = None
        if 0 < len(key) <= CHOSEN_CHARS_MAX:
            caller = await self._callers.get(hash_of(key))
        if caller is None:
            raise Unauthenticated("Invalid API Key")
        return caller

    def forget(self) -> None:
        """After keys were made or revoked in this process: every key is asked for anew."""
        self._callers.clear()
