"""One partition that the builder owns: its registry, its checkpoint, its namespaces with work."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress

import msgspec

from builder.chain import uninterrupted
from builder.namespace import NamespaceKey, NamespaceWork
from core.clock import new_uuid
from core.errors import FirnError, LogMismatch, Unavailable
from core.log import NO_LSN, Log
from storage.layout import FIRST_VERSION
from storage.manifest import Manifest
from storage.registry import RegistryConflict, RegistryState, RegistryStore
from storage.registry_tree import NamespaceSummary

logger = logging.getLogger(__name__)

# Racing for a partition is rare and each loser only has to read once more.
TAKE_TRIES = 8
# Sections of the registry that were replaced stay for readers who hold an older root: between one
# and two of these.
SWEEP_S = 60.0


# Of a namespace that has no manifest yet: it is not listed.
UNBORN = NamespaceSummary(generation=NO_LSN, version=0, deleted=True)
# Until the outcome of a commit is known, what it says of a hold is not.
UNKNOWN = -2


class OwnedPartition:
    """applied: the next offset wanted. failure: why nothing is written any more, None while all is
    well. closing: being revoked, so nothing new is begun. touched: namespaces with a commit that
    garbage collection has not seen, and its version. held: from which LSN on the entries of a
    namespace may be in no manifest although they are below the checkpoint, as the registry says.
    """

    def __init__(self, state: RegistryState) -> None:
        self.state = state
        self.number = state.partition
        self.applied = state.checkpoint
        self.failure: FirnError | None = None
        self.closing = False
        self.registry_at = 0.0
        self.works: dict[NamespaceKey, NamespaceWork] = {}
        self.waiting: dict[NamespaceKey, NamespaceWork] = {}
        self.touched: dict[NamespaceKey, int] = {}
        self.held: dict[NamespaceKey, int] = {}
        self._changed: dict[NamespaceKey, NamespaceSummary | None] = {}
        self._unnamed: frozenset[str] = frozenset()
        self._sweep_at: float | None = None
        self._committing = asyncio.Lock()

    @property
    def active(self) -> bool:
        return self.failure is None and not self.closing

    @property
    def owner_epoch(self) -> int:
        return self.state.owner_epoch

    @property
    def durable(self) -> int:
        """The checkpoint that could be written now (exclusive): nothing below it is unflushed but
        in namespaces that are held.
        """
        lowest = self.applied
        for work in self.waiting.values():
            first = work.first_lsn
            if first is not None and not self._is_held(work, first):
                lowest = min(lowest, first)
        return lowest

    def _is_held(self, work: NamespaceWork, first: int) -> bool:
        """It waits for a person, or reads again what it let go meanwhile: the others go on."""
        return bool(work.paused) or first < self.state.checkpoint

    @property
    def dirty(self) -> bool:
        if self._changed or self.durable > self.state.checkpoint:
            return True
        return bool(self.held) and self.held != self._held_below(self.state.checkpoint)

    def work(self, index_id: str, namespace: str) -> NamespaceWork:
        key = (index_id, namespace)
        found = self.works.get(key)
        if found is None:
            found = self.works[key] = NamespaceWork(index_id, namespace)
        return found

    def settle(self, work: NamespaceWork) -> None:
        """After its pending entries changed."""
        if not work.has_entries:
            self.waiting.pop(work.key, None)
        else:
            self.waiting[work.key] = work

    def note(self, manifest: Manifest, *, unfinished: bool) -> None:
        """Its summary goes into the next registry."""
        self._changed[manifest.index_id, manifest.namespace] = NamespaceSummary(
            generation=manifest.generation,
            version=manifest.version,
            indexed_lsn=manifest.indexed_lsn,
            record_count=manifest.record_count,
            byte_count=manifest.byte_count,
            deleted=manifest.deleted,
            unfinished=unfinished,
            has_schema=manifest.declared is not None,
        )
        self.touched[manifest.index_id, manifest.namespace] = manifest.version

    def drop(self, key: NamespaceKey) -> None:
        """Nothing is left of a namespace of a deleted index: the next registry is without it."""
        self._changed[key] = None

    def give_up(self, error: FirnError) -> None:
        """Nothing more is written for this partition."""
        if self.failure is None:
            self.failure = error
            logger.critical("partition %d is given up: %s", self.number, error)

    async def commit(self, registry: RegistryStore, now: float) -> bool:
        """Write the registry; False if it would say nothing new. `now`: of the monotonic clock.
        `Fenced`, `Unavailable`.
        """
        async with self._committing:
            if not self.dirty:
                return False
            for _ in range(TAKE_TRIES):
                changed = dict(self._changed)
                checkpoint = max(self.durable, self.state.checkpoint)
                held = self._held_below(checkpoint)
                changes = await self._with_holds(registry, changed, held)
                following = await registry.changed(self.state, changes, checkpoint)
                if following is self.state:
                    self._noted(changed)
                    self.held = held
                    return False
                try:
                    await uninterrupted(registry.commit(following))
                except RegistryConflict as conflict:
                    # Nobody else writes under this epoch: a commit of ours whose outcome was not
                    # known took effect.
                    self.state = msgspec.structs.replace(
                        conflict.newest, owner_epoch=self.state.owner_epoch
                    )
                    continue
                break
            else:
                raise Unavailable(f"the registry of partition {self.number} changes all the time")
            self.state = following
            self.held = held
            self._noted(changed)
            await self._sweep(registry, now)
        return True

    def _held_below(self, checkpoint: int) -> dict[NamespaceKey, int]:
        found: dict[NamespaceKey, int] = {}
        for work in self.waiting.values():
            first = work.first_lsn
            if first is not None and first < checkpoint and self._is_held(work, first):
                found[work.key] = first
        return found

    async def _with_holds(
        self,
        registry: RegistryStore,
        changed: Mapping[NamespaceKey, NamespaceSummary | None],
        held: Mapping[NamespaceKey, int],
    ) -> dict[NamespaceKey, NamespaceSummary | None]:
        """`changed`, with what is held in every summary that has to say so, or has to no longer."""
        changes = dict(changed)
        keys = {k for k in {**held, **self.held} if held.get(k) != self.held.get(k)}
        for key in keys | (held.keys() & changed.keys()):
            if key in changed and changed[key] is None:
                continue  # of a deleted index
            before = changed.get(key) or await registry.get(self.state, key) or UNBORN
            after = msgspec.structs.replace(before, held_from=held.get(key, NO_LSN))
            changes[key] = None if after == UNBORN else after
            self.held[key] = UNKNOWN
        return changes

    def _noted(self, changed: Mapping[NamespaceKey, NamespaceSummary | None]) -> None:
        """Forget what the registry says now, but not what was noted since."""
        for key, summary in changed.items():
            if key in self._changed and self._changed[key] is summary:
                del self._changed[key]

    async def _sweep(self, registry: RegistryStore, now: float) -> None:
        if self._sweep_at is None or now >= self._sweep_at:
            self._sweep_at = now + SWEEP_S
            with suppress(Unavailable):  # the next one sees them again
                self._unnamed = await registry.sweep(self.state, self._unnamed)


async def check_end(log: Log, partition: int, indexed_lsn: int) -> None:
    """`LogMismatch` if the log ends before what is indexed: new writes would get LSNs that the
    manifests already cover, and would be passed over.
    """
    end = await log.end_offset(partition)
    if indexed_lsn >= end:
        raise LogMismatch(
            f"partition {partition} is indexed up to LSN {indexed_lsn}, but its log ends at {end}: "
            "the log has lost records; restore it, or start with an empty object store"
        )


async def take_over(
    registry: RegistryStore, partition: int, log_id: str, log_epoch: int
) -> RegistryState:
    """Become the owner: fences every older one. `LogMismatch` if another log is indexed here."""
    newest = await registry.newest(partition)
    for _ in range(TAKE_TRIES):
        if newest is None:
            newest = RegistryState(
                partition=partition,
                log_id=log_id,
                log_epoch=log_epoch,
                owner_epoch=0,
                version=FIRST_VERSION - 1,
                commit_uuid="",
            )
        if (newest.log_id, newest.log_epoch) != (log_id, log_epoch):
            raise LogMismatch(
                f"partition {partition} is indexed from log {newest.log_id} "
                f"(epoch {newest.log_epoch}), but the log here is {log_id} (epoch {log_epoch}); "
                "start with the log or the object store that belong together"
            )
        ours = msgspec.structs.replace(
            newest,
            owner_epoch=newest.owner_epoch + 1,
            version=newest.version + 1,
            commit_uuid=new_uuid(),
        )
        try:
            await uninterrupted(registry.commit(ours))
        except RegistryConflict as conflict:
            newest = conflict.newest
            continue
        return ours
    raise Unavailable(f"others take partition {partition} over at the same time")
