"""What goes into the log comes out of it again; what others put there is admitted or rejected with
a reason.
"""

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidRequest, Unavailable
from core.filters.parse import parse_filter
from core.indexes import IndexInfo
from core.limits import LOG_RECORD_BYTES_MAX
from core.log import Headers, LogRecord
from core.operations import (
    Attach,
    CreateNamespace,
    DeleteAll,
    DeleteByFilter,
    DeleteIds,
    DeleteNamespace,
    Entry,
    Operation,
    UpdateByFilter,
    UpdateById,
    Upsert,
)
from core.partition import partition_of
from core.records import Record, SparseValues
from ingest import validate
from ingest.admit import Admitted, Rejected, Skipped, Verdict, admit
from ingest.bodies import VectorBody
from ingest.rejection import WHOLE_RECORD, Reason
from ingest.wire import encode
from tests.core.filter_strategies import metadata, wire_filters
from tests.ingest.indexes import DENSE, HYBRID, SPARSE, Directory

PARTITIONS = 8
JSON_HEADERS: Headers = (("content-type", b"application/json"),)
GOOD = {"op": "upsert", "vectors": [{"id": "a", "values": [1, 2, 3]}]}


def logged(
    value: object,
    key: bytes | None = b"dense/n",
    headers: Headers = JSON_HEADERS,
    partition: int | None = None,
) -> LogRecord:
    """A record as a direct producer may have put it; what is not bytes becomes JSON."""
    data = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
    if partition is None:
        partition = partition_of(key or b"", PARTITIONS)
    return LogRecord(partition, 17, key, headers, data, 1234)


def attach(**changed: str) -> dict[str, str]:
    whole = {"sourceIndex": "deleted", "sourceNamespace": "n", "snapshot": "a" * 32}
    return {"op": "attach", **whole, "checksum": "b" * 32, **changed}


async def judge(record: LogRecord) -> Verdict:
    return await admit(record, Directory(), PARTITIONS)


async def admitted(record: LogRecord) -> tuple[Entry, ...]:
    verdict = await judge(record)
    assert isinstance(verdict, Admitted), verdict
    assert verdict.rejected == ()
    return verdict.write.entries


async def through_the_log(info: IndexInfo, *operations: Operation) -> list[Operation]:
    entries = [Entry(operation, f"request-{i}") for i, operation in enumerate(operations)]
    encoded = encode(info.index_id, "n", entries)
    back = await admitted(logged(encoded.value, encoded.key, encoded.headers))
    assert [e.request_id for e in back] == [e.request_id for e in entries]
    return [e.operation for e in back]


def same_vector(left: Any, right: Any) -> bool:
    return left is right is None or bool(left.tobytes() == right.tobytes())


def same_record(left: Record, right: Record) -> bool:
    sparse = left.sparse is right.sparse is None or (
        left.sparse is not None
        and right.sparse is not None
        and same_vector(left.sparse.indices, right.sparse.indices)
        and same_vector(left.sparse.values, right.sparse.values)
    )
    same = (left.id, left.metadata) == (right.id, right.metadata)
    return same and sparse and same_vector(left.values, right.values)


SPARSE_VALUES = SparseValues(
    np.array([3, 2**32 - 1], dtype=np.uint32), np.array([0.5, -1e-20], dtype=np.float32)
)


async def test_records_survive_to_the_last_bit() -> None:
    values = np.array([0.1, -3.4028235e38, 1e-45], dtype=np.float32)
    dense = Record("a", values, None, {"n": 0.1, "ok": False, "s": "日本", "l": ["x"], "e": []})
    hybrid = Record("b", values, SPARSE_VALUES, {})
    (back,) = await through_the_log(HYBRID, Upsert((dense, hybrid)))
    assert isinstance(back, Upsert)
    assert same_record(back.records[0], dense)
    assert same_record(back.records[1], hybrid)
    (back,) = await through_the_log(SPARSE, Upsert((Record("c", None, SPARSE_VALUES, {}),)))
    assert isinstance(back, Upsert)
    assert same_record(back.records[0], Record("c", None, SPARSE_VALUES, {}))


async def test_every_other_operation_survives() -> None:
    condition = parse_filter({"$or": [{"a": {"$in": ["x", 1, True]}}, {"b": {"$not": {"$gt": 3}}}]})
    operations: list[Operation] = [
        UpdateByFilter(condition, {"seen": True, "n": 1.0}),
        DeleteIds(("a", "b")),
        DeleteByFilter(condition),
        DeleteAll(),
        CreateNamespace(),
        CreateNamespace(()),
        CreateNamespace(("genre", "year")),
        DeleteNamespace(),
        Attach("dense", "other", "0" * 32, "f" * 32),
    ]
    assert await through_the_log(DENSE, *operations) == operations


async def test_a_branch_outlives_the_index_that_it_comes_from() -> None:
    """A replay must admit what was admitted before that index was deleted."""
    (entry,) = await admitted(logged(attach()))
    assert entry.operation == Attach("deleted", "n", "a" * 32, "b" * 32)


async def test_updates_by_id_survive() -> None:
    values = np.array([1, 2, 3], dtype=np.float32)
    first, second = await through_the_log(
        HYBRID,
        UpdateById("a", values, SPARSE_VALUES, {"x": 1.0}),
        UpdateById("a", set_metadata={}),
    )
    assert isinstance(first, UpdateById)
    assert isinstance(second, UpdateById)
    assert same_vector(first.values, values)
    assert first.sparse is not None
    assert same_vector(first.sparse.values, SPARSE_VALUES.values)
    assert first.set_metadata == {"x": 1.0}
    assert (second.values, second.sparse, second.set_metadata) == (None, None, {})


@given(
    st.lists(st.floats(-3e38, 3e38), min_size=3, max_size=3), metadata, wire_filters.filter(bool)
)
async def test_what_the_edge_accepted_is_never_rejected_later(
    values: list[float], meta: dict[str, Any], wire: dict[str, Any]
) -> None:
    """An acknowledged write that the consumers reject would be lost."""
    values[0] = values[0] or 1.0
    if not any(np.array(values, dtype=np.float32)):
        values[0] = 1.0
    operation = validate.upsert([VectorBody(id="a", values=values, metadata=meta)], DENSE)
    deletion = DeleteByFilter(parse_filter(wire))
    back = await through_the_log(DENSE, operation, deletion)
    assert isinstance(back[0], Upsert)
    assert same_record(back[0].records[0], operation.records[0])
    assert back[1] == deletion


async def test_metadata_at_the_size_limit_is_accepted_again() -> None:
    """An integer takes two bytes more as the float64 it becomes: both sides measure that."""
    for filler in range(40 * 1024 - 40, 40 * 1024):
        vector = VectorBody(id="a", values=[1, 2, 3], metadata={"n": 1, "s": "x" * filler})
        try:
            operation = validate.upsert([vector], DENSE)
        except InvalidRequest:
            return
        await through_the_log(DENSE, operation)
    pytest.fail("the limit was never reached")


async def test_a_person_produces_one_json_entry() -> None:
    (entry,) = await admitted(logged(GOOD))
    assert entry.request_id == ""
    assert isinstance(entry.operation, Upsert)
    assert entry.operation.records[0].id == "a"


async def test_a_json_envelope_and_a_msgpack_entry_are_fine_too() -> None:
    envelope = {"v": 1, "index": "dense", "namespace": "n", "entries": [GOOD, {**GOOD}]}
    assert len(await admitted(logged(envelope))) == 2
    packed = msgspec.msgpack.encode(GOOD)
    assert len(await admitted(logged(packed, headers=(("content-type", b"application/msgpack"),))))


async def test_the_write_says_where_it_came_from() -> None:
    record = logged({**GOOD, "index": "dense", "namespace": "n", "v": 1, "requestId": "r"})
    verdict = await judge(record)
    assert isinstance(verdict, Admitted)
    write = verdict.write
    assert (write.partition, write.lsn, write.timestamp_ms) == (record.partition, 17, 1234)
    assert (write.index_id, write.namespace) == ("dense", "n")
    assert write.value_bytes == len(record.value or b"")
    assert write.entries[0].request_id == "r"


async def test_the_format_is_told_by_the_header_or_by_the_first_byte() -> None:
    assert await admitted(logged(GOOD, headers=()))
    assert await admitted(
        logged(GOOD, headers=(("content-type", b"Application/JSON; charset=utf-8"),))
    )


async def test_the_default_namespace_by_its_names() -> None:
    for name in ("", "__default__"):
        assert await admitted(logged({**GOOD, "namespace": name}, b"dense/__default__"))


def deep(levels: int) -> bytes:
    return b'{"op":"delete","filter":' + b'{"$not":' * levels + b'{"a":1}' + b"}" * (levels + 1)


BAD: list[tuple[LogRecord, Reason]] = [
    (logged(None), Reason.NULL_VALUE),
    (logged(b"{" + b" " * LOG_RECORD_BYTES_MAX), Reason.OVERSIZE),
    (logged(GOOD, None), Reason.BAD_KEY),
    (logged(GOOD, b""), Reason.BAD_KEY),
    (logged(GOOD, b"dense"), Reason.BAD_KEY),
    (logged(GOOD, b"dense/"), Reason.BAD_KEY),
    (logged(GOOD, b"/n"), Reason.BAD_KEY),
    (logged(GOOD, b"dense/\xff"), Reason.BAD_KEY),
    (logged(GOOD, b"dense/" + b"n" * 513), Reason.BAD_KEY),
    (
        logged(GOOD, partition=(partition_of(b"dense/n", PARTITIONS) + 1) % 8),
        Reason.WRONG_PARTITION,
    ),
    (logged(GOOD, headers=(("content-type", b"text/plain"),)), Reason.UNKNOWN_FORMAT),
    (logged(msgspec.msgpack.encode(GOOD), headers=()), Reason.UNKNOWN_FORMAT),
    (logged({**GOOD, "v": 2}), Reason.UNKNOWN_VERSION),
    (logged({"v": 2, "something": "else"}), Reason.UNKNOWN_VERSION),
    (logged(b""), Reason.BAD_BODY),
    (logged(b"{"), Reason.BAD_BODY),
    (logged(b"[]"), Reason.BAD_BODY),
    (logged(b"{}"), Reason.BAD_BODY),
    (logged(b"\xff\xff"), Reason.BAD_BODY),
    (logged({"op": "drop"}), Reason.BAD_BODY),
    (logged({**GOOD, "vector": []}), Reason.BAD_BODY),
    (logged({"op": "upsert"}), Reason.BAD_BODY),
    (logged({"op": "update", "id": "a", "setMetadata": {}, "dryRun": True}), Reason.BAD_BODY),
    (logged({**GOOD, "requestId": "x" * 129}), Reason.BAD_BODY),
    (logged({"v": 1, "index": "dense", "namespace": "n", "entries": []}), Reason.BAD_BODY),
    (logged({"v": 1, "entries": [GOOD]}), Reason.BAD_BODY),
    (logged(deep(100_000)), Reason.BAD_BODY),
    (logged({**GOOD, "index": "other"}), Reason.KEY_MISMATCH),
    (logged({**GOOD, "namespace": "m"}), Reason.KEY_MISMATCH),
    (logged({**GOOD, "namespace": ""}), Reason.KEY_MISMATCH),
    (logged(GOOD, b"nowhere/n"), Reason.UNKNOWN_INDEX),
    (logged({"op": "upsert", "vectors": [{"id": "a", "values": [1]}]}), Reason.WRONG_DIMENSION),
    (logged({"op": "upsert", "vectors": [{"id": "a"}]}), Reason.WRONG_DIMENSION),
    (logged({"op": "upsert", "vectors": [{"id": "", "values": [1, 2, 3]}]}), Reason.INVALID_RECORD),
    (logged({"op": "upsert", "vectors": []}), Reason.INVALID_RECORD),
    (logged({"op": "delete", "filter": {"a": {"$bad": 1}}}), Reason.INVALID_RECORD),
    (logged(deep(100)), Reason.INVALID_RECORD),
    (logged({"op": "create_namespace"}, b"dense/__default__"), Reason.INVALID_RECORD),
    (logged(attach(sourceIndex="nowhere")), Reason.INVALID_RECORD),
    (logged(attach(sourceIndex="dense/n")), Reason.INVALID_RECORD),
    (logged(attach(sourceIndex="hybrid")), Reason.INVALID_RECORD),
    (logged(attach(sourceIndex="dense"), b"sparse/n"), Reason.INVALID_RECORD),
    (logged(attach(snapshot="../manifest")), Reason.INVALID_RECORD),
    (logged(attach(checksum="")), Reason.INVALID_RECORD),
    (logged(attach(sourceNamespace="n" * 513)), Reason.INVALID_RECORD),
    (logged({"op": "attach", "snapshot": "a" * 32}), Reason.BAD_BODY),
]


@pytest.mark.parametrize(
    ("record", "reason"), BAD, ids=[f"{i}-{reason}" for i, (_, reason) in enumerate(BAD)]
)
async def test_bad_records_are_rejected_with_a_reason(record: LogRecord, reason: Reason) -> None:
    verdict = await judge(record)
    assert isinstance(verdict, Rejected)
    (rejection,) = verdict.rejections
    assert rejection.reason is reason
    assert rejection.record is record
    assert 10 < len(rejection.text) < 500


async def test_a_bad_entry_leaves_the_others_of_its_record_alone() -> None:
    wrong = {"op": "upsert", "vectors": [{"id": "good", "values": [1, 2, 3]}, {"id": "bad"}]}
    entries = [
        GOOD,
        wrong,
        {"op": "huh"},
        {**GOOD, "namespace": "m"},
        {"op": "delete", "ids": ["a"]},
    ]
    envelope = {"v": 1, "index": "dense", "namespace": "n", "entries": entries}
    verdict = await judge(logged(envelope))
    assert isinstance(verdict, Admitted)
    assert [type(e.operation) for e in verdict.write.entries] == [Upsert, DeleteIds]
    assert [(r.position, r.reason) for r in verdict.rejected] == [
        (1, Reason.WRONG_DIMENSION),
        (2, Reason.BAD_BODY),
        (3, Reason.KEY_MISMATCH),
    ]
    assert json.loads(verdict.rejected[0].value or b"") == wrong, "only the entry itself"


async def test_a_record_whose_entries_are_all_bad_is_rejected() -> None:
    envelope = {"v": 1, "index": "dense", "namespace": "n", "entries": [{"op": "a"}, {"op": "b"}]}
    verdict = await judge(logged(envelope))
    assert isinstance(verdict, Rejected)
    assert [r.position for r in verdict.rejections] == [0, 1]
    whole = await judge(logged(None))
    assert isinstance(whole, Rejected)
    assert whole.rejections[0].position == WHOLE_RECORD


@pytest.mark.parametrize("key", [b"deleted/n", b"terminating/n"])
async def test_entries_of_deleted_indexes_are_skipped_without_a_dead_letter(key: bytes) -> None:
    assert isinstance(await judge(logged(GOOD, key)), Skipped)
    assert isinstance(await judge(logged({"op": "nonsense"}, key)), Skipped)


async def test_while_the_catalog_is_away_nothing_is_decided() -> None:
    """A rejection would lose acknowledged writes of an index that is not in the cache."""
    directory = Directory()
    directory.away = True
    with pytest.raises(Unavailable):
        await admit(logged(GOOD), directory, PARTITIONS)


@given(st.binary(max_size=200), st.sampled_from([b"application/json", b"application/msgpack"]))
async def test_no_bytes_whatever_stop_the_partition(value: bytes, content_type: bytes) -> None:
    await judge(logged(value, headers=(("content-type", content_type),)))


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "values", "$and", "$in"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(_anything, st.sampled_from(["upsert", "update", "delete", "create_namespace", "attach"]))
async def test_no_values_whatever_stop_the_partition(value: object, op: str) -> None:
    vector = {"id": "a", "values": [1, 2, 3], "metadata": value}
    for body in (
        {"vectors": value},
        {"vectors": [vector]},
        {"ids": value},
        {"filter": value, "setMetadata": {}},
        {"id": "a", "setMetadata": value, "values": value, "sparseValues": value},
        {**attach(), "snapshot": value, "sourceIndex": value},
    ):
        await judge(logged({**body, "op": op}))
