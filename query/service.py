"""The read side of FirnDB: every question about a namespace is a method here."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from core.clock import Clock
from core.errors import InvalidRequest
from core.feed import ManifestFeed
from core.filters.model import Filter
from core.indexes import IndexInfo
from core.metric import Metric
from core.object_store import ObjectStore
from freshness.protocol import TOUCHED_MAX, FreshReader, OutcomeKey
from query.by_filter import FilterReads, stats_by
from query.export import Export, Exporter, ExportParts
from query.manifests import ManifestCache
from query.model import (
    DEFAULT_READ,
    CountResult,
    FetchPageResult,
    FetchResult,
    ListResult,
    MetadataRequest,
    NamespaceResult,
    NamespacesResult,
    QueryRequest,
    QueryResult,
    ReadOptions,
    StatsResult,
    WriteOutcome,
)
from query.namespaces import NamespaceParts, NamespaceReads
from query.operators.replay import OverlayCache
from query.positions import Positions
from query.records import Lister, fetch
from query.registries import RegistryCache
from query.search import Searcher, SearchParts
from query.sight import Watch
from storage.commit import ManifestStore
from storage.file_cache import FileCache
from storage.registry import RegistryStore
from storage.snapshots import SnapshotStore


@dataclass(frozen=True, slots=True)
class QuerySettings:
    """deadline_s: how long a default or strong read waits for freshness. touched_max: id hashes
    taken from freshness before candidates are checked one by one.
    """

    deadline_s: float = 2.0
    touched_max: int = TOUCHED_MAX


@dataclass(frozen=True, slots=True)
class QueryParts:
    """`partitions`: of the log, fixed at its creation. `fresh`: the layer itself, or a client that
    finds it.
    """

    manifests: ManifestStore
    registries: RegistryStore
    store: ObjectStore
    cache: FileCache
    fresh: FreshReader
    positions: Positions
    feed: ManifestFeed
    clock: Clock
    partitions: int


class QueryService:
    """Safe for many concurrent callers on one event loop. Namespaces are canonical names.

    Every method: `Unavailable` when freshness, store or log are away; `DeadlineExceeded` when a
    strong read or a `min_lsn` was not reached in time.
    """

    def __init__(self, parts: QueryParts, settings: QuerySettings | None = None) -> None:
        settings = settings or QuerySettings()
        self._feed = parts.feed
        self._unsubscribe: Callable[[], None] | None = None
        self._states = ManifestCache(parts.manifests, parts.cache, parts.clock)
        overlays = OverlayCache()
        self._watch = Watch(
            self._states,
            parts.fresh,
            parts.positions,
            parts.clock,
            parts.partitions,
            settings.deadline_s,
        )
        self._searcher = Searcher(
            SearchParts(self._watch, parts.fresh, parts.cache, overlays, settings.touched_max)
        )
        self._by_filter = FilterReads(self._watch, parts.cache, overlays)
        self._namespaces = NamespaceReads(
            NamespaceParts(
                watch=self._watch,
                states=self._states,
                fresh=parts.fresh,
                registries=RegistryCache(parts.registries, parts.clock),
                manifests=parts.manifests,
                overlays=overlays,
                partitions=parts.partitions,
            )
        )

        self._exporter = Exporter(
            ExportParts(
                manifests=parts.manifests,
                snapshots=SnapshotStore(parts.store, parts.manifests),
                registries=parts.registries,
                cache=parts.cache,
                positions=parts.positions,
                clock=parts.clock,
                partitions=parts.partitions,
            )
        )

    async def start(self) -> None:
        """Listens to the feed: manifests are then refreshed before somebody needs them."""
        self._unsubscribe = self._feed.subscribe(self._states.hear)

    async def stop(self) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        await self._states.close()

    async def query(self, index: IndexInfo, namespace: str, request: QueryRequest) -> QueryResult:
        """`InvalidRequest` if the request does not fit the index. An absent namespace or id has no
        matches.
        """
        _check(index, request)
        return await self._states.with_files(
            index.index_id, namespace, lambda: self._searcher.search(index, namespace, request)
        )

    async def fetch(
        self,
        index: IndexInfo,
        namespace: str,
        ids: Sequence[str],
        options: ReadOptions = DEFAULT_READ,
    ) -> FetchResult:
        return await self._states.with_files(
            index.index_id, namespace, lambda: fetch(self._watch, index, namespace, ids, options)
        )

    async def fetch_by_metadata(
        self, index: IndexInfo, namespace: str, request: MetadataRequest
    ) -> FetchPageResult:
        """`InvalidRequest` for a token that is not ours. An absent namespace has no matches."""
        return await self._states.with_files(
            index.index_id, namespace, lambda: self._by_filter.page(index, namespace, request)
        )

    async def count_matching(
        self,
        index: IndexInfo,
        namespace: str,
        condition: Filter,
        options: ReadOptions = DEFAULT_READ,
    ) -> CountResult:
        return await self._states.with_files(
            index.index_id,
            namespace,
            lambda: self._by_filter.count(index, namespace, condition, options),
        )

    async def list_ids(
        self,
        index: IndexInfo,
        namespace: str,
        prefix: str = "",
        limit: int = 100,
        token: str | None = None,
        options: ReadOptions = DEFAULT_READ,
    ) -> ListResult:
        """`InvalidRequest` for a token that is not ours."""
        lister = Lister(self._watch, index, namespace, prefix)
        return await self._states.with_files(
            index.index_id, namespace, lambda: lister.page(limit, token, options)
        )

    def export(self, index: IndexInfo, namespace: str) -> AbstractAsyncContextManager[Export]:
        """As `Exporter.export`."""
        return self._exporter.export(index, namespace)

    async def stats(
        self,
        index: IndexInfo,
        options: ReadOptions = DEFAULT_READ,
        condition: Filter | None = None,
    ) -> StatsResult:
        """With a condition, of the records that match it: `InvalidRequest` for an index of more
        than 1,000 namespaces.
        """
        found = await self._namespaces.stats(index, options)
        if condition is None:
            return found
        return await stats_by(
            lambda name: self.count_matching(index, name, condition, options), found
        )

    async def namespaces(
        self,
        index: IndexInfo,
        prefix: str = "",
        limit: int = 100,
        token: str | None = None,
        options: ReadOptions = DEFAULT_READ,
    ) -> NamespacesResult:
        """`InvalidRequest` for a token that is not ours."""
        return await self._namespaces.page(index, prefix, limit, token, options)

    async def describe_namespace(
        self, index: IndexInfo, namespace: str, options: ReadOptions = DEFAULT_READ
    ) -> NamespaceResult:
        """`NotFound` if it does not exist."""
        return await self._namespaces.describe(index, namespace, options)

    async def outcome(
        self,
        index: IndexInfo,
        namespace: str,
        lsn: int,
        request_id: str,
        deadline_s: float | None = None,
    ) -> WriteOutcome:
        """Whether the namespace existed just before the entry of `request_id` in the record at
        `lsn`; waits until freshness has applied it.

        create: existed False = created, True = 409. delete namespace and deletes: False = 404.
        """
        key = OutcomeKey(lsn, request_id)
        return await self._namespaces.outcome(index, namespace, key, deadline_s)


def _check(index: IndexInfo, request: QueryRequest) -> None:
    """The edge has validated already; this keeps a programming error from a wrong answer."""
    given = (request.vector is not None or request.sparse is not None, request.id is not None)
    if given in ((True, True), (False, False)):
        raise InvalidRequest("a query gives either an id or a vector")
    if request.top_k < 1:
        raise InvalidRequest("top_k must be at least 1")
    if request.id is not None:
        return
    if index.dimension is None:
        if request.vector is not None or request.sparse is None:
            raise InvalidRequest("a sparse index is searched by sparse values")
    elif request.vector is None or len(request.vector) != index.dimension:
        raise InvalidRequest(f"the query's vector must have dimension {index.dimension}")
    elif request.sparse is not None and index.metric is not Metric.DOTPRODUCT:
        raise InvalidRequest("sparse values need an index with metric dotproduct")
