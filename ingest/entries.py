"""The entries of the log as typed structs: one schema for msgpack and JSON, told apart by `op`.

The fields are those of the HTTP bodies (`ingest.bodies`), plus `op`.
"""

from typing import Annotated, TypeAlias

import msgspec

from core.filters.encode import to_json
from core.limits import REQUEST_ID_CHARS_MAX
from core.log import NO_LSN
from core.operations import (
    Attach,
    CreateNamespace,
    DeleteAll,
    DeleteByFilter,
    DeleteIds,
    DeleteNamespace,
    Operation,
    UpdateByFilter,
    UpdateById,
    Upsert,
)
from core.records import Record, SparseValues, Vector
from ingest.bodies import (
    DeclaredField,
    DeleteBody,
    NamespaceSchemaBody,
    SparseBody,
    Update,
    UpsertBody,
    VectorBody,
)

VERSION = 1

# An offset of the log; -1: before all of them.
Lsn = Annotated[int, msgspec.Meta(ge=NO_LSN, le=(1 << 63) - 1)]
RequestId = Annotated[str, msgspec.Meta(max_length=REQUEST_ID_CHARS_MAX)]


# Every entry has an optional `requestId` and, because it may stand alone, may say where it belongs;
# the key decides. msgspec structs have one base only, so these fields stand in each of them.


class UpsertEntry(
    UpsertBody, kw_only=True, tag_field="op", tag="upsert", forbid_unknown_fields=True
):
    """Writes whole records; what was there under their ids is replaced."""

    request_id: RequestId = ""
    v: int = VERSION
    index: str | None = None


class UpdateEntry(Update, kw_only=True, tag_field="op", tag="update", forbid_unknown_fields=True):
    """Changes one record by `id`, or the metadata of all that match `filter`."""

    request_id: RequestId = ""
    v: int = VERSION
    index: str | None = None


class DeleteEntry(
    DeleteBody, kw_only=True, tag_field="op", tag="delete", forbid_unknown_fields=True
):
    """Deletes by `ids`, by `filter`, or everything in the namespace."""

    request_id: RequestId = ""
    v: int = VERSION
    index: str | None = None


class _NamespaceEntry(
    msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True, tag_field="op"
):
    namespace: str | None = None
    request_id: RequestId = ""
    v: int = VERSION
    index: str | None = None


class CreateNamespaceEntry(_NamespaceEntry, tag="create_namespace", forbid_unknown_fields=True):
    """Makes an empty namespace; nothing happens if it exists. `schema` is kept and shown."""

    schema: NamespaceSchemaBody | None = None


class DeleteNamespaceEntry(_NamespaceEntry, tag="delete_namespace", forbid_unknown_fields=True):
    """Removes the namespace and everything in it."""


class AttachEntry(_NamespaceEntry, tag="attach", forbid_unknown_fields=True):
    """Begins an empty namespace with the records of a snapshot object that was made for it."""

    source_index: str
    source_namespace: str
    snapshot: str
    checksum: str
    last_begun: Lsn | None = None


EntryBody: TypeAlias = (
    UpsertEntry
    | UpdateEntry
    | DeleteEntry
    | CreateNamespaceEntry
    | DeleteNamespaceEntry
    | AttachEntry
)


class Envelope(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Several entries of one namespace; each is atomic, in this order."""

    v: int
    index: str
    namespace: str
    entries: list[EntryBody]


def entry_body(operation: Operation, request_id: str) -> EntryBody:
    """The operation as it stands in the log, vectors as bytes."""
    match operation:
        case Upsert(records=records):
            vectors = [_vector(record) for record in records]
            return UpsertEntry(vectors=vectors, request_id=request_id)
        case UpdateById():
            return UpdateEntry(
                id=operation.id,
                values=_dense(operation.values),
                sparse_values=_sparse(operation.sparse),
                set_metadata=operation.set_metadata,
                request_id=request_id,
            )
        case UpdateByFilter(filter=condition, set_metadata=changes):
            return UpdateEntry(
                filter=to_json(condition), set_metadata=changes, request_id=request_id
            )
        case DeleteIds(ids=ids):
            return DeleteEntry(ids=list(ids), request_id=request_id)
        case DeleteByFilter(filter=condition):
            return DeleteEntry(filter=to_json(condition), request_id=request_id)
        case DeleteAll():
            return DeleteEntry(delete_all=True, request_id=request_id)
        case CreateNamespace(declared=declared):
            return CreateNamespaceEntry(schema=_schema(declared), request_id=request_id)
        case DeleteNamespace():
            return DeleteNamespaceEntry(request_id=request_id)
        case Attach():
            return AttachEntry(
                source_index=operation.source_index,
                source_namespace=operation.source_namespace,
                snapshot=operation.snapshot_id,
                checksum=operation.checksum,
                last_begun=operation.last_begun,
                request_id=request_id,
            )


def _vector(record: Record) -> VectorBody:
    return VectorBody(
        id=record.id,
        values=_dense(record.values),
        sparse_values=_sparse(record.sparse),
        metadata=record.metadata or None,
    )


def _dense(values: Vector | None) -> bytes | None:
    return None if values is None else values.astype("<f4", copy=False).tobytes()


def _sparse(sparse: SparseValues | None) -> SparseBody | None:
    if sparse is None:
        return None
    return SparseBody(
        indices=sparse.indices.astype("<u4", copy=False).tobytes(),
        values=sparse.values.astype("<f4", copy=False).tobytes(),
    )


def _schema(declared: tuple[str, ...] | None) -> NamespaceSchemaBody | None:
    if declared is None:
        return None
    return NamespaceSchemaBody({name: DeclaredField(filterable=True) for name in declared})
