"""The data plane's operations, whatever a request came by: REST and gRPC are mappings onto this.

Bodies arrive as functions that decode them, so that a big one is decoded and judged in one go, off
the event loop. Namespaces are canonical from here on.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TypeVar

from api.limits.tenants import TenantReads, Tenants
from api.ports import Reads, Writes
from api.vectors.bodies import INLINE_BYTES_MAX, judged
from api.vectors.namespace_quota import NamespaceQuota
from api.vectors.outcome import existed_before
from core.errors import AlreadyExists, CorruptData, InvalidRequest, NotFound, Unavailable
from core.filters.model import Filter
from core.filters.parse import parse_filter
from core.indexes import IndexInfo
from core.limits import FETCH_IDS_MAX, LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX
from core.operations import DeleteNamespace, Operation, UpdateById
from core.records import Record
from infra.catalog.model import Caller, Spec
from ingest import validate
from ingest.bodies import (
    CreateNamespaceBody,
    DeleteBody,
    FetchByMetadataBody,
    QueryBody,
    StatsBody,
    UpdateBody,
    UpsertBody,
)
from ingest.search import by_metadata, search
from ingest.vectors import checked_namespace, checked_prefix
from query.export import Export
from query.model import (
    Consistency,
    Cost,
    Freshness,
    Match,
    MetadataRequest,
    NamespaceResult,
    NamespacesResult,
    NamespaceStats,
    QueryRequest,
    ReadOptions,
    StatsResult,
)

log = logging.getLogger(__name__)

# Clients give up after 20 or 30 s, and the update itself is still to be written.
COUNT_S = 10.0

B = TypeVar("B")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Call:
    """One request by a proved caller to one index. body_bytes: its body's size on the wire; spec:
    of the index, where the operation needs it.
    """

    caller: Caller
    index: IndexInfo
    request_id: str
    options: ReadOptions
    body_bytes: int = 0
    spec: Spec = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Written:
    """An acknowledged write."""

    lsn: int


@dataclass(frozen=True, slots=True)
class Upserted(Written):
    count: int


@dataclass(frozen=True, slots=True)
class Updated:
    """lsn: None of a dry run, which writes nothing. matched: of an update by filter, how many
    records matched just before it; None: not known in time.
    """

    lsn: int | None
    by_filter: bool
    matched: int | None = None


@dataclass(frozen=True, slots=True)
class Decided(Written):
    """existed: did the namespace exist just before the write? None: not known in time."""

    existed: bool | None


@dataclass(frozen=True, slots=True)
class NamespaceCreated(Decided):
    namespace: NamespaceStats


@dataclass(frozen=True, slots=True, eq=False)
class Queried:
    """Matches, best first."""

    namespace: str
    matches: tuple[Match, ...]
    cost: Cost
    freshness: Freshness


@dataclass(frozen=True, slots=True, eq=False)
class Fetched:
    """Only records that exist, by id."""

    namespace: str
    records: Mapping[str, Record]
    cost: Cost
    freshness: Freshness


@dataclass(frozen=True, slots=True, eq=False)
class FetchedPage(Fetched):
    """In ascending order of ids; `next_token` is None on the last page."""

    next_token: str | None


@dataclass(frozen=True, slots=True)
class Listed:
    """Ids in ascending order; `next_token` is None on the last page."""

    namespace: str
    ids: tuple[str, ...]
    next_token: str | None
    cost: Cost
    freshness: Freshness


class DataPlane:
    """One method per operation. Errors are those of `core.errors`, never an HTTP status."""

    def __init__(
        self, writes: Writes, reads: Reads, tenants: Tenants, namespaces: NamespaceQuota
    ) -> None:
        self._writes = writes
        self._reads: Reads = TenantReads(reads, tenants)
        self._tenants = tenants
        self._namespaces = namespaces

    async def upsert(self, call: Call, given: Callable[[], UpsertBody]) -> Upserted:
        body, operation = await self._judged(
            call, given, lambda b: validate.upsert(b.vectors, call.index)
        )
        namespace = checked_namespace(body.namespace)
        await self._namespaces.admit(call.index, namespace)
        lsn = await self._write(call, namespace, operation)
        return Upserted(lsn, len(body.vectors))

    async def upsert_made(
        self,
        call: Call,
        namespace: str,
        given: Callable[[], Sequence[B]],
        make: Callable[[Sequence[B]], Awaitable[UpsertBody]],
    ) -> Upserted:
        """As `upsert`, of records that `make` makes of what is `given`, one of each, at a cost: so
        quota and rate are asked before.
        """
        name = checked_namespace(namespace)
        raw, count = await self._judged(call, given, len)
        await self._namespaces.admit(call.index, name)
        await self._tenants.writes_records(call.index, name, count, call.body_bytes)
        made = await make(raw)
        _, operation = await judged(
            call.body_bytes, lambda: made, lambda b: validate.upsert(b.vectors, call.index)
        )
        lsn = await self._writes.write(call.index, name, (operation,), request_id=call.request_id)
        return Upserted(lsn, count)

    async def query(
        self,
        call: Call,
        given: Callable[[], QueryBody],
        *,
        exhaustive: bool = False,
        explain: bool = False,
    ) -> Queried:
        _, wanted = await self._judged(call, given, lambda b: search(b, call.index))
        result = await self._reads.query(
            call.index,
            wanted.namespace,
            QueryRequest(
                top_k=wanted.top_k,
                vector=wanted.vector,
                id=wanted.id,
                sparse=wanted.sparse,
                filter=wanted.filter,
                include_values=wanted.include_values,
                include_metadata=wanted.include_metadata,
                exhaustive=exhaustive,
                explain=explain,
                scan_share=wanted.scan_share,
                options=call.options,
            ),
        )
        return Queried(wanted.namespace, result.matches, result.cost, result.freshness)

    def may_query(self, call: Call, namespace: str) -> None:
        """Before something is made for a query at a cost: `Overloaded` if the caller's rate does
        not allow the query now. Nothing is counted.
        """
        self._tenants.may_read(call.index, checked_namespace(namespace))

    async def fetch(self, call: Call, namespace: str | None, ids: Sequence[str]) -> Fetched:
        name = checked_namespace(namespace)
        wanted = validate.checked_ids(ids, FETCH_IDS_MAX)
        result = await self._reads.fetch(call.index, name, wanted, call.options)
        return Fetched(name, result.records, result.cost, result.freshness)

    async def fetch_by_metadata(
        self, call: Call, given: Callable[[], FetchByMetadataBody]
    ) -> FetchedPage:
        body, wanted = await self._judged(call, given, by_metadata)
        asked = MetadataRequest(
            wanted.filter, wanted.limit, body.pagination_token or None, call.options
        )
        page = await self._reads.fetch_by_metadata(call.index, wanted.namespace, asked)
        return FetchedPage(
            wanted.namespace, page.records, page.cost, page.freshness, page.next_token
        )

    async def update(self, call: Call, given: Callable[[], UpdateBody]) -> Updated:
        """By filter it says how many records matched when the write was about to be made. A dry run
        only counts: `Unavailable` when that cannot be done now. An update by id knows no dry run.
        """
        body, operation = await self._judged(call, given, lambda b: validate.update(b, call.index))
        namespace = checked_namespace(body.namespace)
        if isinstance(operation, UpdateById):
            return Updated(await self._write(call, namespace, operation), by_filter=False)
        if body.dry_run:
            count = await self._count(call, namespace, operation.filter)
            return Updated(None, by_filter=True, matched=count)
        matched = await self._count_if_possible(call, namespace, operation.filter)
        lsn = await self._write(call, namespace, operation)
        return Updated(lsn, by_filter=True, matched=matched)

    async def delete(self, call: Call, given: Callable[[], DeleteBody]) -> Decided:
        """`NotFound` if the namespace did not exist at the moment of the deletion in the log."""
        body, operation = await self._judged(call, given, validate.delete)
        return await self._deleted(call, checked_namespace(body.namespace), operation)

    async def list_ids(
        self, call: Call, namespace: str | None, prefix: str, limit: int | None, token: str | None
    ) -> Listed:
        """`limit` None: the default."""
        name = checked_namespace(namespace)
        result = await self._reads.list_ids(
            call.index, name, checked_prefix(prefix), page_size(limit), token or None, call.options
        )
        return Listed(name, result.ids, result.next_token, result.cost, result.freshness)

    def export(self, call: Call, namespace: str | None) -> AbstractAsyncContextManager[Export]:
        """To be read within the block."""
        return self._reads.export(call.index, checked_namespace(namespace))

    async def stats(self, call: Call, given: Callable[[], StatsBody]) -> StatsResult:
        """Of an index on pods also of the records that match a filter."""

        on_pods = call.spec.get("deployment", {}).get("deployment_type") == "pod"

        def judge(body: StatsBody) -> Filter | None:
            if body.filter and not on_pods:
                raise InvalidRequest(
                    "Serverless indexes do not support describing stats with a filter"
                )
            return parse_filter(body.filter) if body.filter else None

        _, condition = await self._judged(call, given, judge)
        return await self._reads.stats(call.index, call.options, condition)

    async def create_namespace(
        self, call: Call, given: Callable[[], CreateNamespaceBody]
    ) -> NamespaceCreated:
        """`AlreadyExists` if it existed at the moment of the creation in the log."""
        body, operation = await self._judged(
            call,
            given,
            lambda b: validate.create_namespace(checked_namespace(b.name), b.schema),
        )
        await self._namespaces.admit(call.index, body.name)
        lsn = await self._write(call, body.name, operation)
        existed = await existed_before(self._reads, call.index, body.name, lsn, call.request_id)
        if existed:
            raise AlreadyExists(f"Namespace {body.name} already exists")
        made = NamespaceStats(body.name, 0, 0, operation.declared)
        return NamespaceCreated(lsn, existed, made)

    async def list_namespaces(
        self, call: Call, prefix: str, limit: int | None, token: str | None
    ) -> NamespacesResult:
        """`limit` None: the default."""
        return await self._reads.namespaces(
            call.index, checked_prefix(prefix), page_size(limit), token or None, call.options
        )

    async def describe_namespace(self, call: Call, name: str) -> NamespaceResult:
        return await self._reads.describe_namespace(call.index, _named(name), call.options)

    async def delete_namespace(self, call: Call, name: str) -> Decided:
        """`NotFound` if it did not exist at the moment of the deletion in the log."""
        return await self._deleted(call, _named(name), DeleteNamespace())

    async def _count(self, call: Call, namespace: str, condition: Filter) -> int:
        """Having seen every write that was acknowledged before."""
        strong = ReadOptions(Consistency.STRONG)
        return (await self._reads.count_matching(call.index, namespace, condition, strong)).count

    async def _count_if_possible(self, call: Call, namespace: str, condition: Filter) -> int | None:
        """A write needs the log, and neither the freshness layer nor the store: where these are
        away, slow or damaged, it does without the count.
        """
        try:
            async with asyncio.timeout(COUNT_S):
                return await self._count(call, namespace, condition)
        except (Unavailable, CorruptData, TimeoutError) as error:
            log.warning("how many records an update by filter matches is not known: %r", error)
            return None

    async def _deleted(self, call: Call, namespace: str, operation: Operation) -> Decided:
        lsn = await self._write(call, namespace, operation)
        existed = await existed_before(self._reads, call.index, namespace, lsn, call.request_id)
        if existed is False:
            raise NotFound("Namespace not found")
        return Decided(lsn, existed)

    async def _judged(
        self, call: Call, given: Callable[[], B], judge: Callable[[B], R]
    ) -> tuple[B, R]:
        if call.body_bytes > INLINE_BYTES_MAX:
            await self._tenants.decodes(call.index)
        return await judged(call.body_bytes, given, judge)

    async def _write(self, call: Call, namespace: str, operation: Operation) -> int:
        """Every write goes through here; returns its LSN once it is durable."""
        await self._tenants.writes(call.index, namespace, (operation,), call.body_bytes)
        return await self._writes.write(
            call.index, namespace, (operation,), request_id=call.request_id
        )


def page_size(limit: int | None) -> int:
    """The default for None; `InvalidRequest` for a size that no page has."""
    if limit is None:
        return LIST_LIMIT_DEFAULT
    if not 1 <= limit <= LIST_LIMIT_MAX:
        raise InvalidRequest(f"limit must be between 1 and {LIST_LIMIT_MAX}, not {limit}")
    return limit


def _named(name: str) -> str:
    """No name must not mean the default namespace here, least of all to a deletion."""
    if not name:
        raise InvalidRequest("A namespace must be named; the default namespace is __default__")
    return checked_namespace(name)
