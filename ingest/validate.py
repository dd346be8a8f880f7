"""From request bodies to operations, checked against the index: the one place where a write is
judged.

The HTTP and gRPC edges call it before a write is logged, the consumers of the log (`ingest.admit`)
call it again, for there are producers that write to the topic themselves.
"""

import re
from collections.abc import Sequence
from typing import Any

from core.errors import InvalidRequest
from core.filters.parse import parse_filter
from core.indexes import DEFAULT_NAMESPACE, IndexInfo, VectorType, is_staging
from core.limits import (
    DELETE_IDS_MAX,
    SCHEMA_BYTES_MAX,
    SCHEMA_FIELDS_MAX,
    UPSERT_RECORDS_MAX,
)
from core.metric import Metric
from core.operations import (
    Attach,
    CreateNamespace,
    DeleteAll,
    DeleteByFilter,
    DeleteIds,
    UpdateByFilter,
    UpdateById,
    Upsert,
)
from core.records import Record, SparseValues, Vector
from core.turns import step_aside_in_thread
from ingest.bodies import DeleteBody, NamespaceSchemaBody, SparseBody, Update, VectorBody
from ingest.vectors import (
    checked_fields,
    checked_id,
    checked_metadata,
    checked_namespace,
    dense_vectors,
    shown,
    sparse_values,
)

# Half a millisecond's work, with little metadata.
RECORDS_AT_ONCE = 64

_HEX32 = re.compile(r"[0-9a-f]{32}")


def upsert(vectors: Sequence[VectorBody], info: IndexInfo) -> Upsert:
    """`InvalidRequest` if any one of the records is wrong: an upsert is atomic."""
    check_count(len(vectors))
    ids = [checked_id(vector.id) for vector in vectors]
    dense: Sequence[Vector | None]
    if info.dimension is not None:
        dense = dense_vectors(ids, [vector.values for vector in vectors], info.dimension)
    elif any(vector.values for vector in vectors):
        raise _dense_refused()
    else:
        dense = [None] * len(vectors)  # clients send `values: []` with a sparse record
    records: list[Record] = []
    for number, (record_id, values, vector) in enumerate(zip(ids, dense, vectors, strict=True)):
        if number % RECORDS_AT_ONCE == 0:
            step_aside_in_thread()
        sparse = _sparse(vector.sparse_values, f"Vector ID '{record_id}'", info)
        metadata = checked_metadata(vector.metadata, f"vector '{record_id}'")
        records.append(Record(record_id, values, sparse, metadata))
    return Upsert(tuple(records))


def check_count(vectors: int) -> None:
    """`InvalidRequest` for a number of records that no upsert has."""
    if not 1 <= vectors <= UPSERT_RECORDS_MAX:
        raise InvalidRequest(
            f"An upsert must contain between 1 and {UPSERT_RECORDS_MAX} vectors, got {vectors}."
        )


def update(body: Update, info: IndexInfo) -> UpdateById | UpdateByFilter:
    """By id or by filter; both at once, neither, and an update of nothing are refused."""
    if body.filter is not None:
        return _update_by_filter(body)
    if body.id is None:
        raise InvalidRequest("An update must name a record by id, or records by filter.")
    record_id = checked_id(body.id)
    where = f"Vector ID '{record_id}'"
    values = None
    if body.values:
        if info.dimension is None:
            raise _dense_refused()
        values = dense_vectors([record_id], [body.values], info.dimension)[0]
    sparse = None
    if body.sparse_values is not None:
        sparse = checked_sparse(body.sparse_values, where, info)
    if values is None and sparse is None and body.set_metadata is None:
        raise InvalidRequest("An update must give values, sparseValues or setMetadata.")
    metadata = None
    if body.set_metadata is not None:
        metadata = checked_metadata(body.set_metadata, f"vector '{record_id}'")
    return UpdateById(record_id, values, sparse, metadata)


def delete(body: DeleteBody) -> DeleteIds | DeleteByFilter | DeleteAll:
    """As Pinecone: a filter wins over ids; deleteAll stands alone."""
    if body.delete_all:
        if body.ids:
            raise InvalidRequest("No explicit IDs allowed when delete_all=true.")
        if body.filter:
            raise InvalidRequest("No filter allowed when delete_all=true.")
        return DeleteAll()
    if body.filter is not None:
        if not body.filter:
            raise InvalidRequest("Delete with empty metadata filter is not allowed: use deleteAll.")
        return DeleteByFilter(parse_filter(body.filter))
    if not body.ids:
        raise InvalidRequest("A delete must give ids, filter or deleteAll.")
    return DeleteIds(checked_ids(body.ids, DELETE_IDS_MAX))


def create_namespace(namespace: str, schema: NamespaceSchemaBody | None = None) -> CreateNamespace:
    """`namespace` is the canonical name; the default namespace comes with its first write."""
    if namespace == DEFAULT_NAMESPACE:
        raise InvalidRequest(f"The namespace {DEFAULT_NAMESPACE} cannot be created explicitly.")
    checked_namespace(namespace)
    return CreateNamespace(None if schema is None else _declared(schema))


def attach(operation: Attach, source: IndexInfo | None, info: IndexInfo) -> Attach:
    """`source`: of the index that the snapshot is of, living or deleted; None: there never was one.

    What only the store can tell is the builder's to decide.
    """
    if source is None or source.project_id != info.project_id:
        raise InvalidRequest(f"There is no index with the id '{shown(operation.source_index)}'.")
    given = (source.vector_type, source.dimension, source.metric)
    if given != (info.vector_type, info.dimension, info.metric):
        raise InvalidRequest(
            "A snapshot can only be attached in an index of its own vector type, dimension and "
            f"metric: it has {_schema(source)}, this index has {_schema(info)}."
        )
    if not is_staging(operation.source_namespace):
        checked_namespace(operation.source_namespace)
    if not _HEX32.fullmatch(operation.snapshot_id) or not _HEX32.fullmatch(operation.checksum):
        raise InvalidRequest("The snapshot and the checksum of an attach are 32 hex digits each.")
    return operation


def checked_ids(ids: Sequence[str], count_max: int) -> tuple[str, ...]:
    """The ids of a delete or a fetch."""
    if not 1 <= len(ids) <= count_max:
        raise InvalidRequest(f"Between 1 and {count_max} ids are allowed, got {len(ids)}.")
    return tuple([checked_id(record_id) for record_id in ids])


def checked_sparse(body: SparseBody, where: str, info: IndexInfo) -> SparseValues:
    """Sparse values, where the index takes them; `where` names the vector in error texts."""
    if info.vector_type is VectorType.DENSE and info.metric is not Metric.DOTPRODUCT:
        raise InvalidRequest(
            "Index configuration does not support sparse values - only indexes that are sparse "
            "or using dotproduct are supported"
        )
    return sparse_values(body, where)


def _declared(schema: NamespaceSchemaBody) -> tuple[str, ...]:
    names = tuple(schema.fields)
    size = sum(len(name.encode(errors="replace")) for name in names)
    if len(names) > SCHEMA_FIELDS_MAX or size > SCHEMA_BYTES_MAX:
        raise InvalidRequest(
            f"A namespace's schema has at most {SCHEMA_FIELDS_MAX} fields with names of "
            f"{SCHEMA_BYTES_MAX} bytes together, got {len(names)} with {size}."
        )
    checked_fields(names, "the schema")
    for name, field in schema.fields.items():
        if not field.filterable:
            raise InvalidRequest(
                f"Field '{shown(name)}' is set to filterable: false. Only filterable: true is "
                "supported. To avoid indexing the field, omit it from the list of fields."
            )
    return names


def _sparse(body: SparseBody | None, where: str, info: IndexInfo) -> SparseValues | None:
    if body is not None:
        return checked_sparse(body, where, info)
    if info.vector_type is VectorType.SPARSE:
        raise InvalidRequest(f"Sparse indexes need sparse values; {where} has none.")
    return None


def _schema(info: IndexInfo) -> str:
    size = "" if info.dimension is None else f" dimension {info.dimension},"
    return f"{info.vector_type.value},{size} {info.metric.value}"


def _dense_refused() -> InvalidRequest:
    return InvalidRequest("Sparse indexes do not take dense values; leave `values` out.")


def _update_by_filter(body: Update) -> UpdateByFilter:
    condition: dict[str, Any] | None = body.filter
    if body.id is not None:
        raise InvalidRequest("An update names records by id or by filter, not by both.")
    if not condition:
        raise InvalidRequest("Update with empty metadata filter is not allowed.")
    if body.values or body.sparse_values is not None:
        raise InvalidRequest("Update by metadata request does not support updating vector values.")
    if body.set_metadata is None:
        raise InvalidRequest("An update by filter must give setMetadata.")
    changes = checked_metadata(body.set_metadata, "setMetadata")
    return UpdateByFilter(parse_filter(condition), changes)
