"""The read side of FirnDB: every question about a namespace is a method here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from core.clock import Clock
from core.feed import ManifestFeed
from core.indexes import IndexInfo
from freshness.protocol import FreshReader
from query.model import (
    DEFAULT_READ,
    FetchResult,
    ListResult,
    NamespaceResult,
    NamespacesResult,
    QueryRequest,
    QueryResult,
    ReadOptions,
    StatsResult,
    WriteOutcome,
)


class Positions(Protocol):
    """Where the log ends, asked after a query arrived."""

    async def end_lsn(self, partition: int) -> int:
        """The LSN (inclusive) of the newest durable record; NO_LSN for an empty partition."""


@dataclass(frozen=True, slots=True)
class QuerySettings:
    """deadline_s: how long a default or strong read waits for freshness; the contract with readers
    is 2 s.
    """

    deadline_s: float = 2.0


class QueryService:
    """Safe for many concurrent callers on one event loop. Namespaces are canonical names.

    Every method: `Unavailable` when freshness, store or log are away; `DeadlineExceeded` when a
    strong read or a `min_lsn` was not reached in time.
    """

    async def start(self) -> None:
        """Subscribes to the feed."""
        raise NotImplementedError

    async def stop(self) -> None:
        raise NotImplementedError

    async def query(self, index: IndexInfo, namespace: str, request: QueryRequest) -> QueryResult:
        """`InvalidRequest` if the request does not fit the index. An absent namespace or id has no
        matches.
        """
        raise NotImplementedError

    async def fetch(
        self,
        index: IndexInfo,
        namespace: str,
        ids: Sequence[str],
        options: ReadOptions = DEFAULT_READ,
    ) -> FetchResult:
        raise NotImplementedError

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
        raise NotImplementedError

    async def stats(self, index: IndexInfo, options: ReadOptions = DEFAULT_READ) -> StatsResult:
        raise NotImplementedError

    async def namespaces(
        self,
        index: IndexInfo,
        prefix: str = "",
        limit: int = 100,
        token: str | None = None,
        options: ReadOptions = DEFAULT_READ,
    ) -> NamespacesResult:
        raise NotImplementedError

    async def describe_namespace(
        self, index: IndexInfo, namespace: str, options: ReadOptions = DEFAULT_READ
    ) -> NamespaceResult:
        """`NotFound` if it does not exist."""
        raise NotImplementedError

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
        raise NotImplementedError


_ = (Clock, ManifestFeed, FreshReader)
