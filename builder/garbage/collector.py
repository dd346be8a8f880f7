"""Garbage collection of the owned partitions, slowly in the background.

A namespace is looked at a grace time after a commit, then every period until nothing waits there.
What dead processes left behind is found by a patrol: once for each assignment of a partition, at a
slow pace, through all of its namespaces.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from builder.chain import Target, event_of
from builder.fairness import DueQueue
from builder.garbage.collection import Collection, Swept, commit_boundary, sweep
from builder.garbage.pins import Pins
from builder.garbage.plan import Grace
from builder.metrics import BuilderMetrics
from builder.namespace import NamespaceKey, NamespaceWork
from builder.partition import OwnedPartition
from builder.parts import BuilderParts
from builder.policy import may_need_compaction
from builder.settings import BuilderSettings
from core.errors import CorruptData, Fenced, FirnError, LogMismatch, Unavailable
from core.indexes import IndexState
from storage.layout import FIRST_VERSION, NamespaceSchema, namespace_prefix
from storage.manifest import Manifest
from storage.registry_tree import Row
from storage.store_clock import StoreClock

logger = logging.getLogger(__name__)

Begin = Callable[[OwnedPartition, Coroutine[Any, Any, None]], "asyncio.Task[None]"]


@dataclass(slots=True)
class Schedule:
    """When to look at which namespace of one partition (monotonic seconds), and who patrols it."""

    due: DueQueue[NamespaceKey] = field(default_factory=DueQueue)
    patrols: list[AsyncIterator[Row]] = field(default_factory=list)
    deleted: set[str] = field(default_factory=set)


class Collector:
    """For one event loop. `begin` runs a job so that a revocation of its partition ends it;
    `settled` is told of each namespace that a job has touched.
    """

    def __init__(
        self,
        parts: BuilderParts,
        settings: BuilderSettings,
        begin: Begin,
        settled: Callable[[OwnedPartition, NamespaceWork], None],
    ) -> None:
        self._parts = parts
        self._settings = settings
        self._shop = parts.workshop(settings)
        self._metrics: BuilderMetrics = self._shop.metrics
        self._begin = begin
        self._settled = settled
        self._time = StoreClock(parts.store, parts.clock)
        self._schedules: WeakKeyDictionary[OwnedPartition, Schedule] = WeakKeyDictionary()
        self._running = 0
        self._waiting: dict[NamespaceKey, tuple[int, int]] = {}
        self.grace = Grace(ms=int(settings.gc_grace_s * 1000))

    async def run(self, owned: Callable[[], Iterable[OwnedPartition]]) -> None:
        """Until it is cancelled."""
        tick_s = min(5.0, self._settings.gc_period_s / 10)
        while True:
            for part in list(owned()):
                if part.active:
                    try:
                        await self._tend(part, tick_s)
                    except FirnError as error:
                        logger.warning("partition %d is not patrolled: %s", part.number, error)
            await asyncio.sleep(tick_s)

    def known(self, owned: OwnedPartition) -> list[NamespaceKey]:
        """Namespaces with garbage, now or soon, as far as it is known here."""
        schedule = self._schedule(owned)
        self._take_touched(owned, schedule)
        return list(schedule.due)

    async def collect(
        self, owned: OwnedPartition, key: NamespaceKey, grace: Grace | None = None
    ) -> Swept:
        """One pass over one namespace, now. `FirnError`: nothing is lost, the next one goes on."""
        info = await self._parts.directory.find(key[0])
        if info is None:
            raise CorruptData(f"index {key[0]} has objects, but the catalog lost it")
        now_ms = await self._time.now_ms()
        grace = grace or self.grace
        if info.state is IndexState.DELETED:
            place = namespace_prefix(*key)
            pins = Pins(self._parts.store, self._parts.directory, place, now_ms, grace)
            swept = await sweep(self._parts.store, pins)
            if swept.at_rest:
                owned.drop(key)
        else:
            target = Target(NamespaceSchema(*key, info.metric, info.dimension), owned.owner_epoch)

            async def commit(newest: Manifest, number: int) -> Manifest | None:
                return await self._commit(owned, target, newest, number)

            directory = self._parts.directory
            swept = await Collection(self._parts.store, *key, now_ms, grace, directory).run(commit)
        self._parts.cache.forget(swept.names)
        self._count(key, swept)
        if not swept.at_rest:
            at = self._parts.clock.monotonic() + self._settings.gc_period_s
            self._schedule(owned).due.offer(key, at)
        return swept

    async def _tend(self, owned: OwnedPartition, passed_s: float) -> None:
        schedule = self._schedule(owned)
        now = self._parts.clock.monotonic()
        self._take_touched(owned, schedule)
        await self._patrol(owned, schedule, now, passed_s)
        while self._running < self._settings.collections:
            key = schedule.due.pop(now)
            if key is None:
                return
            self._running += 1
            self._begin(owned, self._job(owned, key)).add_done_callback(self._job_ended)

    def _job_ended(self, _: "asyncio.Task[None]") -> None:
        self._running -= 1

    def _schedule(self, owned: OwnedPartition) -> Schedule:
        found = self._schedules.get(owned)
        if found is None:
            found = Schedule(patrols=[self._parts.registry.walk(owned.state)])
            self._schedules[owned] = found
        return found

    def _take_touched(self, owned: OwnedPartition, schedule: Schedule) -> None:
        at = self._parts.clock.monotonic() + self._settings.gc_grace_s
        for key, version in owned.touched.items():
            if version > FIRST_VERSION:  # nothing is before the first
                schedule.due.offer(key, at)
        owned.touched.clear()

    async def _patrol(
        self, owned: OwnedPartition, schedule: Schedule, now: float, passed_s: float
    ) -> None:
        """Some more namespaces to look at, of all and of indexes that were deleted meanwhile."""
        for index_id in {i for ref in owned.state.sections for i in ref.totals}:
            info = await self._parts.directory.find(index_id)
            deleted = info is not None and info.state is IndexState.DELETED
            if deleted and index_id not in schedule.deleted:
                schedule.deleted.add(index_id)
                schedule.patrols.append(self._parts.registry.walk(owned.state, index_id))
        left = max(1, int(self._settings.gc_patrol_per_s * passed_s))
        while schedule.patrols and left:
            row = await anext(schedule.patrols[0], None)
            if row is None:
                del schedule.patrols[0]
                continue
            schedule.due.offer(row[0], now)
            left -= 1

    async def _job(self, owned: OwnedPartition, key: NamespaceKey) -> None:
        try:
            await self.collect(owned, key)
        except (Fenced, LogMismatch) as error:
            owned.give_up(error)
        except Exception as error:
            self._metrics.collection_failures.labels(type(error).__name__).inc()
            wrong = isinstance(error, FirnError)
            logger.warning(
                "garbage of namespace %r of index %s waits: %s",
                *(key[1], key[0], error),
                exc_info=None if wrong else error,
            )
            now = self._parts.clock.monotonic()
            self._schedule(owned).due.offer(key, now + self._settings.gc_period_s)
        finally:
            work = owned.works.get(key)
            if work is not None:
                self._settled(owned, work)

    async def _commit(
        self, owned: OwnedPartition, target: Target, newest: Manifest, number: int
    ) -> Manifest | None:
        work = owned.work(target.schema.index_id, target.schema.namespace)
        async with work.lock:
            known, work.manifest = work.manifest, None
            if known is not None and known.version > newest.version:
                newest = known
            committed = await commit_boundary(self._shop, target, newest, number)
            if committed is None:
                return None
            work.manifest = committed
            limits = self._settings.compaction
            owned.note(committed, unfinished=may_need_compaction(committed, limits))
        self._metrics.collection_rounds.inc()
        with suppress(Unavailable):  # news may be missed
            await self._parts.feed.publish(event_of(committed, owned.number))
        return committed

    def _count(self, key: NamespaceKey, swept: Swept) -> None:
        self._metrics.collected_objects.inc(swept.objects)
        self._metrics.collected_bytes.inc(swept.bytes)
        self._waiting.pop(key, None)
        if not swept.at_rest:
            self._waiting[key] = (swept.waiting_objects, swept.waiting_bytes)
        self._metrics.garbage_objects.set(sum(count for count, _ in self._waiting.values()))
        self._metrics.garbage_bytes.set(sum(size for _, size in self._waiting.values()))
