"""`IndexBuilder`: consumes the log and keeps every namespace's files and manifest up to it.

`apply` only buffers. One loop decides by the policies what is due; flushes, compactions and
checkpoints run as tasks beside it, at most one flush and one compaction of a namespace at a time.
"""

import asyncio
import logging
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from builder.fairness import Claim, next_turn
from builder.garbage.collection import Swept
from builder.garbage.collector import Collector
from builder.garbage.plan import Grace
from builder.intake import Intake
from builder.jobs import Jobs
from builder.metrics import BuilderMetrics
from builder.namespace import Buffer, IdleNamespaces, NamespaceWork
from builder.partition import OwnedPartition, check_end, take_over
from builder.parts import BuilderParts
from builder.policy import may_need_compaction
from builder.settings import BuilderSettings
from builder.status import BuilderStatus, status_of
from builder.turns import FlushTurns, Turn
from builder.watch import Watch
from core.consumer import LogConsumer
from core.errors import FailedPrecondition, Fenced, FirnError, Unavailable
from core.feed import CheckpointEvent
from core.log import NO_LSN, LogRecord
from core.turns import step_aside

T = TypeVar("T")

logger = logging.getLogger(__name__)

# A checkpoint may write every section of the registry: with 100,000 namespaces in one partition it
# comes every 10 s at most.
REGISTRY_SECTIONS_PER_S = 20
# The age of the oldest entry is that of everything that waits.
SHOW_S = 1.0
# Decoding and checking is some 100 MB/s and 20 us a record: the event loop is left to others about
# every millisecond.
YIELD_BYTES = 64 << 10
RECORD_COST_BYTES = 2 << 10


class IndexBuilder(LogConsumer):
    """For one event loop. `start` begins the background work; without it `flush` and `compact`
    still do theirs.
    """

    def __init__(self, parts: BuilderParts, settings: BuilderSettings | None = None) -> None:
        self._parts = parts
        self._settings = settings or BuilderSettings()
        self._metrics = BuilderMetrics(parts.metrics)
        self._buffer = Buffer(self._settings.buffer_bytes, self._settings.buffer_records)
        self._jobs = Jobs(parts, self._settings, self._buffer)
        self._intake = Intake(
            *(parts.directory, parts.dead_letters, parts.clock, parts.partitions),
            metrics=self._metrics,
            retry_s=self._settings.directory_retry_s,
        )
        self._owned: dict[int, OwnedPartition] = {}
        self._tasks: dict[asyncio.Task[Any], OwnedPartition] = {}
        self._turns = FlushTurns(self._settings, self._buffer)
        self._compacting = 0
        self._to_compact: dict[NamespaceWork, tuple[OwnedPartition, float]] = {}
        self._idle = IdleNamespaces(self._settings.idle_namespaces, self._settings.idle_bytes)
        self._show_at = 0.0
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._collector = Collector(parts, self._settings, self._begin, self._forget_idle)
        self._watch = Watch(parts, self._settings.compaction, self._metrics)
        self._beside: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        if self._loop is None:
            self._loop = asyncio.create_task(self._run(), name="index-builder")
            for work in (self._collector.run, self._watch.run):
                self._beside.append(asyncio.create_task(work(self._owned.values)))

    async def stop(self) -> None:
        """A last flush and checkpoint of every partition, within a bound; then all is at rest."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.wait((self._loop,))
            self._loop = None
        for task in self._beside:
            task.cancel()
        await asyncio.gather(*self._beside, return_exceptions=True)
        self._beside.clear()
        await self.revoke(list(self._owned), lost=False)

    async def assign(self, partition: int) -> int:
        if partition in self._owned:
            await self.revoke([partition], lost=False)
        parts = self._parts
        state = await take_over(parts.registry, partition, parts.log_id, parts.log_epoch)
        await check_end(parts.log, partition, state.indexed_lsn)
        owned = OwnedPartition(state)
        left = [row async for row in parts.registry.unfinished(state)]
        self._owned[partition] = owned
        for (index_id, namespace), summary in left:
            work = owned.work(index_id, namespace)
            if summary.held_from != NO_LSN:
                owned.held[work.key] = work.gap_from = summary.held_from
                owned.settle(work)
                self._turns.again(owned, work, parts.clock.monotonic())
            if summary.unfinished and not summary.deleted:
                self._want_compaction(owned, work)
        self._wake.set()
        logger.debug(
            "partition %d is ours from offset %d on, owner epoch %d",
            *(partition, state.checkpoint, state.owner_epoch),
        )
        return state.checkpoint

    async def apply(self, partition: int, records: Sequence[LogRecord]) -> None:
        """`Fenced` or the like once the partition is given up."""
        owned = self._partition(partition)
        unyielded = 0
        for record in records:
            if record.offset < owned.applied:
                continue
            unyielded += RECORD_COST_BYTES + len(record.value or b"")
            if unyielded >= YIELD_BYTES:
                unyielded = 0
                await asyncio.sleep(0)
            await step_aside()
            write = await self._intake.take(record)
            _check(owned)
            work = None
            if write is not None:
                work = owned.work(write.index_id, write.namespace)
                if work.paused and work.gap_from is None:
                    work.gap_from = write.lsn
                if work.gap_from is None:  # else it is read again, behind those before it
                    work.pending.add(write, self._parts.clock.monotonic())
                owned.settle(work)
                self._buffer.recount(work)
                self._turns.added(owned, work, self._parts.clock.monotonic())
                self._idle.discard(work)
                self._metrics.ingested_bytes.inc(write.value_bytes)
                self._metrics.ingested_records.inc()
            owned.applied = record.offset + 1
            while self._buffer.full or (work is not None and self._buffer.hogged_by(work)):
                self._begin_due()
                await self._parts.clock.sleep(self._settings.tick_s)
                _check(owned)
        self._metrics.applied.labels(str(partition)).set(owned.applied)
        self._wake.set()

    async def revoke(self, partitions: Sequence[int], *, lost: bool) -> None:
        await asyncio.gather(*(self._give_up(p, lost) for p in partitions if p in self._owned))

    def applied(self, partition: int) -> int:
        return self._partition(partition).applied

    def committable(self, partition: int) -> int:
        return self._partition(partition).state.checkpoint

    def failure(self, partition: int) -> FirnError | None:
        """Why nothing of the partition is written any more."""
        return self._partition(partition).failure

    async def flush(self, partition: int | None = None) -> None:
        """All that is accepted is in the index, and the checkpoint behind it, when this returns.

        `Unavailable` if that did not work out now (it is tried again in the background); paused
        namespaces are left out.
        """
        for owned in self._some(partition):
            await self._drain(owned)
            await self._tracked(owned, self._checkpoint(owned))

    async def compact(self, partition: int | None = None) -> None:
        """Every namespace with something in memory is compacted until it is at rest."""
        for owned in self._some(partition):
            for work in list(owned.works.values()):
                while await self._tracked(owned, self._jobs.compact(owned, work)):
                    pass

    async def collect(
        self, partition: int | None = None, grace: Grace | None = None
    ) -> list[Swept]:
        """A look for garbage at every namespace that may have some, now. `FirnError`."""
        return [
            await self._tracked(owned, self._collector.collect(owned, key, grace))
            for owned in self._some(partition)
            for key in self._collector.known(owned)
        ]

    def status(self) -> BuilderStatus:
        return status_of(self._owned.values(), self._buffer, self._parts.clock.monotonic())

    def _partition(self, partition: int) -> OwnedPartition:
        owned = self._owned.get(partition)
        if owned is None:
            raise FailedPrecondition(f"partition {partition} is not assigned to this builder")
        return owned

    def _some(self, partition: int | None) -> list[OwnedPartition]:
        return list(self._owned.values()) if partition is None else [self._partition(partition)]

    async def _run(self) -> None:
        """Looks at what is due, a tick apart while there is anything to wait for."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._begin_due()
            if self._to_compact or any(
                owned.active and (owned.waiting or owned.dirty) for owned in self._owned.values()
            ):
                self._wake.set()
            self._show()
            await asyncio.sleep(self._settings.tick_s)

    def _show(self) -> None:
        now = self._parts.clock.monotonic()
        waiting = [owned.waiting for owned in self._owned.values()]
        self._metrics.buffered_bytes.set(self._buffer.bytes)
        self._metrics.buffered_records.set(self._buffer.records)
        self._metrics.compaction_queue.set(len(self._to_compact))
        if now >= self._show_at or not any(waiting):
            self._show_at = now + SHOW_S
            ages = (work.pending.load(now).age_s for works in waiting for work in works.values())
            self._metrics.oldest_seconds.set(max(ages, default=0.0))

    def _begin_due(self) -> None:
        now = self._parts.clock.monotonic()
        self._begin_flushes()
        for owned in self._owned.values():
            if owned.active and now >= owned.registry_at and owned.dirty:
                spread = len(owned.state.sections) / REGISTRY_SECTIONS_PER_S
                owned.registry_at = now + max(self._settings.registry_s, spread)
                self._begin(owned, self._checkpoint_or_warn(owned))
        while self._compacting < self._settings.compactions:
            work = next_turn(self._compaction_claims(now), now)
            if work is None:
                break
            owned, _ = self._to_compact.pop(work)
            if owned.active:
                self._compacting += 1
                job = self._begin(owned, self._compact(owned, work))
                job.add_done_callback(self._compaction_ended)

    def _compaction_claims(self, now: float) -> Iterator[Claim[NamespaceWork]]:
        for work, (_, since) in self._to_compact.items():
            if now >= work.compact_at and not work.compacting:
                size = 0 if work.manifest is None else work.manifest.byte_count
                yield Claim(work, since, min(size, self._settings.compaction.job_bytes))

    def _want_compaction(self, owned: OwnedPartition, work: NamespaceWork) -> None:
        self._to_compact.setdefault(work, (owned, self._parts.clock.monotonic()))

    def _begin_flushes(self) -> None:
        for turn in self._turns.take(self._owned.values(), self._parts.clock.monotonic()):
            task = self._begin(turn.owned, self._flush(turn.owned, turn.work))
            task.add_done_callback(partial(self._flush_ended, turn))

    def _begin(self, owned: OwnedPartition, job: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """All that writes runs in such a task, so that a revocation can end it."""
        task = asyncio.create_task(job)
        self._tasks[task] = owned
        task.add_done_callback(self._ended)
        return task

    async def _tracked(self, owned: OwnedPartition, job: Coroutine[Any, Any, T]) -> T:
        task = self._begin(owned, job)
        await asyncio.wait((task,))
        if task.cancelled():
            _check(owned)
        return task.result()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        self._wake.set()
        if not task.cancelled() and not isinstance(task.exception(), FirnError | None):
            logger.critical("a builder task failed", exc_info=task.exception())

    # Slots are given back by callbacks: a task that is cancelled before its first step, by a
    # revocation in the same turn of the loop, never comes to a `finally` of its own.

    def _flush_ended(self, turn: Turn, _: asyncio.Task[None]) -> None:
        self._turns.give_back(turn)
        if self._loop is not None:
            self._begin_flushes()

    def _compaction_ended(self, _: asyncio.Task[None]) -> None:
        self._compacting -= 1

    async def _flush(self, owned: OwnedPartition, work: NamespaceWork) -> None:
        try:
            await self._jobs.flush(owned, work)
        finally:
            work.flushing = False
        self._after_flush(owned, work)

    async def _compact(self, owned: OwnedPartition, work: NamespaceWork) -> None:
        committed = await self._jobs.compact(owned, work)
        if committed or work.compact_at > self._parts.clock.monotonic():  # the next job, or again
            self._want_compaction(owned, work)
        self._forget_idle(owned, work)

    def _after_flush(self, owned: OwnedPartition, work: NamespaceWork) -> None:
        self._turns.again(owned, work, self._parts.clock.monotonic())
        manifest = work.manifest
        if manifest is not None and may_need_compaction(manifest, self._settings.compaction):
            self._want_compaction(owned, work)
            self._wake.set()
        self._forget_idle(owned, work)

    def _forget_idle(self, owned: OwnedPartition, work: NamespaceWork) -> None:
        """Only so many namespaces without work stay in memory: those that had some last."""
        if work.idle and work not in self._to_compact:
            self._idle.add(owned.works, work)
        else:
            self._idle.discard(work)

    async def _drain(self, owned: OwnedPartition) -> None:
        """Flush until nothing is pending but in paused namespaces."""
        while works := [w for w in owned.waiting.values() if not w.paused]:
            _check(owned)
            before = [work.first_lsn for work in works]
            flushes = [self._begin(owned, self._jobs.flush(owned, work)) for work in works]
            await asyncio.wait(flushes)
            _check(owned)
            for work in works:
                self._after_flush(owned, work)
            if all(w.first_lsn == b and not w.paused for w, b in zip(works, before, strict=True)):
                raise Unavailable(f"partition {owned.number} cannot be flushed now")
        _check(owned)

    async def _checkpoint(self, owned: OwnedPartition) -> None:
        try:
            if not await owned.commit(self._parts.registry, self._parts.clock.monotonic()):
                return
        except Fenced as error:
            owned.give_up(error)
            raise
        checkpoint = owned.state.checkpoint
        self._metrics.checkpoint.labels(str(owned.number)).set(checkpoint)
        with suppress(Unavailable):  # news may be missed
            await self._parts.feed.publish(
                CheckpointEvent(owned.number, checkpoint, len(owned.held))
            )

    async def _checkpoint_or_warn(self, owned: OwnedPartition) -> None:
        try:
            await self._checkpoint(owned)
        except FirnError as error:
            logger.warning("checkpoint of partition %d failed: %s", owned.number, error)

    async def _give_up(self, partition: int, lost: bool) -> None:
        owned = self._owned[partition]
        owned.closing = True
        if not lost and owned.failure is None:
            try:
                async with asyncio.timeout(self._settings.stop_s):
                    await self._drain(owned)
                    await self._tracked(owned, self._checkpoint(owned))
            except (TimeoutError, FirnError) as error:
                logger.warning(
                    "partition %d is left with entries that its next owner replays: %s",
                    *(partition, error or "no time"),
                )
        # From here on nothing is begun, and what runs ends.
        owned.failure = owned.failure or FailedPrecondition(f"partition {partition} was revoked")
        tasks = [task for task, owner in self._tasks.items() if owner is owned]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for work in owned.works.values():
            self._buffer.forget(work)
            self._to_compact.pop(work, None)
            self._idle.discard(work)
            if work.paused:
                self._metrics.paused.dec()
        if self._owned.get(partition) is owned:
            del self._owned[partition]


def _check(owned: OwnedPartition) -> None:
    if owned.failure is not None:
        raise owned.failure
