"""Questions about namespaces: their names, their counts, and whether one existed before a write."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from core.errors import DeadlineExceeded, NotFound, Unavailable
from core.indexes import IndexInfo
from core.log import NO_LSN
from freshness.protocol import (
    FreshReader,
    FreshStatus,
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
from storage.file_cache import FileCache
from storage.layout import FIRST_VERSION
from storage.registry import NamespaceSummary

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


@dataclass(frozen=True, slots=True, eq=False)
class NamespaceParts:
    watch: Watch
    states: ManifestCache
    fresh: FreshReader
    registries: RegistryCache
    manifests: ManifestStore
    cache: FileCache
    overlays: OverlayCache
    partitions: int


class NamespaceReads:
    def __init__(self, parts: NamespaceParts) -> None:
        self._parts = parts
        self._counting = asyncio.Semaphore(COUNTS_AT_ONCE)

    async def stats(self, index: IndexInfo, options: ReadOptions) -> StatsResult:
        wanted, known, seen = await self._survey(index, options)
        counted = await self._counted(index, known, wanted, seen)
        lsns = {partition: freshness.lsn for partition, freshness in seen.items()}
        return StatsResult(
            namespaces={stats.name: stats for stats in counted},
            total=sum(stats.record_count for stats in counted),
            freshness=_joined(seen),
            lsns=lsns,
        )

    async def page(
        self, index: IndexInfo, prefix: str, limit: int, token: str | None, options: ReadOptions
    ) -> NamespacesResult:
        after = "" if token is None else decode_token(token)
        wanted, known, seen = await self._survey(index, options)
        known = sorted((k for k in known if k.name.startswith(prefix)), key=lambda k: k.name)
        existing = await self._existing(index, known, wanted, seen)
        following = [k for k in existing if k.name > after]
        page = await self._counted(index, following[:limit], wanted, seen)
        more = len(following) > limit
        return NamespacesResult(
            namespaces=tuple(page),
            next_token=encode_token(following[limit - 1].name) if more else None,
            total=len(existing),
            freshness=_joined(seen),
        )

    async def describe(
        self, index: IndexInfo, namespace: str, options: ReadOptions
    ) -> NamespaceResult:
        partition = self._parts.watch.partition(index.index_id, namespace)
        wanted = await self._parts.watch.wanted(partition, options)
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

    async def _survey(
        self, index: IndexInfo, options: ReadOptions
    ) -> tuple[dict[int, Wanted], list[_Known], dict[int, Freshness]]:
        """Every namespace of the index that a registry or freshness knows, on all partitions."""
        partitions = range(self._parts.partitions)
        parts = await asyncio.gather(*(self._on(index, p, options) for p in partitions))
        wanted = {p: part[0] for p, part in zip(partitions, parts, strict=True)}
        seen = {p: part[2] for p, part in zip(partitions, parts, strict=True)}
        return wanted, [known for part in parts for known in part[1]], seen

    async def _on(
        self, index: IndexInfo, partition: int, options: ReadOptions
    ) -> tuple[Wanted, list[_Known], Freshness]:
        wanted = await self._parts.watch.wanted(partition, options)
        answer = await self._ask(index.index_id, partition, wanted)
        forgotten = answer.forgotten_lsn if answer.status is FreshStatus.OK else None
        registry = await self._parts.registries.covering(partition, forgotten)
        lsn = max(answer.applied_lsn, NO_LSN if registry is None else registry.checkpoint - 1)
        seen = Freshness(lsn, stale=lsn < wanted.lsn or not wanted.known)
        if wanted.strict and seen.stale:
            raise DeadlineExceeded(
                f"reads see partition {partition} up to LSN {lsn}; "
                f"{wanted.lsn} was not reached in time"
            )
        held = {name: _Known(name, partition, None) for name in answer.held}
        for (index_id, name), summary in ({} if registry is None else registry.namespaces).items():
            if index_id == index.index_id and name not in held and not summary.deleted:
                held[name] = _Known(name, partition, summary)
        return wanted, list(held.values()), seen

    async def _ask(self, index_id: str, partition: int, wanted: Wanted) -> NamespacesAnswer:
        request = NamespacesRequest(
            index_id, partition, wanted.lsn, self._parts.watch.left_s(wanted)
        )
        try:
            answer = await self._parts.fresh.namespaces(request)
        except Unavailable:
            return NamespacesAnswer(FreshStatus.NOT_READY)
        return answer if answer.status is FreshStatus.OK else NamespacesAnswer(answer.status)

    async def _existing(
        self,
        index: IndexInfo,
        known: Sequence[_Known],
        wanted: dict[int, Wanted],
        seen: dict[int, Freshness],
    ) -> list[_Known]:
        """`seen` is lowered to what each look saw: freshness may be away since the survey."""

        async def exists(one: _Known) -> bool:
            if one.summary is not None:
                return True
            async with self._counting:
                request = self._parts.watch.request(index, one.name)
                sight = await self._parts.watch.see(request, wanted[one.partition])
            seen[one.partition] = _less(seen[one.partition], sight.seen)
            return sight.exists

        flags = await asyncio.gather(*(exists(one) for one in known))
        return [one for one, flag in zip(known, flags, strict=True) if flag]

    async def _counted(
        self,
        index: IndexInfo,
        known: Sequence[_Known],
        wanted: dict[int, Wanted],
        seen: dict[int, Freshness],
    ) -> list[NamespaceStats]:
        """Of those that exist, in the same order; `seen` as in `_existing`."""

        async def one(k: _Known) -> NamespaceStats | None:
            if k.summary is not None:
                return NamespaceStats(k.name, k.summary.record_count, k.summary.byte_count)
            async with self._counting:
                stats, sight = await self._count(index, k.name, wanted[k.partition])
            seen[k.partition] = _less(seen[k.partition], sight.seen)
            return stats if sight.exists else None

        found = await asyncio.gather(*(one(k) for k in known))
        return [stats for stats in found if stats is not None]

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
        total = await count(sight, self._parts.cache, self._parts.overlays, Cost())
        manifest = sight.state.manifest
        hidden = manifest is None or sight.reader_hidden
        size = 0 if manifest is None or hidden else manifest.byte_count
        return NamespaceStats(namespace, total, size), sight


def _less(one: Freshness, other: Freshness) -> Freshness:
    """What an answer made of both has seen."""
    return Freshness(
        lsn=min(one.lsn, other.lsn),
        stale=one.stale or other.stale,
        overflowed=one.overflowed or other.overflowed,
    )


def _joined(seen: dict[int, Freshness]) -> Freshness:
    """LSNs of partitions do not compare: only one partition has an LSN to tell."""
    lsn = next(iter(seen.values())).lsn if len(seen) == 1 else NO_LSN
    return Freshness(
        lsn,
        stale=any(f.stale for f in seen.values()),
        overflowed=any(f.overflowed for f in seen.values()),
    )
