"""From the data plane's results to gRPC messages, bounded in size as REST's answers are.

Vectors go in as the bytes that they are: float32, little-endian.
"""

from collections.abc import Callable, Mapping, MutableMapping

from google.protobuf.struct_pb2 import Struct, Value

from api.grpc.generated import packed_pb2 as packed
from api.grpc.generated import vector_service_pb2 as full
from api.vectors import answers
from api.vectors.plane import Call, Fetched, FetchedPage, Listed, Queried, Upserted
from core.limits import QUERY_RESULT_BYTES_MAX
from core.records import Metadata, Record, SparseValues, Vector
from query.model import Cost, NamespacesResult, NamespaceStats, StatsResult

ShownName = Callable[[str], str]
"""A namespace's name as the client's API version knows it."""


def upserted(done: Upserted) -> bytes:
    return full.UpsertResponse(upserted_count=done.count).SerializeToString()


def queried(found: Queried, shown: ShownName) -> bytes:
    """`InvalidRequest` beyond Pinecone's 4 MB."""
    message = packed.QueryResponse(namespace=shown(found.namespace), usage=_usage(found.cost))
    room = answers.Room(QUERY_RESULT_BYTES_MAX, answers.QUERY_INSTEAD)
    for match in found.matches:
        one = message.matches.add(id=match.id, score=match.score)
        _fill(one, match.values, match.sparse, match.metadata)
        room.take(one.ByteSize())
    return message.SerializeToString()


def fetched(found: Fetched, shown: ShownName) -> bytes:
    """`InvalidRequest` when it gets too big."""
    message = packed.FetchResponse(namespace=shown(found.namespace), usage=_usage(found.cost))
    _fill_records(message.vectors, found.records)
    return message.SerializeToString()


def fetched_by_metadata(found: FetchedPage, shown: ShownName) -> bytes:
    """`InvalidRequest` when it gets too big."""
    message = packed.FetchByMetadataResponse(
        namespace=shown(found.namespace),
        usage=_usage(found.cost),
        pagination=None if found.next_token is None else packed.Pagination(next=found.next_token),
    )
    _fill_records(message.vectors, found.records)
    return message.SerializeToString()


def listed(found: Listed, shown: ShownName) -> bytes:
    message = full.ListResponse(
        vectors=[full.ListItem(id=record_id) for record_id in found.ids],
        namespace=shown(found.namespace),
        usage=full.Usage(read_units=found.cost.read_units),
        pagination=_pagination(found.next_token),
    )
    return message.SerializeToString()


def stats(call: Call, found: StatsResult, shown: ShownName) -> bytes:
    message = full.DescribeIndexStatsResponse(
        dimension=call.index.dimension,
        total_vector_count=found.total,
        metric=call.index.metric.value,
        vector_type=call.index.vector_type.value,
        memory_fullness=0.0,
        storage_fullness=0.0,
    )
    for name, of_one in found.namespaces.items():
        message.namespaces[shown(name)].vector_count = of_one.record_count
    return message.SerializeToString()


def namespace(stats: NamespaceStats, shown: ShownName) -> bytes:
    return _described(stats, shown).SerializeToString()


def namespaces(found: NamespacesResult, shown: ShownName) -> bytes:
    message = full.ListNamespacesResponse(
        namespaces=[_described(one, shown) for one in found.namespaces],
        total_count=found.total,
        pagination=_pagination(found.next_token),
    )
    return message.SerializeToString()


def _described(stats: NamespaceStats, shown: ShownName) -> full.NamespaceDescription:
    described = full.NamespaceDescription(
        name=shown(stats.name), record_count=stats.record_count, size_bytes=stats.size_bytes
    )
    if stats.declared is not None:
        described.schema.SetInParent()
        for name in stats.declared:
            described.schema.fields[name].filterable = True
        described.indexed_fields.fields.extend(stats.declared)
        described.indexed_fields.SetInParent()
    return described


def _pagination(token: str | None) -> full.Pagination | None:
    return None if token is None else full.Pagination(next=token)


def _usage(cost: Cost) -> packed.Usage:
    return packed.Usage(read_units=cost.read_units)


def _fill_records(
    target: MutableMapping[str, packed.Vector], records: Mapping[str, Record]
) -> None:
    room = answers.Room(answers.FETCH_RESULT_BYTES_MAX, answers.FETCH_INSTEAD)
    for record_id, record in records.items():
        one = target[record_id]
        one.id = record_id
        _fill(one, record.values, record.sparse, record.metadata)
        room.take(one.ByteSize())


def _fill(
    message: packed.Vector | packed.ScoredVector,
    values: Vector | None,
    sparse: SparseValues | None,
    metadata: Metadata | None,
) -> None:
    if values is not None:
        message.values = values.astype("<f4", copy=False).tobytes()
    if sparse is not None:
        message.sparse_values.indices.extend(sparse.indices.tolist())
        message.sparse_values.values = sparse.values.astype("<f4", copy=False).tobytes()
    if metadata:
        _fill_struct(message.metadata, metadata)


def _fill_struct(struct: Struct, metadata: Metadata) -> None:
    for name, value in metadata.items():
        _fill_value(struct.fields[name], value)


def _fill_value(target: Value, value: str | float | bool | list[str]) -> None:
    match value:
        case str():
            target.string_value = value
        case bool():
            target.bool_value = value
        case list():
            texts = target.list_value.values
            target.list_value.SetInParent()
            for text in value:
                texts.add(string_value=text)
        case _:
            target.number_value = value
