"""Reads by filter alone: fetch by metadata, page by page, and how many records match."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

from core.errors import InvalidRequest
from core.filters.model import Filter
from core.indexes import IndexInfo
from freshness.protocol import Selection
from query.model import (
    Cost,
    CountResult,
    FetchPageResult,
    Freshness,
    MetadataRequest,
    NamespaceStats,
    ReadOptions,
    StatsResult,
)
from query.operators.replay import OverlayCache
from query.operators.select import MatchingRecords
from query.records import decode_token, encode_token
from query.sight import ALL_TOUCHED, Sight, Watch
from storage.file_cache import FileCache

# A page takes this much of memory, and at most some four times as much as JSON: below the bound of
# an answer. What has no place comes with the next page.
PAGE_BYTES_MAX = 8 << 20
# Of stats with a filter: each namespace is counted by itself, so many of them at the same time.
COUNTED_NAMESPACES_MAX = 1_000
COUNTS_AT_ONCE = 8


class FilterReads:
    """Each read is one sight of the namespace."""

    def __init__(self, watch: Watch, cache: FileCache, overlays: OverlayCache) -> None:
        self._watch = watch
        self._cache = cache
        self._overlays = overlays

    async def page(
        self, index: IndexInfo, namespace: str, asked: MetadataRequest
    ) -> FetchPageResult:
        """A record that is written or deleted between two pages may or may not be seen, but never
        twice.
        """
        after = "" if asked.token is None else decode_token(asked.token)
        fresh = Selection(asked.filter, after, asked.limit, PAGE_BYTES_MAX)
        sight, found, cost = await self._see(index, namespace, fresh, asked.options)
        records, last = await found.page(after, asked.limit, PAGE_BYTES_MAX)
        token = None if last is None else encode_token(last)
        return FetchPageResult(records, token, sight.seen, cost)

    async def count(
        self, index: IndexInfo, namespace: str, condition: Filter, options: ReadOptions
    ) -> CountResult:
        sight, found, cost = await self._see(index, namespace, Selection(condition), options)
        return CountResult(await found.count(), sight.seen, cost)

    async def _see(
        self, index: IndexInfo, namespace: str, fresh: Selection, options: ReadOptions
    ) -> tuple[Sight, MatchingRecords, Cost]:
        wanted = await self._watch.wanted_of(index, namespace, options)
        request = replace(
            self._watch.request(index, namespace),
            selection=fresh,
            touched_max=ALL_TOUCHED,
            patches_of_all=True,
        )
        sight = await self._watch.see(request, wanted)
        cost = Cost(fresh_rows=sight.answer.scanned, fresh_hits=sight.answer.selected.count)
        found = MatchingRecords(sight, self._cache, self._overlays, fresh.filter, cost)
        return sight, found, cost


async def stats_by(
    count: Callable[[str], Awaitable[CountResult]], all_of_it: StatsResult
) -> StatsResult:
    """Of `all_of_it` what `count` finds in each namespace; those where it finds nothing are left
    out. `InvalidRequest` for too many namespaces.
    """
    known = [one for one in all_of_it.namespaces.values() if one.record_count]
    if len(known) > COUNTED_NAMESPACES_MAX:
        raise InvalidRequest(
            f"Stats with a filter count in at most {COUNTED_NAMESPACES_MAX} namespaces, this index "
            f"has {len(known)}: leave out the filter."
        )
    at_once = asyncio.Semaphore(COUNTS_AT_ONCE)

    async def one(stats: NamespaceStats) -> tuple[NamespaceStats, Freshness]:
        async with at_once:
            counted = await count(stats.name)
        return replace(stats, record_count=counted.count), counted.freshness

    counted = await asyncio.gather(*(one(stats) for stats in known))
    seen = [all_of_it.freshness, *(freshness for _, freshness in counted)]
    return replace(
        all_of_it,
        namespaces={stats.name: stats for stats, _ in counted if stats.record_count},
        total=sum(stats.record_count for stats, _ in counted),
        freshness=replace(
            all_of_it.freshness,
            stale=any(freshness.stale for freshness in seen),
            overflowed=any(freshness.overflowed for freshness in seen),
        ),
    )
