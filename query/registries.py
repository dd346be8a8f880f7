"""Registries of partitions as readers need them: cached, and at least as new as what freshness
forgot.
"""

import asyncio
import math

from core.clock import Clock
from core.errors import Unavailable
from storage.registry import RegistryState, RegistryStore

# Where freshness cannot be asked, names and counts may be this old.
FRESH_FOR_S = 2.0


class RegistryCache:
    """For one event loop. One root per partition, and bounded sections."""

    def __init__(self, registries: RegistryStore, clock: Clock) -> None:
        self.store = registries
        self._clock = clock
        self._states: dict[int, tuple[RegistryState | None, float]] = {}
        self._locks: dict[int, asyncio.Lock] = {}

    async def covering(self, partition: int, lsn: int | None) -> RegistryState | None:
        """A registry whose checkpoint is above `lsn`; None: any recent one. Gives None if there is
        none yet.

        Freshness forgets only what a published checkpoint covers, so one is there.
        """
        async with self._locks.setdefault(partition, asyncio.Lock()):
            state, read_s = self._states.get(partition, (None, -math.inf))
            now_s = self._clock.monotonic()
            if now_s - read_s < FRESH_FOR_S if lsn is None else lsn < _checkpoint(state):
                return state
            state = await self.store.newest(partition)
            self._states[partition] = (state, now_s)
        if lsn is not None and lsn >= _checkpoint(state):
            raise Unavailable(f"the registry of partition {partition} lags behind its checkpoint")
        return state


def _checkpoint(state: RegistryState | None) -> int:
    return 0 if state is None else state.checkpoint
