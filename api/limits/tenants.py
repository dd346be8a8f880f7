"""What stands between the data plane and a tenant's request: its rate, then its turn."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from api.limits.rates import RateLimits
from api.limits.turns import Turns
from api.ports import Reads
from core.filters.model import Filter
from core.indexes import IndexInfo
from core.operations import DeleteIds, Operation, Upsert
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

# The namespace of a request is in its body: a large one is decoded in a turn of the index.
UNNAMED = ""


class Tenants:
    """Every method: `Overloaded` for a project or namespace that asks for too much."""

    def __init__(self, rates: RateLimits, turns: Turns) -> None:
        self._rates = rates
        self.turns = turns

    def sends(self, index: IndexInfo) -> None:
        """While a large body comes in."""
        self.turns.comes(index.project_id, _place(index, UNNAMED))

    async def decodes(self, index: IndexInfo) -> None:
        """Before a large body is decoded."""
        await self._take(index, UNNAMED)

    async def writes(
        self, index: IndexInfo, namespace: str, operations: Sequence[Operation], body_bytes: int
    ) -> None:
        await self.writes_records(index, namespace, sum(map(records_of, operations)), body_bytes)

    async def writes_records(
        self, index: IndexInfo, namespace: str, records: int, body_bytes: int
    ) -> None:
        self._rates.admit_write(index, namespace, body_bytes, records)
        await self._take(index, namespace)

    async def reads(self, index: IndexInfo, namespace: str | None) -> None:
        """`namespace` None: the index as a whole."""
        self._rates.admit_read(index, namespace)
        await self._take(index, UNNAMED if namespace is None else namespace)

    def may_read(self, index: IndexInfo, namespace: str) -> None:
        """Of a read that is to follow; nothing is counted."""
        self._rates.check_read(index, namespace)

    def has_read(self, index: IndexInfo, namespace: str | None, read_units: int) -> None:
        self._rates.spent(index, namespace, read_units)

    async def _take(self, index: IndexInfo, namespace: str) -> None:
        await self.turns.take(index.project_id, _place(index, namespace))


def _place(index: IndexInfo, namespace: str) -> str:
    return f"{index.index_id}/{namespace}"


def records_of(operation: Operation) -> int:
    """What an operation counts as against a rate: those that it names, 1 if it names none."""
    match operation:
        case Upsert():
            return len(operation.records)
        case DeleteIds():
            return len(operation.ids)
        case _:
            return 1


class TenantReads:
    """`Reads` by tenants: whatever reads goes through here, so no way of asking is forgotten."""

    def __init__(self, reads: Reads, tenants: Tenants) -> None:
        self._reads = reads
        self._tenants = tenants

    async def query(self, index: IndexInfo, namespace: str, request: QueryRequest) -> QueryResult:
        await self._tenants.reads(index, namespace)
        result = await self._reads.query(index, namespace, request)
        self._tenants.has_read(index, namespace, result.cost.read_units)
        return result

    async def fetch(
        self, index: IndexInfo, namespace: str, ids: Sequence[str], options: ReadOptions
    ) -> FetchResult:
        await self._tenants.reads(index, namespace)
        result = await self._reads.fetch(index, namespace, ids, options)
        self._tenants.has_read(index, namespace, result.cost.read_units)
        return result

    @asynccontextmanager
    async def export(self, index: IndexInfo, namespace: str) -> AsyncIterator[Export]:
        """Few run at a time, so only its beginning waits for a turn."""
        await self._tenants.reads(index, namespace)
        async with self._reads.export(index, namespace) as made:
            yield made

    async def fetch_by_metadata(
        self, index: IndexInfo, namespace: str, request: MetadataRequest
    ) -> FetchPageResult:
        await self._tenants.reads(index, namespace)
        result = await self._reads.fetch_by_metadata(index, namespace, request)
        self._tenants.has_read(index, namespace, result.cost.read_units)
        return result

    async def count_matching(
        self, index: IndexInfo, namespace: str, condition: Filter, options: ReadOptions
    ) -> CountResult:
        await self._tenants.reads(index, namespace)
        result = await self._reads.count_matching(index, namespace, condition, options)
        self._tenants.has_read(index, namespace, result.cost.read_units)
        return result

    async def list_ids(
        self,
        index: IndexInfo,
        namespace: str,
        prefix: str,
        limit: int,
        token: str | None,
        options: ReadOptions,
    ) -> ListResult:
        await self._tenants.reads(index, namespace)
        result = await self._reads.list_ids(index, namespace, prefix, limit, token, options)
        self._tenants.has_read(index, namespace, result.cost.read_units)
        return result

    async def stats(
        self, index: IndexInfo, options: ReadOptions, condition: Filter | None = None
    ) -> StatsResult:
        await self._tenants.reads(index, None)
        return await self._reads.stats(index, options, condition)

    async def namespaces(
        self, index: IndexInfo, prefix: str, limit: int, token: str | None, options: ReadOptions
    ) -> NamespacesResult:
        await self._tenants.reads(index, None)
        return await self._reads.namespaces(index, prefix, limit, token, options)

    async def describe_namespace(
        self, index: IndexInfo, namespace: str, options: ReadOptions
    ) -> NamespaceResult:
        await self._tenants.reads(index, namespace)
        return await self._reads.describe_namespace(index, namespace, options)

    async def outcome(
        self, index: IndexInfo, namespace: str, lsn: int, request_id: str, deadline_s: float | None
    ) -> WriteOutcome:
        """Of a write that was admitted: neither a read nor a turn of its own."""
        return await self._reads.outcome(index, namespace, lsn, request_id, deadline_s)
