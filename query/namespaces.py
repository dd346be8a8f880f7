"""Questions about namespaces: their names, their counts, and whether one existed before a write."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from heapq import nsmallest

from core.errors import DeadlineExceeded, NotFound, Unavailable
from core.indexes import IndexInfo
from core.log import NO_LSN
from freshness.protocol import (
    FreshReader,
    FreshStatus,
    HeldName,
    NamespacesAnswer,
    NamespacesRequest,
    OutcomeKey,
)
from query.manifests import ManifestCache
from query.model import (
    Cost,
    Freshness,
    NamespaceResult,
    NamespacesResult,
    NamespaceStats,
    ReadOptions,
    StatsResult,
    WriteOutcome,
)
from query.operators.count import count
from query.operators.replay import OverlayCache
from query.records import decode_token, encode_token
from query.registries import RegistryCache
from query.sight import ALL_TOUCHED, Sight, Wanted, Watch
from storage.commit import ManifestStore
from storage.layout import FIRST_VERSION
from storage.registry import RegistryState
from storage.registry_tree import NamespaceSummary

# Namespaces counted at the same time; each may open some files.
COUNTS_AT_ONCE = 16
# Versions walked back to find the state before a write: a builder commits some per second at most.
WALK_MAX = 256


@dataclass(frozen=True, slots=True, eq=False)
class _Known:
    """One namespace that may exist. summary: exact as it is; None: it has to be counted."""

    name: str
    partition: int
    summary: NamespaceSummary | None


@dataclass(slots=True, eq=False)
class _Surveyed:
    """One partition. registry: names every namespace but those in `held`. held: those of which
    freshness holds anything, and whether they exist.

    seen: what the answer has seen of it, lowered by every look at a namespace that sees less:
    freshness may be away since the survey.
    """

    wanted: Wanted
    registry: RegistryState | None
    held: dict[str, bool]
    seen: Freshness

    def saw(self, sight: Sight) -> None:
        self.seen = _less(self.seen, sight.seen)


@dataclass(frozen=True, slots=True, eq=False)
class NamespaceParts:
    watch: Watch
    states: ManifestCache
    fresh: FreshReader
    registries: RegistryCache
    manifests: ManifestStore
    overlays: OverlayCache
    partitions: int


class NamespaceReads:
    def __init__(self, parts: NamespaceParts) -> None:
        self._parts = parts
        self._counting = asyncio.Semaphore(COUNTS_AT_ONCE)

    async def stats(self, index: IndexInfo, options: ReadOptions) -> StatsResult:
        surveys = await self._survey(index, options)
        found: list[NamespaceStats] = []
        for partition, survey in surveys.items():
            known = [k async for k in self._registered(index, partition, survey, "", "")]
            known += [_Known(n, partition, None) for n, exists in survey.held.items() if exists]
            found += await self._counted(index, known, survey)
        return StatsResult(
            namespaces={stats.name: stats for stats in found},
            total=sum(stats.record_count for stats in found),
            freshness=_joined([survey.seen for survey in surveys.values()]),
            lsns={partition: survey.seen.lsn for partition, survey in surveys.items()},
        )

    async def page(
        self, index: IndexInfo, prefix: str, limit: int, token: str | None, options: ReadOptions
    ) -> NamespacesResult:
        after = "" if token is None else decode_token(token)
        surveys = await self._survey(index, options)
        following: list[_Known] = []
        for partition, survey in surveys.items():
            some = self._registered(index, partition, survey, prefix, after)
            following += [known async for known in _first(limit + 1, some)]
            following += [
                _Known(name, partition, None)
                for name, exists in survey.held.items()
                if exists and name.startswith(prefix) and name > after
            ]
        following = nsmallest(limit + 1, following, key=lambda known: known.name)
        page: list[NamespaceStats] = []
        for partition, survey in surveys.items():
            mine = [_shown(k) for k in following[:limit] if k.partition == partition]
            page += await self._counted(index, mine, survey)
        total = [await self._total(index, survey, prefix) for survey in surveys.values()]
        return NamespacesResult(
            namespaces=tuple(sorted(page, key=lambda stats: stats.name)),
            next_token=encode_token(following[limit - 1].name) if following[limit:] else None,
            total=sum(total),
            freshness=_joined([survey.seen for survey in surveys.values()]),
        )

    async def describe(
        self, index: IndexInfo, namespace: str, options: ReadOptions
    ) -> NamespaceResult:
        wanted = await self._parts.watch.wanted_of(index, namespace, options)
        stats, sight = await self._count(index, namespace, wanted)
        if not sight.exists:
            raise NotFound(f"Namespace {namespace!r} not found")
        return NamespaceResult(stats, sight.seen)

    async def outcome(
        self, index: IndexInfo, namespace: str, key: OutcomeKey, deadline_s: float | None
    ) -> WriteOutcome:
        watch = self._parts.watch
        partition = watch.partition(index.index_id, namespace)
        wanted = await watch.wanted(partition, ReadOptions(min_lsn=key.lsn, deadline_s=deadline_s))
        request = replace(watch.request(index, namespace), outcome_of=key)
        try:
            sight = await watch.see(request, replace(wanted, strict=False))
        except Unavailable:
            return WriteOutcome(key.lsn, None)
        outcome = sight.answer.outcome
        existed = None if outcome is None else outcome.existed
        if outcome is not None and existed is None:
            existed = await self._existed(sight, index.index_id, namespace, key.lsn)
        return WriteOutcome(key.lsn, existed)

    async def _existed(self, sight: Sight, index_id: str, namespace: str, lsn: int) -> bool | None:
        """By the last manifest that does not cover `lsn`. Nothing that freshness saw in between
        says otherwise.
        """
        manifest = sight.state.manifest
        for _ in range(WALK_MAX):
            if manifest is None:
                return False
            if manifest.indexed_lsn < lsn:
                return not manifest.deleted
            if manifest.version <= FIRST_VERSION:
                return False
            manifest = await self._parts.manifests.read(index_id, namespace, manifest.version - 1)
            if manifest is None:
                return None  # collected: too long ago to say
        return None

    async def _survey(self, index: IndexInfo, options: ReadOptions) -> dict[int, _Surveyed]:
        partitions = range(self._parts.partitions)
        found = await asyncio.gather(*(self._on(index, p, options) for p in partitions))
        return dict(zip(partitions, found, strict=True))

    async def _on(self, index: IndexInfo, partition: int, options: ReadOptions) -> _Surveyed:
        wanted = await self._parts.watch.wanted(partition, options)
        answer = await self._ask(index.index_id, partition, wanted)
        forgotten = answer.forgotten_lsn if answer.status is FreshStatus.OK else None
        registry = await self._parts.registries.covering(partition, forgotten)
        lsn = max(answer.applied_lsn, NO_LSN if registry is None else registry.checkpoint - 1)
        survey = _Surveyed(
            wanted, registry, {}, Freshness(lsn, stale=lsn < wanted.lsn or not wanted.known)
        )
        if wanted.strict and survey.seen.stale:
            raise DeadlineExceeded(
                f"reads see partition {partition} up to LSN {lsn}; "
                f"{wanted.lsn} was not reached in time"
            )
        for held in answer.held:
            survey.held[held.name] = await self._exists(index, survey, held)
        return survey

    async def _exists(self, index: IndexInfo, survey: _Surveyed, held: HeldName) -> bool:
        if held.overflowed:
            request = self._parts.watch.request(index, held.name)
            sight = await self._parts.watch.see(request, survey.wanted)
            survey.saw(sight)
            return sight.exists
        if held.exists is not None:
            return held.exists
        return await self._is_registered(index, survey, held.name)

    async def _is_registered(self, index: IndexInfo, survey: _Surveyed, name: str) -> bool:
        if survey.registry is None:
            return False
        store = self._parts.registries.store
        summary = await store.get(survey.registry, (index.index_id, name))
        return summary is not None and not summary.deleted

    async def _registered(
        self, index: IndexInfo, partition: int, survey: _Surveyed, prefix: str, after: str
    ) -> AsyncIterator[_Known]:
        """Those that exist and of which freshness holds nothing, in the order of names."""
        if survey.registry is None:
            return
        store = self._parts.registries.store
        rows = store.walk(survey.registry, index.index_id, prefix, after)
        async for (_, name), summary in rows:
            if name not in survey.held and not summary.deleted:
                yield _Known(name, partition, summary)

    async def _total(self, index: IndexInfo, survey: _Surveyed, prefix: str) -> int:
        total = 0
        if survey.registry is not None:
            store = self._parts.registries.store
            total = await store.count(survey.registry, index.index_id, prefix)
        for name, exists in survey.held.items():
            if name.startswith(prefix):
                total += exists - await self._is_registered(index, survey, name)
        return total

    async def _ask(self, index_id: str, partition: int, wanted: Wanted) -> NamespacesAnswer:
        request = NamespacesRequest(
            index_id, partition, wanted.lsn, self._parts.watch.left_s(wanted)
        )
        try:
            answer = await self._parts.fresh.namespaces(request)
        except Unavailable:
            return NamespacesAnswer(FreshStatus.NOT_READY)
        return answer if answer.status is FreshStatus.OK else NamespacesAnswer(answer.status)

    async def _counted(
        self, index: IndexInfo, known: Sequence[_Known], survey: _Surveyed
    ) -> list[NamespaceStats]:
        """Of those that exist."""

        async def one(name: str) -> NamespaceStats | None:
            async with self._counting:
                stats, sight = await self._count(index, name, survey.wanted)
            survey.saw(sight)
            return stats if sight.exists else None

        counted = await asyncio.gather(*(one(k.name) for k in known if k.summary is None))
        return [stats for stats in counted if stats is not None] + [
            NamespaceStats(k.name, k.summary.record_count, k.summary.byte_count)
            for k in known
            if k.summary is not None
        ]

    async def _count(
        self, index: IndexInfo, namespace: str, wanted: Wanted
    ) -> tuple[NamespaceStats, Sight]:
        return await self._parts.states.with_files(
            index.index_id, namespace, lambda: self._count_now(index, namespace, wanted)
        )

    async def _count_now(
        self, index: IndexInfo, namespace: str, wanted: Wanted
    ) -> tuple[NamespaceStats, Sight]:
        request = replace(
            self._parts.watch.request(index, namespace),
            touched_max=ALL_TOUCHED,
            patches_of_all=True,
        )
        sight = await self._parts.watch.see(request, wanted)
        total = await count(sight, self._parts.overlays, Cost())
        manifest = sight.state.manifest
        hidden = manifest is None or sight.reader_hidden
        size = 0 if manifest is None or hidden else manifest.byte_count
        return NamespaceStats(namespace, total, size, sight.declared), sight


def _shown(known: _Known) -> _Known:
    """What was declared is not in a summary but in the manifest."""
    has_schema = known.summary is not None and known.summary.has_schema
    return replace(known, summary=None) if has_schema else known


def _less(one: Freshness, other: Freshness) -> Freshness:
    """What an answer made of both has seen."""
    return Freshness(
        lsn=min(one.lsn, other.lsn),
        stale=one.stale or other.stale,
        overflowed=one.overflowed or other.overflowed,
    )


def _joined(seen: Sequence[Freshness]) -> Freshness:
    """LSNs of partitions do not compare: only one partition has an LSN to tell."""
    return Freshness(
        seen[0].lsn if len(seen) == 1 else NO_LSN,
        stale=any(f.stale for f in seen),
        overflowed=any(f.overflowed for f in seen),
    )


async def _first(count: int, known: AsyncIterator[_Known]) -> AsyncIterator[_Known]:
    async for one in known:
        yield one
        count -= 1
        if not count:
            return
