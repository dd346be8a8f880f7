"""The freshness layer: holds what the log says above the manifests, and answers queries about it.

A driver feeds it the partitions it owns (`LogConsumer`); queries ask it directly or through
`freshness.server` (`FreshReader`). Memory follows the feed: what a manifest and the checkpoint
cover is dropped after a grace time, so that readers who just read an older manifest still find it.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from core.clock import Clock
from core.errors import FirnError, LogMismatch, Unavailable
from core.feed import CheckpointEvent, FeedEvent, ManifestEvent, ManifestFeed
from core.indexes import IndexDirectory
from core.log import NO_LSN, Log, LogRecord
from core.turns import step_aside
from freshness.budget import Budget, MemoryLimits
from freshness.partition import PartitionMemory
from freshness.protocol import (
    FreshAnswer,
    FreshRequest,
    FreshStatus,
    FreshUsage,
    NamespacesAnswer,
    NamespacesRequest,
)
from freshness.sweep import Sweeper, SweepSettings
from ingest.admit import Admitted, admit
from storage.commit import ManifestStore
from storage.registry import RegistryStore

logger = logging.getLogger(__name__)

# Below this an answer takes less than half a millisecond: a thread's hand-over would cost more.
INLINE_ROWS = 2_000
# A record is applied some milliseconds after it is in the log. A read that waits for longer looks
# whether there is one at all.
SETTLE_S = 0.1


@dataclass(frozen=True, slots=True)
class FreshnessSettings:
    """limits: of memory. sweep: when what is published is dropped."""

    limits: MemoryLimits = field(default_factory=MemoryLimits)
    sweep: SweepSettings = field(default_factory=SweepSettings)


@dataclass(frozen=True, slots=True)
class FreshnessParts:
    """`log` is asked for its identity and ends; the driver reads it. `log_epoch`: the
    catalog's.
    """

    log: Log
    directory: IndexDirectory
    manifests: ManifestStore
    registries: RegistryStore
    feed: ManifestFeed
    clock: Clock
    log_epoch: int = 0


class FreshnessLayer:
    """A `LogConsumer` and a `FreshReader`. `start` before the first partition is assigned."""

    def __init__(self, parts: FreshnessParts, settings: FreshnessSettings | None = None) -> None:
        self._parts = parts
        self._partitions: dict[int, PartitionMemory] = {}
        settings = settings or FreshnessSettings()
        self._budget = Budget(settings.limits)
        self._sweeper = Sweeper(
            settings.sweep, parts.manifests, parts.registries, parts.clock, self._budget
        )
        self._unsubscribe: Callable[[], None] | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._log_partitions = 0

    async def start(self) -> None:
        self._unsubscribe = self._parts.feed.subscribe(self._hear)
        self._sweeping = asyncio.create_task(self._sweep_on(), name="freshness-sweep")

    async def stop(self) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)
        await self.revoke(list(self._partitions), lost=True)

    # --- LogConsumer

    async def assign(self, partition: int) -> int:
        """Starts at the checkpoint; `LogMismatch` if this is not the log that was indexed."""
        log = self._parts.log
        identity = await log.identity()
        state, held_back = await self._parts.registries.newest_with_holds(partition)
        start = 0 if state is None else state.checkpoint
        ours = (identity.log_id, self._parts.log_epoch)
        if state is not None and (state.log_id, state.log_epoch) != ours:
            raise LogMismatch(
                f"partition {partition} was indexed from log {state.log_id}, epoch "
                f"{state.log_epoch}; this is log {ours[0]}, epoch {ours[1]}"
            )
        first, end = await log.start_offset(partition), await log.end_offset(partition)
        if not first <= start <= end:
            raise LogMismatch(
                f"partition {partition} is indexed up to {start}, but the log has [{first}, {end})"
            )
        await self.revoke([partition], lost=True)
        self._log_partitions = identity.partitions
        memory = self._partitions[partition] = PartitionMemory(partition, start, end)
        memory.learn_checkpoint(start, self._parts.clock.monotonic())
        memory.learn_holds(held_back, start)
        return start

    async def apply(self, partition: int, records: Sequence[LogRecord]) -> None:
        """Records that the builder rejects or skips change nothing here either."""
        memory = self._partitions[partition]
        for record in records:
            if record.offset < memory.next_offset:
                continue
            await step_aside()
            admitted = await admit(record, self._parts.directory, self._log_partitions)
            await step_aside()
            if isinstance(admitted, Admitted) and not memory.revoked:
                held = await memory.apply(admitted.write, self._parts.clock.monotonic())
                self._budget.changed(held)
                if held.attach_lsn == record.offset:
                    await self._sweeper.look_for(held)  # in a replay it is indexed already
            # some milliseconds per record of a thousand vectors: readers get their turn in between
            await asyncio.sleep(0)
            if memory.revoked:
                self._forget(memory)
                return
            memory.advance(record.offset + 1)

    async def revoke(self, partitions: Sequence[int], *, lost: bool) -> None:
        """Nothing is durable here, so losing a partition costs nothing but the memory."""
        for partition in partitions:
            memory = self._partitions.pop(partition, None)
            if memory is not None:
                memory.revoke()
                self._forget(memory)

    def applied(self, partition: int) -> int:
        return self._partitions[partition].next_offset

    def committable(self, partition: int) -> int:
        """For people who watch the group: recovery never starts from it."""
        return self._partitions[partition].checkpoint.newest

    # --- FreshReader

    async def read(self, request: FreshRequest) -> FreshAnswer:
        asked, m = request.outcome_of, request.manifest_lsn
        # an outcome is decided when its write is applied here, also if the files have it already
        covered = m if asked is None else NO_LSN
        memory = await self._reached(
            request.partition, request.want_lsn, covered, request.deadline_s
        )
        if isinstance(memory, FreshStatus):
            return FreshAnswer(memory)
        applied = memory.applied_lsn
        outcome = None
        if asked is not None:
            outcome = memory.outcome(request.index_id, request.namespace, asked)
        held = memory.held(request.index_id, request.namespace)
        if held is not None and held.resume(m):
            self._budget.changed(held)
        floor = memory.forgotten_lsn if held is None else held.memory.floor_lsn
        if m < floor:
            status = FreshStatus.UNPROVEN if held is None else FreshStatus.REREAD
            return FreshAnswer(status, applied, floor, outcome=outcome)
        if applied < m:
            return FreshAnswer(FreshStatus.BEHIND, applied, floor, outcome=outcome)
        if held is None:
            return FreshAnswer(FreshStatus.OK, applied, floor, outcome=outcome)
        shadow, overflowed = held.shadow(request)
        attaching = held.attaching and overflowed is not None
        if shadow is None:
            return FreshAnswer(
                FreshStatus.OK, applied, floor, overflowed, attaching, outcome=outcome
            )
        if shadow.rows <= INLINE_ROWS:
            answer = shadow.answer(applied, overflowed, outcome)
        else:
            answer = await asyncio.to_thread(shadow.answer, applied, overflowed, outcome)
        return replace(answer, attaching=attaching) if attaching else answer

    async def namespaces(self, request: NamespacesRequest) -> NamespacesAnswer:
        memory = await self._reached(
            request.partition, request.want_lsn, NO_LSN, request.deadline_s
        )
        if isinstance(memory, FreshStatus):
            return NamespacesAnswer(memory)
        return NamespacesAnswer(
            status=FreshStatus.OK,
            applied_lsn=memory.applied_lsn,
            forgotten_lsn=max(memory.forgotten_lsn, memory.swept_lsn),
            held=memory.held_names(request.index_id),
        )

    async def usage(self, partition: int) -> FreshUsage:
        return self._budget.usage()

    # --- for people

    @property
    def ready(self) -> bool:
        """Every assigned partition is recovered."""
        return all(memory.ready for memory in self._partitions.values())

    @property
    def size_bytes(self) -> int:
        """Memory of everything held, as the budget counts it."""
        return self._budget.size_bytes

    @property
    def partitions(self) -> tuple[int, ...]:
        return tuple(self._partitions)

    async def sweep(self) -> None:
        """One round of dropping what is published for long enough."""
        for memory in list(self._partitions.values()):
            if not memory.ready:
                await self._pass_markers(memory)
            await self._sweeper.sweep(memory)

    async def _reached(
        self, partition: int, want_lsn: int, manifest_lsn: int, deadline_s: float
    ) -> PartitionMemory | FreshStatus:
        """The partition once it is ready and has applied what is wanted, or when the time is
        over.
        """
        memory = self._partitions.get(partition)
        if memory is None:
            return FreshStatus.NOT_OWNER
        wanted = max(want_lsn if want_lsn > manifest_lsn else NO_LSN, memory.ready_offset - 1)
        await memory.wait_for(wanted, min(SETTLE_S, deadline_s))
        if deadline_s > SETTLE_S and memory.applied_lsn < wanted and not memory.revoked:
            await self._pass_markers(memory)
            await memory.wait_for(wanted, deadline_s - SETTLE_S)
        if memory.revoked:
            return FreshStatus.NOT_OWNER
        return memory if memory.ready else FreshStatus.NOT_READY

    async def _pass_markers(self, memory: PartitionMemory) -> None:
        """A transaction ends with a marker that no reader is ever given. Where the log has nothing
        but those before its end, everything up to there is applied.
        """
        if memory.settling:
            return
        memory.settling = True
        try:
            start, end = memory.next_offset, await self._parts.log.end_offset(memory.partition)
            if start < end:
                rest = await self._parts.log.read(
                    memory.partition, start, max_records=1, max_bytes=1
                )
                if not rest:
                    memory.advance(end)
        except Unavailable as error:
            logger.warning("the end of partition %d is not known: %s", memory.partition, error)
        finally:
            memory.settling = False

    def _forget(self, memory: PartitionMemory) -> None:
        for held in memory.namespaces.values():
            self._budget.forget(held)

    def _hear(self, event: FeedEvent) -> None:
        memory = self._partitions.get(event.partition)
        if memory is None:
            return
        now_s = self._parts.clock.monotonic()
        match event:
            case ManifestEvent():
                held = memory.held(event.index_id, event.namespace)
                if held is not None:
                    held.learn(event.indexed_lsn, now_s)
                    self._budget.changed(held)
            case CheckpointEvent(checkpoint=checkpoint, held=0):
                if checkpoint >= memory.checkpoint.newest:  # not late news
                    memory.learn_holds({}, checkpoint)
                    memory.learn_checkpoint(checkpoint, now_s)
            case CheckpointEvent():
                memory.holds_unknown = True

    async def _sweep_on(self) -> None:
        while True:
            await self._parts.clock.sleep(self._sweeper.settings.every_s)
            try:
                await self.sweep()
            except FirnError:
                logger.exception("a sweep failed; memory is kept until the next one")
