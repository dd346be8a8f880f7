"""From gRPC messages to the bodies that REST has, without a Python object for each number.

Everything here raises `InvalidRequest` with the texts that REST has, where REST has one.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message
from google.protobuf.struct_pb2 import Struct, Value

from api.grpc.generated import packed_pb2 as packed
from api.grpc.generated import vector_service_pb2 as full
from core.errors import InvalidRequest
from core.limits import DELETE_IDS_MAX
from ingest.bodies import (
    CreateNamespaceBody,
    DeclaredField,
    DeleteBody,
    FetchByMetadataBody,
    NamespaceSchemaBody,
    QueryBody,
    SparseBody,
    StatsBody,
    UpdateBody,
    UpsertBody,
    VectorBody,
    check_size,
)
from ingest.validate import check_count, checked_ids

M = TypeVar("M", bound=Message)
B = TypeVar("B")


def decoded(message: bytes, kind: type[M], bytes_max: int) -> M:
    """`TooLarge` beyond `bytes_max`, `InvalidRequest` for what is no such message."""
    check_size(len(message), bytes_max)
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise InvalidRequest(f"The request is not a valid {kind.__name__} message.") from error


def in_message(
    message: bytes, kind: type[M], bytes_max: int, convert: Callable[[M], B]
) -> Callable[[], B]:
    """How to decode a message, for `api.vectors.bodies.judged`."""
    return lambda: convert(decoded(message, kind, bytes_max))


def in_vectors(
    message: bytes, short: type[M], long: type[Message], bytes_max: int, convert: Callable[[M], B]
) -> Callable[[], B]:
    """The same for messages with vectors: read as `short`, whose floats are bytes.

    Floats that are not packed into one piece, which the format allows and no known client does,
    are not in `short`; then its size is not that of the message, and `long` reads it.
    """

    def decode() -> B:
        quick = decoded(message, short, bytes_max)
        quick.DiscardUnknownFields()
        if quick.ByteSize() == len(message):
            return convert(quick)
        thorough: Any = decoded(message, long, bytes_max)
        return convert(thorough)

    return decode


def upsert_body(message: packed.UpsertRequest) -> UpsertBody:
    check_count(len(message.vectors))  # before a million empty ones become objects
    return UpsertBody(
        vectors=[
            VectorBody(
                id=vector.id,
                values=floats(vector.values),
                sparse_values=_sparse(vector, "sparse_values"),
                metadata=_struct(vector, "metadata"),
            )
            for vector in message.vectors
        ],
        namespace=message.namespace,
    )


def query_body(message: packed.QueryRequest) -> QueryBody:
    if message.queries:
        raise InvalidRequest("`queries` is not supported: give `vector`, `sparse_vector` or `id`.")
    return QueryBody(
        top_k=message.top_k,
        vector=floats(message.vector),
        id=message.id or None,
        sparse_vector=_sparse(message, "sparse_vector"),
        filter=_struct(message, "filter"),
        include_values=message.include_values,
        include_metadata=message.include_metadata,
        namespace=message.namespace,
        scan_factor=optional(message, "scan_factor"),
        max_candidates=optional(message, "max_candidates"),
    )


def fetch_by_metadata_body(message: full.FetchByMetadataRequest) -> FetchByMetadataBody:
    return FetchByMetadataBody(
        filter=_struct(message, "filter"),
        limit=optional(message, "limit"),
        pagination_token=message.pagination_token,
        namespace=message.namespace,
    )


def update_body(message: packed.UpdateRequest) -> UpdateBody:
    return UpdateBody(
        id=message.id or None,
        filter=_struct(message, "filter"),
        values=floats(message.values),
        sparse_values=_sparse(message, "sparse_values"),
        set_metadata=_struct(message, "set_metadata"),
        namespace=message.namespace,
        dry_run=message.dry_run,
    )


def delete_body(message: full.DeleteRequest) -> DeleteBody:
    if message.ids and not (message.delete_all or message.HasField("filter")):
        checked_ids(message.ids, DELETE_IDS_MAX)
    return DeleteBody(
        ids=list(message.ids) or None,
        delete_all=message.delete_all,
        filter=_struct(message, "filter"),
        namespace=message.namespace,
    )


def stats_body(message: full.DescribeIndexStatsRequest) -> StatsBody:
    return StatsBody(filter=_struct(message, "filter"))


def create_namespace_body(message: full.CreateNamespaceRequest) -> CreateNamespaceBody:
    schema = optional(message, "schema")
    if schema is None:
        return CreateNamespaceBody(name=message.name)
    fields = {name: DeclaredField(given.filterable) for name, given in schema.fields.items()}
    return CreateNamespaceBody(name=message.name, schema=NamespaceSchemaBody(fields))


def optional(message: Message, field: str) -> Any:
    """The field's value, None where it is not set."""
    return getattr(message, field) if message.HasField(field) else None


def floats(values: Any) -> bytes:
    """Little-endian float32, from a field of either form."""
    if isinstance(values, bytes):
        return values
    return np.fromiter(values, "<f4", len(values)).tobytes()


def _sparse(message: Message, field: str) -> SparseBody | None:
    sparse = optional(message, field)
    if sparse is None:
        return None
    indices = np.fromiter(sparse.indices, "<u4", len(sparse.indices)).tobytes()
    return SparseBody(indices=indices, values=floats(sparse.values))


def _struct(message: Message, field: str) -> dict[str, Any] | None:
    struct: Struct | None = optional(message, field)
    return None if struct is None else _object(struct.fields)


def _object(fields: Mapping[str, Value]) -> dict[str, Any]:
    return {name: _value(value) for name, value in fields.items()}


def _value(value: Value) -> Any:
    """As JSON has it. protobuf bounds the depth (100 messages in one another)."""
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "number_value":
            return value.number_value
        case "bool_value":
            return value.bool_value
        case "list_value":
            return [_value(element) for element in value.list_value.values]
        case "struct_value":
            return _object(value.struct_value.fields)
        case _:
            return None
