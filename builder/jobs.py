"""Flushes and compactions of the namespaces of owned partitions, and what failures lead to."""

import asyncio
import logging

from builder.catch_up import CatchUp
from builder.chain import Target, Workshop, event_of, newest
from builder.compaction.compact import commit_rewrite, execute
from builder.fairness import SMALL_FLUSHES
from builder.flush import flush
from builder.namespace import Buffer, NamespaceWork
from builder.partition import OwnedPartition, check_end
from builder.parts import BuilderParts
from builder.policy import may_need_compaction, plan
from builder.settings import BuilderSettings
from core.errors import CorruptData, Fenced, LogMismatch, ObjectNotFound, Unavailable
from core.log import NO_LSN
from storage.layout import NamespaceSchema
from storage.manifest import Manifest

logger = logging.getLogger(__name__)


class Jobs:
    """Both jobs end without raising (but `CancelledError`): a failure is kept where it belongs.

    `Unavailable` waits and repeats; `Fenced` and `LogMismatch` end the partition; anything else
    pauses the namespace, whose entries stay in the log, and leaves the others alone.
    """

    def __init__(self, parts: BuilderParts, settings: BuilderSettings, buffer: Buffer) -> None:
        self._parts = parts
        self._shop: Workshop = parts.workshop(settings)
        self._metrics = self._shop.metrics
        self._settings = settings
        self._buffer = buffer
        self._catch_up = CatchUp(parts, settings, self._metrics)
        self._flushes = asyncio.Semaphore(settings.flushes)
        self._small_flushes = asyncio.Semaphore(SMALL_FLUSHES)
        self._compactions = asyncio.Semaphore(settings.compactions)

    async def flush(self, owned: OwnedPartition, work: NamespaceWork) -> None:
        """One batch of what is pending."""
        manifest: Manifest | None = None
        small = work.is_small(self._parts.clock.monotonic())
        async with work.lock, self._small_flushes if small else self._flushes:
            if owned.failure is not None or not work.has_entries:
                return
            work.flushing = True
            try:
                with self._metrics.flush_seconds.time():
                    manifest = await self._flush_batch(owned, work)
            except Exception as error:  # noqa: BLE001 - a defect here must not stop the others
                self._failed(owned, work, error)
                return
            finally:
                work.flushing = False
                self._buffer.recount(work)
                owned.settle(work)
        if manifest is not None:
            await self._publish(owned, manifest)

    async def compact(self, owned: OwnedPartition, work: NamespaceWork) -> bool:
        """The next compaction job, if any; whether something was committed."""
        async with self._compactions:
            if owned.failure is not None or work.compacting:
                return False
            work.compacting = True
            try:
                manifest = await self._compact_once(owned, work)
            except Unavailable as error:
                logger.warning("compaction of %s waits: %s", _name(work), error)
                self._compact_later(work, self._settings.backoff_max_s)
                return False
            except (Fenced, LogMismatch) as error:
                owned.give_up(error)
                return False
            except Exception as error:
                self._metrics.failures.labels(type(error).__name__).inc()
                logger.exception("compaction of %s failed", _name(work))
                self._compact_later(work, self._settings.paused_retry_s)
                return False
            finally:
                work.compacting = False
        if manifest is not None:
            await self._publish(owned, manifest)
        return manifest is not None

    async def _flush_batch(self, owned: OwnedPartition, work: NamespaceWork) -> Manifest | None:
        target = await self._target(owned, work)
        if work.manifest is None or work.paused:
            work.manifest = await self._newest(owned, target)
            if work.manifest is not None and work.manifest.indexed_lsn >= owned.applied:
                # a replay; or a log that lost what was indexed
                await check_end(self._parts.log, owned.number, work.manifest.indexed_lsn)
        if work.gap_from is not None:
            await self._catch_up.fill(owned, work)
        batch = work.pending.batch(self._settings.batch_bytes)
        if not batch:
            return self._went_well(owned, work, work.manifest)
        try:
            manifest = await flush(self._shop, target, work.manifest, batch)
        except ObjectNotFound as error:
            known = await self._after_collection(work.manifest, target, error)
            manifest = await flush(self._shop, target, known, batch)
        work.manifest = manifest
        # A newest manifest may cover more than the batch.
        covered = NO_LSN if manifest is None else manifest.indexed_lsn
        work.pending.done(max(batch[-1].lsn, covered))
        return self._went_well(owned, work, manifest)

    def _went_well(
        self, owned: OwnedPartition, work: NamespaceWork, manifest: Manifest | None
    ) -> Manifest | None:
        if manifest is not None:
            limits = self._settings.compaction
            owned.note(manifest, unfinished=may_need_compaction(manifest, limits))
        work.failures = 0
        if work.paused and (manifest is not None or work.gap_from is None):
            logger.warning("%s goes on", _name(work))
            self._metrics.paused.dec()
            work.paused = ""
        return manifest

    async def _compact_once(self, owned: OwnedPartition, work: NamespaceWork) -> Manifest | None:
        target = await self._target(owned, work)
        async with work.lock:
            if work.manifest is None:
                work.manifest = await self._newest(owned, target)
            snapshot = work.manifest
        if snapshot is None:
            return None
        limits = self._settings.compaction
        job = await asyncio.to_thread(plan, snapshot, limits)
        if job is None:
            if work.manifest is snapshot:
                owned.note(snapshot, unfinished=False)
            return None
        try:
            rewrite = await execute(self._shop, target.schema, snapshot, job, limits)
        except ObjectNotFound as error:
            await self._after_collection(snapshot, target, error)
            raise Unavailable(f"it was planned on files that are collected: {error}") from error
        async with work.lock:
            manifest = await commit_rewrite(self._shop, target, work.manifest or snapshot, rewrite)
            if manifest is None:
                # What is newest is not known here: the next job begins by reading it.
                work.manifest = None
                self._metrics.compactions_dropped.inc()
                return None
            work.manifest = manifest
            owned.note(manifest, unfinished=True)
        self._metrics.compactions.labels(type(job).__name__).inc()
        return manifest

    async def _after_collection(
        self, known: Manifest | None, target: Target, error: ObjectNotFound
    ) -> Manifest:
        """The newest manifest, where a file of the one known is missing: it was known for so long
        that garbage collection took it. `CorruptData` if the newest one was known already.
        """
        found = await newest(self._shop, target.schema)
        if known is None or found is None or found.version <= known.version:
            raise CorruptData(f"a file of the newest manifest is missing: {error}") from error
        return found

    async def _newest(self, owned: OwnedPartition, target: Target) -> Manifest | None:
        """The newest manifest. `CorruptData` if it is older than what the registry says: then a
        newer one is lost with its copy, and to go on from here would lose the entries between.
        """
        schema = target.schema
        found = await newest(self._shop, schema)
        known = await self._parts.registry.get(owned.state, (schema.index_id, schema.namespace))
        if known is None:
            return found
        reached = (-1, NO_LSN) if found is None else (found.generation, found.indexed_lsn)
        if reached < (known.generation, known.indexed_lsn):
            raise CorruptData(
                f"manifest {known.version} of {schema.prefix} is missing: the registry says that "
                f"the namespace is indexed up to LSN {known.indexed_lsn}, the newest manifest that "
                f"is there says {reached[1]}; put it back or rebuild the namespace"
            )
        return found

    async def _target(self, owned: OwnedPartition, work: NamespaceWork) -> Target:
        info = await self._parts.directory.find(work.index_id)
        if info is None:
            raise CorruptData(f"index {work.index_id} has entries, but the catalog lost it")
        schema = NamespaceSchema(work.index_id, work.namespace, info.metric, info.dimension)
        return Target(schema, owned.owner_epoch)

    async def _publish(self, owned: OwnedPartition, manifest: Manifest) -> None:
        try:
            await self._parts.feed.publish(event_of(manifest, owned.number))
        except Unavailable as error:  # news may be missed: the next commit brings newer ones
            logger.warning("manifest %d is not announced: %s", manifest.version, error)

    def _failed(self, owned: OwnedPartition, work: NamespaceWork, error: Exception) -> None:
        """Must be called from the `except` block of a flush."""
        self._metrics.failures.labels(type(error).__name__).inc()
        work.manifest = None  # the outcome of a commit may be unknown
        settings, now = self._settings, self._parts.clock.monotonic()
        if isinstance(error, Fenced | LogMismatch):
            owned.give_up(error)
        elif isinstance(error, Unavailable):
            work.failures += 1
            wait_s = min(
                settings.backoff_first_s * 2 ** min(work.failures - 1, 16), settings.backoff_max_s
            )
            work.retry_at = now + wait_s
            logger.warning("flush of %s waits %.1f s: %s", _name(work), wait_s, error)
        else:
            work.retry_at = now + settings.paused_retry_s
            if not work.paused:
                self._metrics.paused.inc()
            why = f"{type(error).__name__}: {error}"
            if work.paused != why:
                work.paused = why
                logger.exception("%s is paused, its entries stay in the log", _name(work))
            work.gap_from = work.first_lsn
            work.pending.let_go()

    def _compact_later(self, work: NamespaceWork, wait_s: float) -> None:
        work.manifest = None
        work.compact_at = self._parts.clock.monotonic() + wait_s


def _name(work: NamespaceWork) -> str:
    return f"namespace {work.namespace!r} of index {work.index_id}"
