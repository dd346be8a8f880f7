"""A data plane in a dict: every namespace's records after each write, searched by brute force.

It implements `api.ports`, so tests of the HTTP edge need no log, no store and no processes.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np

from core.errors import FirnError, NotFound, Unavailable
from core.filters.model import Filter
from core.filters.row import matches
from core.indexes import IndexInfo
from core.metric import exact_scores
from core.operations import (
    CreateNamespace,
    DeleteIds,
    DeleteNamespace,
    Operation,
    UpdateById,
    Upsert,
)
from core.records import Record, SparseValues, Vector
from core.replay import apply_to
from core.sparse import SparseColumns
from query.export import Export
from query.model import (
    DEFAULT_READ,
    Cost,
    CountResult,
    FetchPageResult,
    FetchResult,
    Freshness,
    ListResult,
    Match,
    MetadataRequest,
    NamespaceResult,
    NamespacesResult,
    NamespaceStats,
    QueryRequest,
    QueryResult,
    ReadOptions,
    StatsResult,
    WriteOutcome,
)

Key = tuple[str, str]


@dataclass
class MemoryIndex:
    """Writes and Reads of every index. `fail_with` is raised by the next call."""

    tables: dict[Key, dict[str, Record]] = field(default_factory=dict)
    declared: dict[Key, tuple[str, ...] | None] = field(default_factory=dict)
    outcomes: dict[str, bool] = field(default_factory=dict)
    lsn: int = -1
    freshness_flags: dict[str, bool] = field(default_factory=dict)
    fail_with: Exception | None = None
    fail_outcome_with: Unavailable | None = None
    fail_count_with: FirnError | None = None
    count_hangs: bool = False
    last_options: ReadOptions = DEFAULT_READ

    async def write(
        self,
        index: IndexInfo,
        namespace: str,
        operations: Sequence[Operation],
        *,
        request_id: str,
    ) -> int:
        self._maybe_fail()
        self.lsn += 1
        self.outcomes[request_id] = (index.index_id, namespace) in self.tables
        for operation in operations:
            self._apply((index.index_id, namespace), operation)
        return self.lsn

    def _apply(self, key: Key, operation: Operation) -> None:
        if isinstance(operation, DeleteNamespace):
            self.tables.pop(key, None)
            self.declared.pop(key, None)
            return
        if isinstance(operation, CreateNamespace) and key not in self.tables:
            self.declared[key] = operation.declared
        if isinstance(operation, Upsert | CreateNamespace):
            self.tables.setdefault(key, {})
        records = self.tables.get(key, {})
        touched = {r.id for r in operation.records} if isinstance(operation, Upsert) else set()
        if isinstance(operation, UpdateById):
            touched = {operation.id} & records.keys()
        elif isinstance(operation, DeleteIds):
            touched = set(operation.ids) & records.keys()
        elif not touched:
            touched = set(records)
        for record_id in touched:
            after = apply_to(records.get(record_id), operation, record_id)
            if after is None:
                records.pop(record_id, None)
            else:
                records[record_id] = after

    async def query(self, index: IndexInfo, namespace: str, request: QueryRequest) -> QueryResult:
        self._read(request.options)
        records = self._records(index, namespace)
        vector, sparse = request.vector, request.sparse
        if request.id is not None:
            if request.id not in records:
                return QueryResult((), self._freshness(), Cost())
            vector, sparse = records[request.id].values, records[request.id].sparse
        scored = [
            _match(record, score, request)
            for record in records.values()
            if request.filter is None or matches(request.filter, record.metadata)
            if (score := _score(index, record, vector, sparse)) is not None
        ]
        sign = -1 if index.metric.higher_is_better else 1
        scored.sort(key=lambda m: (sign * m.score, m.id))
        return QueryResult(tuple(scored[: request.top_k]), self._freshness(), Cost())

    async def fetch(
        self, index: IndexInfo, namespace: str, ids: Sequence[str], options: ReadOptions
    ) -> FetchResult:
        self._read(options)
        records = self._records(index, namespace)
        found = {i: records[i] for i in ids if i in records}
        return FetchResult(found, self._freshness(), Cost())

    async def fetch_by_metadata(
        self, index: IndexInfo, namespace: str, request: MetadataRequest
    ) -> FetchPageResult:
        self._read(request.options)
        found = self._matching(index, namespace, request.filter)
        page, following = _page(list(found), request.limit, request.token)
        records = {record_id: found[record_id] for record_id in page}
        return FetchPageResult(records, following, self._freshness(), Cost())

    @asynccontextmanager
    async def export(self, index: IndexInfo, namespace: str) -> AsyncIterator[Export]:
        """Ids, one a line: what is in a file is shown by the tests of `query.export`."""
        self._maybe_fail()
        if (index.index_id, namespace) not in self.tables:
            raise NotFound(f"Namespace {namespace!r} not found")
        records = self._records(index, namespace)

        async def chunks() -> AsyncIterator[bytes]:
            for record_id in sorted(records):
                yield f"{record_id}\n".encode()

        yield Export(self.lsn, self.lsn, len(records), chunks())

    async def count_matching(
        self, index: IndexInfo, namespace: str, condition: Filter, options: ReadOptions
    ) -> CountResult:
        self._read(options)
        if self.fail_count_with is not None:
            raise self.fail_count_with
        if self.count_hangs:
            await asyncio.Event().wait()
        found = self._matching(index, namespace, condition)
        return CountResult(len(found), self._freshness(), Cost())

    async def list_ids(
        self,
        index: IndexInfo,
        namespace: str,
        prefix: str,
        limit: int,
        token: str | None,
        options: ReadOptions,
    ) -> ListResult:
        self._read(options)
        names = [i for i in self._records(index, namespace) if i.startswith(prefix)]
        page, following = _page(names, limit, token)
        return ListResult(page, following, self._freshness(), Cost())

    async def stats(
        self, index: IndexInfo, options: ReadOptions, condition: Filter | None = None
    ) -> StatsResult:
        self._read(options)
        if condition is not None:
            total = len(self._matching(index, "__default__", condition))
            found = {"__default__": NamespaceStats("__default__", total, 0)}
            return StatsResult(found, total, self._freshness(), {})
        listed = {n.name: n for n in self._listed(index)}
        total = sum(n.record_count for n in listed.values())
        return StatsResult(listed, total, self._freshness(), {})

    async def namespaces(
        self, index: IndexInfo, prefix: str, limit: int, token: str | None, options: ReadOptions
    ) -> NamespacesResult:
        self._read(options)
        listed = {n.name: n for n in self._listed(index) if n.name.startswith(prefix)}
        page, following = _page(list(listed), limit, token)
        shown = tuple(listed[name] for name in page)
        return NamespacesResult(shown, following, len(listed), self._freshness())

    async def describe_namespace(
        self, index: IndexInfo, namespace: str, options: ReadOptions
    ) -> NamespaceResult:
        self._read(options)
        for known in self._listed(index):
            if known.name == namespace:
                return NamespaceResult(known, self._freshness())
        raise NotFound("Namespace not found")

    async def outcome(
        self,
        index: IndexInfo,
        namespace: str,
        lsn: int,
        request_id: str,
        deadline_s: float | None,
    ) -> WriteOutcome:
        if self.fail_outcome_with is not None:
            raise self.fail_outcome_with
        return WriteOutcome(lsn, self.outcomes.get(request_id))

    def _matching(self, index: IndexInfo, namespace: str, condition: Filter) -> dict[str, Record]:
        records = self._records(index, namespace)
        return {i: r for i, r in records.items() if matches(condition, r.metadata)}

    def _records(self, index: IndexInfo, namespace: str) -> dict[str, Record]:
        return self.tables.get((index.index_id, namespace), {})

    def _listed(self, index: IndexInfo) -> list[NamespaceStats]:
        return [
            NamespaceStats(name, len(records), 0, self.declared.get((index_id, name)))
            for (index_id, name), records in sorted(self.tables.items())
            if index_id == index.index_id
        ]

    def _read(self, options: ReadOptions) -> None:
        self.last_options = options
        self._maybe_fail()

    def _maybe_fail(self) -> None:
        if self.fail_with is not None:
            error, self.fail_with = self.fail_with, None
            raise error

    def _freshness(self) -> Freshness:
        return Freshness(self.lsn, **self.freshness_flags)


def _page(names: list[str], limit: int, token: str | None) -> tuple[tuple[str, ...], str | None]:
    """The token is the last name of the page before."""
    rest = sorted(name for name in names if token is None or name > token)
    page = tuple(rest[:limit])
    return page, page[-1] if len(rest) > limit else None


def _match(record: Record, score: float, request: QueryRequest) -> Match:
    return Match(
        id=record.id,
        score=score,
        lsn=0,
        values=record.values if request.include_values else None,
        sparse=record.sparse if request.include_values else None,
        metadata=(record.metadata or None) if request.include_metadata else None,
    )


def _score(
    index: IndexInfo, record: Record, vector: Vector | None, sparse: SparseValues | None
) -> float | None:
    """None: nothing in common with a sparse query."""
    score = None
    if vector is not None and record.values is not None:
        score = float(exact_scores(index.metric, record.values[np.newaxis], vector)[0])
    if sparse is not None:
        shared = float(SparseColumns.build([record.sparse]).scores(sparse)[0])
        if shared != 0 or score is not None:
            score = (score or 0.0) + shared
    return score
