"""The freshness protocol as msgpack, for readers in other processes.

Vectors and hashes go as little-endian bytes. Both ends are of one release: they are deployed
together, and a body that does not decode is an error, not a negotiation.
"""

from collections.abc import Callable
from dataclasses import astuple
from typing import Any, TypeVar

import msgspec
import numpy as np

from core.errors import CorruptData
from core.filters.encode import to_json
from core.filters.parse import parse_filter
from core.metric import Metric
from core.operations import DeleteByFilter, UpdateByFilter, UpdateById
from core.records import Metadata, Record, SparseValues, StoredRecord, Vector
from freshness.protocol import (
    FreshAnswer,
    FreshHit,
    FreshRequest,
    FreshStatus,
    FreshUsage,
    Listing,
    NamespacesAnswer,
    NamespacesRequest,
    Outcome,
    OutcomeKey,
    Pending,
    Search,
    Selected,
    Selection,
)

MEDIA_TYPE = "application/msgpack"

# (indices, values)
_Sparse = tuple[bytes, bytes]
# (id, values, sparse, metadata, lsn)
_Stored = tuple[str, bytes | None, _Sparse | None, dict[str, Any], int]
# (lsn, position, kind, id, values, sparse, filter, metadata); kind: "update", "update_all",
# "delete_all"
_Pending = tuple[int, int, str, str, bytes | None, _Sparse | None, Any, dict[str, Any] | None]

T = TypeVar("T")


class _Search(msgspec.Struct, array_like=True):
    k: int
    vector: bytes | None
    sparse: _Sparse | None
    filter: Any
    include_values: bool


class _Selection(msgspec.Struct, array_like=True):
    filter: Any
    after: str
    limit: int
    bytes_max: int


class _Request(msgspec.Struct, array_like=True):
    index_id: str
    namespace: str
    partition: int
    metric: str
    dimension: int | None
    manifest_lsn: int
    want_lsn: int
    deadline_s: float
    search: _Search | None
    ids: tuple[str, ...]
    touched_max: int
    patches_of_all: bool
    listing: tuple[str, str, int] | None
    outcome_of: tuple[int, str] | None
    selection: _Selection | None = None


class _Answer(msgspec.Struct, array_like=True):
    status: FreshStatus
    applied_lsn: int
    floor_lsn: int
    overflowed_from: int | None
    cleared: bool
    exists: bool | None
    live: int
    hits: list[tuple[_Stored, float]]
    touched: bytes | None
    current: dict[str, _Stored | None]
    patches: dict[str, list[_Pending]]
    filter_ops: list[_Pending]
    listed: tuple[str, ...]
    outcome: tuple[int, bool | None] | None
    scanned: int
    attaching: bool = False
    # (count, records, more)
    selected: tuple[int, list[_Stored], bool] = (0, [], False)
    ended: bool = False
    declared: tuple[str, ...] | None = None


_encode = msgspec.msgpack.Encoder().encode
_request = msgspec.msgpack.Decoder(_Request)
_answer = msgspec.msgpack.Decoder(_Answer)
_namespaces_request = msgspec.msgpack.Decoder(NamespacesRequest)
_namespaces_answer = msgspec.msgpack.Decoder(NamespacesAnswer)
_usage = msgspec.msgpack.Decoder(FreshUsage)


def encode_request(request: FreshRequest) -> bytes:
    search, listing, key = request.search, request.listing, request.outcome_of
    return _encode(
        _Request(
            index_id=request.index_id,
            namespace=request.namespace,
            partition=request.partition,
            metric=request.metric.value,
            dimension=request.dimension,
            manifest_lsn=request.manifest_lsn,
            want_lsn=request.want_lsn,
            deadline_s=request.deadline_s,
            search=None if search is None else _search_out(search),
            ids=request.ids,
            touched_max=request.touched_max,
            patches_of_all=request.patches_of_all,
            listing=None if listing is None else (listing.prefix, listing.after, listing.limit),
            outcome_of=None if key is None else (key.lsn, key.request_id),
            selection=None if request.selection is None else _selection_out(request.selection),
        )
    )


def decode_request(data: bytes) -> FreshRequest:
    wire = _decoded(_request.decode, data)
    return FreshRequest(
        index_id=wire.index_id,
        namespace=wire.namespace,
        partition=wire.partition,
        metric=Metric(wire.metric),
        dimension=wire.dimension,
        manifest_lsn=wire.manifest_lsn,
        want_lsn=wire.want_lsn,
        deadline_s=wire.deadline_s,
        search=None if wire.search is None else _search_in(wire.search),
        ids=wire.ids,
        touched_max=wire.touched_max,
        patches_of_all=wire.patches_of_all,
        listing=None if wire.listing is None else Listing(*wire.listing),
        outcome_of=None if wire.outcome_of is None else OutcomeKey(*wire.outcome_of),
        selection=None if wire.selection is None else _selection_in(wire.selection),
    )


def encode_answer(answer: FreshAnswer) -> bytes:
    outcome, touched, selected = answer.outcome, answer.touched, answer.selected
    return _encode(
        _Answer(
            status=answer.status,
            applied_lsn=answer.applied_lsn,
            floor_lsn=answer.floor_lsn,
            overflowed_from=answer.overflowed_from,
            cleared=answer.cleared,
            exists=answer.exists,
            live=answer.live,
            hits=[(_stored_out(hit.stored), hit.score) for hit in answer.hits],
            touched=None if touched is None else touched.astype("<u8").tobytes(),
            current={i: None if s is None else _stored_out(s) for i, s in answer.current.items()},
            patches={i: [_pending_out(p) for p in ps] for i, ps in answer.patches.items()},
            filter_ops=[_pending_out(p) for p in answer.filter_ops],
            listed=answer.listed,
            outcome=None if outcome is None else astuple(outcome),
            scanned=answer.scanned,
            attaching=answer.attaching,
            ended=answer.ended,
            declared=answer.declared,
            selected=(selected.count, [_stored_out(s) for s in selected.records], selected.more),
        )
    )


def decode_answer(data: bytes) -> FreshAnswer:
    wire = _decoded(_answer.decode, data)
    count, records, more = wire.selected
    return FreshAnswer(
        status=wire.status,
        applied_lsn=wire.applied_lsn,
        floor_lsn=wire.floor_lsn,
        overflowed_from=wire.overflowed_from,
        cleared=wire.cleared,
        exists=wire.exists,
        live=wire.live,
        hits=tuple(FreshHit(_stored_in(stored), score) for stored, score in wire.hits),
        touched=None if wire.touched is None else np.frombuffer(wire.touched, dtype="<u8"),
        current={i: None if s is None else _stored_in(s) for i, s in wire.current.items()},
        patches={i: tuple(map(_pending_in, ps)) for i, ps in wire.patches.items()},
        filter_ops=tuple(map(_pending_in, wire.filter_ops)),
        listed=wire.listed,
        outcome=None if wire.outcome is None else Outcome(*wire.outcome),
        scanned=wire.scanned,
        attaching=wire.attaching,
        ended=wire.ended,
        declared=wire.declared,
        selected=Selected(count, tuple(map(_stored_in, records)), more),
    )


def encode_plain(value: NamespacesRequest | NamespacesAnswer | FreshUsage) -> bytes:
    """Those without vectors are msgpack as they are."""
    return _encode(value)


def decode_namespaces_request(data: bytes) -> NamespacesRequest:
    return _decoded(_namespaces_request.decode, data)


def decode_namespaces_answer(data: bytes) -> NamespacesAnswer:
    return _decoded(_namespaces_answer.decode, data)


def decode_usage(data: bytes) -> FreshUsage:
    return _decoded(_usage.decode, data)


def _decoded(decode: Callable[[bytes], T], data: bytes) -> T:
    try:
        return decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise CorruptData(
            f"a message of the freshness protocol does not decode: {error}"
        ) from error


def _search_out(search: Search) -> _Search:
    condition = search.filter
    return _Search(
        k=search.k,
        vector=_vector_out(search.vector),
        sparse=_sparse_out(search.sparse),
        filter=None if condition is None else to_json(condition),
        include_values=search.include_values,
    )


def _selection_out(selection: Selection) -> _Selection:
    return _Selection(
        filter=to_json(selection.filter),
        after=selection.after,
        limit=selection.limit,
        bytes_max=selection.bytes_max,
    )


def _selection_in(wire: _Selection) -> Selection:
    return Selection(parse_filter(wire.filter), wire.after, wire.limit, wire.bytes_max)


def _search_in(wire: _Search) -> Search:
    return Search(
        k=wire.k,
        vector=_vector_in(wire.vector),
        sparse=_sparse_in(wire.sparse),
        filter=None if wire.filter is None else parse_filter(wire.filter),
        include_values=wire.include_values,
    )


def _vector_out(values: Vector | None) -> bytes | None:
    return None if values is None else values.astype("<f4", copy=False).tobytes()


def _vector_in(data: bytes | None) -> Vector | None:
    return None if data is None else np.frombuffer(data, dtype="<f4")


def _sparse_out(sparse: SparseValues | None) -> _Sparse | None:
    if sparse is None:
        return None
    return sparse.indices.astype("<u4").tobytes(), sparse.values.astype("<f4").tobytes()


def _sparse_in(wire: _Sparse | None) -> SparseValues | None:
    if wire is None:
        return None
    return SparseValues(np.frombuffer(wire[0], dtype="<u4"), np.frombuffer(wire[1], dtype="<f4"))


def _stored_out(stored: StoredRecord) -> _Stored:
    record = stored.record
    return (
        record.id,
        _vector_out(record.values),
        _sparse_out(record.sparse),
        record.metadata,
        stored.lsn,
    )


def _stored_in(wire: _Stored) -> StoredRecord:
    record_id, values, sparse, metadata, lsn = wire
    return StoredRecord(Record(record_id, _vector_in(values), _sparse_in(sparse), metadata), lsn)


def _pending_out(pending: Pending) -> _Pending:
    lsn, position = pending.lsn, pending.position
    match pending.operation:
        case UpdateById(id=i, values=values, sparse=sparse, set_metadata=changes):
            return (
                lsn,
                position,
                "update",
                i,
                _vector_out(values),
                _sparse_out(sparse),
                None,
                changes,
            )
        case UpdateByFilter(filter=condition, set_metadata=changes):
            return lsn, position, "update_all", "", None, None, to_json(condition), changes
        case DeleteByFilter(filter=condition):
            return lsn, position, "delete_all", "", None, None, to_json(condition), None


def _pending_in(wire: _Pending) -> Pending:
    lsn, position, kind, record_id, values, sparse, condition, changes = wire
    operation: UpdateById | UpdateByFilter | DeleteByFilter
    if kind == "update":
        operation = UpdateById(record_id, _vector_in(values), _sparse_in(sparse), changes)
    elif kind == "update_all":
        merged: Metadata = changes or {}
        operation = UpdateByFilter(parse_filter(condition), merged)
    else:
        operation = DeleteByFilter(parse_filter(condition))
    return Pending(lsn, position, operation)
