"""Dropping what published manifests cover: the rule, and the look-ups that replace lost news."""

import asyncio
import logging
from dataclasses import dataclass

from core.clock import Clock
from core.errors import FirnError
from core.log import NO_LSN
from freshness.budget import Budget
from freshness.held import HeldNamespace
from freshness.partition import PartitionMemory
from storage.commit import ManifestStore
from storage.registry import RegistryStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SweepSettings:
    """every_s: a round. grace_s: readers may work with a manifest this old. look_after_s: entries
    unpublished for so long make us look for the manifest. look_ups_max: manifests looked for in one
    round of one partition. rows_max: versions dropped in one go (some 5 ms of the event loop).
    """

    every_s: float = 1.0
    grace_s: float = 30.0
    look_after_s: float = 10.0
    look_ups_max: int = 32
    rows_max: int = 5_000


class Sweeper:
    """One round per call; rounds of one partition do not overlap."""

    def __init__(
        self,
        settings: SweepSettings,
        manifests: ManifestStore,
        registries: RegistryStore,
        clock: Clock,
        budget: Budget,
    ) -> None:
        self.settings = settings
        self._manifests = manifests
        self._registries = registries
        self._clock = clock
        self._budget = budget

    async def sweep(self, memory: PartitionMemory) -> None:
        await self._look_up(memory)
        now_s, grace_s = self._clock.monotonic(), self.settings.grace_s
        checkpoint = memory.checkpoint.matured(now_s, grace_s)
        memory.swept_lsn = max(memory.swept_lsn, min(checkpoint - 1, memory.applied_lsn))
        for held in list(memory.namespaces.values()):
            if memory.revoked:
                return
            # Below the checkpoint everything is in published manifests, or changed nothing: a
            # deletion where no namespace was, an entry of a deleted index. No manifest tells of
            # those. And never above what is applied: it would arrive below the floor.
            held_back = memory.held_back.get((held.index_id, held.namespace))
            upto_lsn = min(held.last_lsn, checkpoint - 1)
            if held_back is not None:
                upto_lsn = min(upto_lsn, held_back - 1)
            await self._evict(memory, held, upto_lsn)

    async def _evict(self, memory: PartitionMemory, held: HeldNamespace, upto_lsn: int) -> None:
        if held.applying or upto_lsn < 0:
            return
        if upto_lsn < held.memory.floor_lsn:
            return  # raised by an attach; forgotten is only what the checkpoint covers as well
        if upto_lsn <= held.memory.floor_lsn and not held.is_empty:
            return
        while held.evict(upto_lsn, self.settings.rows_max):
            self._budget.changed(held)
            await asyncio.sleep(0)
            if memory.revoked:
                return
        self._budget.changed(held)
        if held.is_empty and (held.index_id, held.namespace) not in memory.held_back:
            memory.drop(held)
            self._budget.forget(held)

    async def _look_up(self, memory: PartitionMemory) -> None:
        """Reads manifests and checkpoint of what has been waiting for news for too long."""
        now_s = self._clock.monotonic()
        waiting = [
            held
            for held in memory.namespaces.values()
            if held.unpublished_since_s is not None
            and now_s - held.unpublished_since_s >= self.settings.look_after_s
        ]
        checkpoint_is_old = now_s - memory.checkpoint_news_s >= self.settings.look_after_s
        asked = memory.holds_unknown or (memory.namespaces and checkpoint_is_old)
        if not waiting and not asked:
            return
        waiting.sort(key=lambda held: held.unpublished_since_s or now_s)
        try:
            await asyncio.gather(*(self.look_for(h) for h in waiting[: self.settings.look_ups_max]))
            registry, held_back = await self._registries.newest_with_holds(memory.partition)
        except FirnError as error:
            logger.warning(
                "freshness cannot look for the checkpoint of partition %d: %s",
                *(memory.partition, error),
            )
            return
        checkpoint = 0 if registry is None else registry.checkpoint
        if checkpoint >= memory.checkpoint.newest:
            memory.learn_holds(held_back, checkpoint)
        memory.learn_checkpoint(checkpoint, self._clock.monotonic())

    async def look_for(self, held: HeldNamespace) -> None:
        """Its newest manifest; what cannot be read now is looked for again later."""
        try:
            manifest = await self._manifests.outline(held.index_id, held.namespace)
        except FirnError as error:  # one corrupt manifest must not keep the others' memory
            logger.warning("freshness cannot look for a manifest: %s", error)
            return
        indexed = NO_LSN if manifest is None else manifest.indexed_lsn
        held.learn(indexed, self._clock.monotonic())
        self._budget.changed(held)
