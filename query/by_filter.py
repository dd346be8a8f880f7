"""Reads by filter alone: fetch by metadata, page by page, and how many records match."""

from dataclasses import replace

from core.filters.model import Filter
from core.indexes import IndexInfo
from freshness.protocol import Selection
from query.model import Cost, CountResult, FetchPageResult, MetadataRequest, ReadOptions
from query.operators.replay import OverlayCache
from query.operators.select import MatchingRecords
from query.records import decode_token, encode_token
from query.sight import ALL_TOUCHED, Sight, Watch
from storage.file_cache import FileCache

# A page takes this much of memory, and at most some four times as much as JSON: below the bound of
# an answer. What has no place comes with the next page.
PAGE_BYTES_MAX = 8 << 20


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
        partition = self._watch.partition(index.index_id, namespace)
        wanted = await self._watch.wanted(partition, options)
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
