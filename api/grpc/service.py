"""Pinecone's `VectorService`: each method is a mapping onto the data plane."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from google.protobuf.message import Message

from api.grpc import replies
from api.grpc import requests as asked
from api.grpc.generated import packed_pb2 as packed
from api.grpc.generated import vector_service_pb2 as full
from api.vectors import headers
from api.vectors.plane import Call, DataPlane

# Messages with so many records take about a millisecond to build.
INLINE_RECORDS_MAX = 200


@dataclass(frozen=True, slots=True)
class Received:
    """A request that was let in. `metadata`: by lower case names, as REST has headers."""

    call: Call
    metadata: Mapping[str, str]
    message: bytes

    def shown(self, namespace: str) -> str:
        return headers.shown_namespace(self.metadata, namespace)


@dataclass(frozen=True, slots=True)
class Reply:
    """`metadata`: what REST has in headers."""

    message: bytes
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Method:
    """`writes`: the key must be one that may write."""

    name: str
    writes: bool
    answer: Callable[[Received], Awaitable[Reply]]


class VectorService:
    """`bytes_max`: of a request's message."""

    def __init__(self, plane: DataPlane, bytes_max: int) -> None:
        self._plane = plane
        self._bytes_max = bytes_max

    def methods(self) -> list[Method]:
        return [
            Method("Upsert", True, self.upsert),
            Method("Delete", True, self.delete),
            Method("Update", True, self.update),
            Method("CreateNamespace", True, self.create_namespace),
            Method("DeleteNamespace", True, self.delete_namespace),
            Method("Query", False, self.query),
            Method("Fetch", False, self.fetch),
            Method("FetchByMetadata", False, self.fetch_by_metadata),
            Method("List", False, self.list),
            Method("DescribeIndexStats", False, self.stats),
            Method("ListNamespaces", False, self.list_namespaces),
            Method("DescribeNamespace", False, self.describe_namespace),
        ]

    async def upsert(self, request: Received) -> Reply:
        done = await self._plane.upsert(
            request.call,
            asked.in_vectors(
                request.message,
                packed.UpsertRequest,
                full.UpsertRequest,
                self._bytes_max,
                asked.upsert_body,
            ),
        )
        return Reply(replies.upserted(done), headers.written(done.lsn))

    async def query(self, request: Received) -> Reply:
        found = await self._plane.query(
            request.call,
            asked.in_vectors(
                request.message,
                packed.QueryRequest,
                full.QueryRequest,
                self._bytes_max,
                asked.query_body,
            ),
            exhaustive=headers.is_set(request.metadata, headers.EXHAUSTIVE),
        )
        message = await _built(len(found.matches), lambda: replies.queried(found, request.shown))
        return Reply(message, headers.seen(found.freshness))

    async def update(self, request: Received) -> Reply:
        done = await self._plane.update(
            request.call,
            asked.in_vectors(
                request.message,
                packed.UpdateRequest,
                full.UpdateRequest,
                self._bytes_max,
                asked.update_body,
            ),
        )
        answer = full.UpdateResponse(matched_records=done.matched)
        told = {} if done.lsn is None else headers.written(done.lsn)
        if done.by_filter:
            told |= headers.decided(done.matched)
        return Reply(answer.SerializeToString(), told)

    async def delete(self, request: Received) -> Reply:
        done = await self._plane.delete(
            request.call,
            asked.in_message(
                request.message, full.DeleteRequest, self._bytes_max, asked.delete_body
            ),
        )
        return _deleted(done.lsn, done.existed)

    async def fetch(self, request: Received) -> Reply:
        message = self._decoded(request, full.FetchRequest)
        found = await self._plane.fetch(request.call, message.namespace, message.ids)
        answer = await _built(len(found.records), lambda: replies.fetched(found, request.shown))
        return Reply(answer, headers.seen(found.freshness))

    async def fetch_by_metadata(self, request: Received) -> Reply:
        found = await self._plane.fetch_by_metadata(
            request.call,
            asked.in_message(
                request.message,
                full.FetchByMetadataRequest,
                self._bytes_max,
                asked.fetch_by_metadata_body,
            ),
        )
        message = await _built(
            len(found.records), lambda: replies.fetched_by_metadata(found, request.shown)
        )
        return Reply(message, headers.seen(found.freshness))

    async def list(self, request: Received) -> Reply:
        message = self._decoded(request, full.ListRequest)
        found = await self._plane.list_ids(
            request.call,
            message.namespace,
            message.prefix,
            asked.optional(message, "limit"),
            message.pagination_token,
        )
        return Reply(replies.listed(found, request.shown), headers.seen(found.freshness))

    async def stats(self, request: Received) -> Reply:
        found = await self._plane.stats(
            request.call,
            asked.in_message(
                request.message, full.DescribeIndexStatsRequest, self._bytes_max, asked.stats_body
            ),
        )
        message = replies.stats(request.call, found, request.shown)
        return Reply(message, headers.seen(found.freshness))

    async def create_namespace(self, request: Received) -> Reply:
        done = await self._plane.create_namespace(
            request.call,
            asked.in_message(
                request.message,
                full.CreateNamespaceRequest,
                self._bytes_max,
                asked.create_namespace_body,
            ),
        )
        message = replies.namespace(done.namespace, request.shown)
        return Reply(message, headers.written(done.lsn) | headers.decided(done.existed))

    async def list_namespaces(self, request: Received) -> Reply:
        message = self._decoded(request, full.ListNamespacesRequest)
        found = await self._plane.list_namespaces(
            request.call,
            message.prefix,
            asked.optional(message, "limit"),
            message.pagination_token,
        )
        return Reply(replies.namespaces(found, request.shown), headers.seen(found.freshness))

    async def describe_namespace(self, request: Received) -> Reply:
        message = self._decoded(request, full.DescribeNamespaceRequest)
        found = await self._plane.describe_namespace(request.call, message.namespace)
        answer = replies.namespace(found.namespace, request.shown)
        return Reply(answer, headers.seen(found.freshness))

    async def delete_namespace(self, request: Received) -> Reply:
        message = self._decoded(request, full.DeleteNamespaceRequest)
        done = await self._plane.delete_namespace(request.call, message.namespace)
        return _deleted(done.lsn, done.existed)

    def _decoded(self, request: Received, kind: type[asked.M]) -> asked.M:
        """Messages that are decoded in a moment, as they hold some names and ids."""
        return asked.decoded(request.message, kind, self._bytes_max)


async def _built(records: int, build: Callable[[], bytes]) -> bytes:
    """What `build` makes; of many records in a thread, so that others get their turns between."""
    return build() if records <= INLINE_RECORDS_MAX else await asyncio.to_thread(build)


def _deleted(lsn: int, existed: bool | None) -> Reply:
    message: Message = full.DeleteResponse()
    return Reply(message.SerializeToString(), headers.written(lsn) | headers.decided(existed))
