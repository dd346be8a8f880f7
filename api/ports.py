"""What the data plane's routes need; the write path and `query.service` implement it."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from core.filters.model import Filter
from core.indexes import IndexInfo
from core.operations import Operation
from query.export import Export
from query.model import (
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


class Writes(Protocol):
    async def write(
        self,
        index: IndexInfo,
        namespace: str,
        operations: Sequence[Operation],
        *,
        request_id: str,
    ) -> int:
        """Write to the log; returns the LSN once that is durable.

        `Unavailable` when the log is away, `Overloaded` when it cannot keep up, `TooLarge`.
        """


class Reads(Protocol):
    """`query.service.QueryService`, whose docstrings are the contract."""

    async def query(
        self, index: IndexInfo, namespace: str, request: QueryRequest
    ) -> QueryResult: ...

    async def fetch(
        self, index: IndexInfo, namespace: str, ids: Sequence[str], options: ReadOptions
    ) -> FetchResult: ...

    async def fetch_by_metadata(
        self, index: IndexInfo, namespace: str, request: MetadataRequest
    ) -> FetchPageResult: ...

    async def count_matching(
        self, index: IndexInfo, namespace: str, condition: Filter, options: ReadOptions
    ) -> CountResult: ...

    async def list_ids(
        self,
        index: IndexInfo,
        namespace: str,
        prefix: str,
        limit: int,
        token: str | None,
        options: ReadOptions,
    ) -> ListResult: ...

    def export(self, index: IndexInfo, namespace: str) -> AbstractAsyncContextManager[Export]: ...

    async def stats(
        self, index: IndexInfo, options: ReadOptions, condition: Filter | None = None
    ) -> StatsResult: ...

    async def namespaces(
        self, index: IndexInfo, prefix: str, limit: int, token: str | None, options: ReadOptions
    ) -> NamespacesResult: ...

    async def describe_namespace(
        self, index: IndexInfo, namespace: str, options: ReadOptions
    ) -> NamespaceResult: ...

    async def outcome(
        self, index: IndexInfo, namespace: str, lsn: int, request_id: str, deadline_s: float | None
    ) -> WriteOutcome: ...
