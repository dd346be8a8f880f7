"""The edge of the data plane: what a body may say, and what the refusals tell the caller to fix."""

import base64
import json
import struct
from typing import Any

import numpy as np
import pytest

from core.errors import InvalidRequest, TooLarge
from core.filters.parse import parse_filter
from core.indexes import IndexInfo
from core.limits import METADATA_BYTES_MAX, SPARSE_NONZERO_MAX, UPSERT_BYTES_MAX
from core.operations import (
    CreateNamespace,
    DeleteAll,
    DeleteByFilter,
    DeleteIds,
    UpdateByFilter,
    UpdateById,
    Upsert,
)
from ingest import validate
from ingest.bodies import (
    CreateNamespaceBody,
    DeleteBody,
    QueryBody,
    UpdateBody,
    UpsertBody,
    decode_body,
)
from ingest.search import Search, search
from ingest.vectors import WrongDimension, checked_namespace
from tests.ingest.indexes import DENSE, HYBRID, SPARSE


def upsert(*vectors: object, info: IndexInfo = DENSE) -> Upsert:
    body = decode_body(json.dumps({"vectors": vectors}).encode(), UpsertBody, UPSERT_BYTES_MAX)
    return validate.upsert(body.vectors, info)


def update(info: IndexInfo = DENSE, **body: Any) -> UpdateById | UpdateByFilter:
    return validate.update(decode_body(json.dumps(body).encode(), UpdateBody), info)


def delete(**body: Any) -> DeleteIds | DeleteByFilter | DeleteAll:
    return validate.delete(decode_body(json.dumps(body).encode(), DeleteBody))


def query(info: IndexInfo = DENSE, **body: Any) -> Search:
    return search(decode_body(json.dumps(body).encode(), QueryBody), info)


def vector(values: object = (1, 0.5, -2), **more: object) -> dict[str, Any]:
    return {"id": "a", "values": values, **more}


def test_an_upsert_becomes_records_with_float32_values_and_float64_metadata() -> None:
    metadata = {"n": 1, "big": 2**53 + 1, "ok": True, "s": "ü", "tags": ["x", "y"], "none": []}
    operation = upsert(vector(metadata=metadata), {"id": "b", "values": [0.1, 0, 0]})
    first, second = operation.records
    assert first.values is not None
    assert first.values.dtype == np.float32
    assert first.values.tolist() == [1.0, 0.5, -2.0]
    assert first.metadata == {**metadata, "n": 1.0, "big": float(2**53)}
    assert isinstance(first.metadata["n"], float)
    assert first.metadata["ok"] is True
    assert second.values is not None
    assert second.values[0] == np.float32(0.1)
    assert second.metadata == {}
    assert first.values.flags.c_contiguous


def test_values_may_be_base64_of_float32() -> None:
    packed = base64.b64encode(struct.pack("<3f", 1, 2, 3)).decode()
    (record,) = upsert(vector(packed)).records
    assert record.values is not None
    assert record.values.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (vector([1, 2]), ["Vector dimension 2 does not match the dimension of the index 3"]),
        (vector([]), ["dimension 0", "dimension of the index 3"]),
        ({"id": "a"}, ["dimension 0"]),
        (vector([0, 0.0, -0.0]), ["at least one non-zero value", "'a'"]),
        (vector([1e-50, 0, 0]), ["at least one non-zero value"]),
        (vector([1e39, 0, 0]), ["32-bit", "'a'"]),
        (vector(base64.b64encode(struct.pack("<3f", 1, float("nan"), 1)).decode()), ["NaN", "'a'"]),
        (vector("AAAA"), ["4 bytes each"]),
        (vector("?"), ["base64", "vectors[0].values"]),
        (vector([1, None, 2]), ["vectors[0].values[1]", "null"]),
        (vector([1, "2", 3]), ["vectors[0].values[1]"]),
        (vector([1, True, 3]), ["vectors[0].values[1]", "bool"]),
        (vector(id=""), ["between 1 and 512"]),
        (vector(id="x" * 513), ["between 1 and 512", "513"]),
        (vector(id="größe"), ["ASCII", "größe"]),
        (vector(id="a\0b"), ["NUL"]),
        (vector(id=7), ["vectors[0].id"]),
        (vector(metadata={"x": None}), ["null", "'x'", "'a'", "string, number, boolean or list"]),
        (vector(metadata={"x": {"y": 1}}), ["an object", "'x'"]),
        (vector(metadata={"x": [1, 2]}), ["list", "'x'"]),
        (vector(metadata={"x": 10**400}), ["'x'"]),
        (vector(metadata={"$x": 1}), ["start with $", "$x"]),
        (vector(metadata={"": 1}), ["non-empty"]),
        (vector(metadata=[1]), ["vectors[0].metadata"]),
        (vector(metadata={"x": "y" * METADATA_BYTES_MAX}), ["exceeds the limit", "'a'"]),
        (vector(metdata={"x": "y"}), ["unknown field `metdata`", "vectors[0]"]),
        (vector(sparseValues={"indices": [1], "values": [1]}), ["does not support sparse values"]),
        ("a", ["vectors[0]", "object"]),
    ],
)
def test_a_wrong_record_refuses_the_upsert_and_is_named(wrong: object, named: list[str]) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        upsert(wrong)
    for words in named:
        assert words in str(refusal.value)


def test_one_wrong_record_among_good_ones_refuses_the_whole_upsert() -> None:
    good = {"id": "good", "values": [1, 1, 1]}
    with pytest.raises(InvalidRequest, match="'bad'"):
        upsert(good, {"id": "bad", "values": [0, 0, 0]}, good)
    with pytest.raises(WrongDimension):
        upsert(good, {"id": "bad", "values": [1]}, good)


def test_the_number_of_records_and_of_bytes_is_bounded() -> None:
    with pytest.raises(InvalidRequest, match="between 1 and 1000"):
        upsert()
    many = [{"id": f"{i}", "values": [1, 2, 3]} for i in range(1001)]
    assert len(upsert(*many[:1000]).records) == 1000
    with pytest.raises(InvalidRequest, match="got 1001"):
        upsert(*many)
    with pytest.raises(TooLarge, match="2097152"):
        decode_body(b" " * (UPSERT_BYTES_MAX + 1), UpsertBody, UPSERT_BYTES_MAX)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[1]",
        b'{"vectors": 1}',
        b"{}",
        b'{"vectors": [{"id": "\xff"}]}',
        b'{"vectors":' + b"[" * 100_000,
    ],
)
def test_a_broken_body_is_an_invalid_request(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode_body(body, UpsertBody)


def test_a_hybrid_index_takes_sparse_values_beside_dense_ones() -> None:
    sparse = {"indices": [7, 2, 4294967295], "values": [0.7, 0.2, 1]}
    (record,) = upsert(vector(sparseValues=sparse), info=HYBRID).records
    assert record.sparse is not None
    assert record.sparse.indices.dtype == np.uint32
    assert record.sparse.indices.tolist() == [2, 7, 4294967295], "sorted for the scores"
    assert record.sparse.values.tolist() == [np.float32(0.2), np.float32(0.7), 1.0]


def test_a_sparse_index_takes_sparse_values_only() -> None:
    sparse = {"indices": [1], "values": [2]}
    (record,) = upsert({"id": "a", "values": [], "sparseValues": sparse}, info=SPARSE).records
    assert record.values is None
    with pytest.raises(InvalidRequest, match="need sparse values"):
        upsert({"id": "a"}, info=SPARSE)
    with pytest.raises(InvalidRequest, match="do not take dense values"):
        upsert(vector(sparseValues=sparse), info=SPARSE)


@pytest.mark.parametrize(
    ("indices", "values", "named"),
    [
        ([], [], "at least one"),
        ([1, 2], [1], "as many"),
        ([1, 1], [1, 2], "unique"),
        ([-1], [1], "indices[0]"),
        ([4294967296], [1], "indices[0]"),
        ([1.5], [1], "indices[0]"),
        ([1], [1e39], "32-bit"),
        (list(range(SPARSE_NONZERO_MAX + 1)), [1] * (SPARSE_NONZERO_MAX + 1), "at most 2048"),
    ],
)
def test_wrong_sparse_values_are_refused(
    indices: list[float], values: list[float], named: str
) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        upsert({"id": "a", "sparseValues": {"indices": indices, "values": values}}, info=SPARSE)
    assert named in str(refusal.value)


def test_an_update_by_id() -> None:
    operation = update(id="a", values=[1, 2, 3], setMetadata={"x": 1}, namespace="n", dryRun=True)
    assert isinstance(operation, UpdateById)
    assert operation.values is not None
    assert operation.values.tolist() == [1.0, 2.0, 3.0]
    assert operation.set_metadata == {"x": 1.0}
    unchanged = update(id="a", values=[], setMetadata={})
    assert isinstance(unchanged, UpdateById)
    assert unchanged.values is None
    assert unchanged.set_metadata == {}


def test_an_update_by_filter() -> None:
    operation = update(filter={"genre": "x"}, setMetadata={"seen": True})
    assert operation == UpdateByFilter(parse_filter({"genre": "x"}), {"seen": True})


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "by id"),
        ({"setMetadata": {"x": 1}}, "by id"),
        ({"id": "a"}, "setMetadata"),
        ({"id": "", "setMetadata": {}}, "between 1 and 512"),
        ({"id": "a", "values": [1]}, "dimension"),
        ({"id": "a", "values": [0, 0, 0]}, "non-zero"),
        ({"id": "a", "setMetadata": {"x": None}}, "null"),
        ({"id": "a", "filter": {"x": 1}, "setMetadata": {"x": 1}}, "not by both"),
        ({"filter": {}, "setMetadata": {"x": 1}}, "empty metadata filter"),
        ({"filter": {"x": 1}}, "setMetadata"),
        ({"filter": {"x": 1}, "values": [1, 2, 3]}, "does not support updating vector values"),
        ({"filter": {"x": {"$bad": 1}}, "setMetadata": {"x": 1}}, "$bad"),
        ({"id": "a", "sparseValues": {"indices": [1], "values": [1]}}, "not support sparse"),
    ],
)
def test_wrong_updates_are_refused(body: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        update(**body)
    assert named in str(refusal.value)


def test_deletes() -> None:
    assert delete(ids=["a", "b"]) == DeleteIds(("a", "b"))
    assert delete(deleteAll=True) == DeleteAll()
    assert delete(filter={"x": 1}) == DeleteByFilter(parse_filter({"x": 1}))
    both = delete(ids=["a"], filter={"x": 1}, deleteAll=False)
    assert both == DeleteByFilter(parse_filter({"x": 1})), "a filter wins over ids"


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "ids, filter or deleteAll"),
        ({"ids": []}, "ids, filter or deleteAll"),
        ({"filter": {}}, "empty metadata filter"),
        ({"ids": ["a"], "filter": {}}, "empty metadata filter"),
        ({"deleteAll": True, "ids": ["a"]}, "No explicit IDs"),
        ({"deleteAll": True, "filter": {"x": 1}}, "No filter allowed"),
        ({"ids": ["a"] * 1001}, "1001"),
        ({"ids": ["ä"]}, "ASCII"),
        ({"ids": "a"}, "ids"),
    ],
)
def test_wrong_deletes_are_refused(body: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        delete(**body)
    assert named in str(refusal.value)


def test_the_default_namespace_cannot_be_created() -> None:
    validate.create_namespace("tenant")
    with pytest.raises(InvalidRequest, match="__default__"):
        validate.create_namespace("__default__")


def created(fields: dict[str, Any]) -> CreateNamespace:
    given = json.dumps({"name": "n", "schema": {"fields": fields}}).encode()
    body = decode_body(given, CreateNamespaceBody)
    return validate.create_namespace(body.name, body.schema)


def test_a_schema_of_a_namespace_is_kept() -> None:
    on = {"filterable": True}
    assert created({"year": on, "genre": on}) == CreateNamespace(("year", "genre"))
    assert created({}) == CreateNamespace(())
    assert created({f"f{n}": on for n in range(256)}).declared is not None


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"year": {"filterable": False}}, "Field 'year' is set to filterable: false"),
        ({"year": {}}, "Field 'year' is set to filterable: false"),
        ({"year": {"filterable": True, "type": "float"}}, "type"),
        ({"year": True}, "expected `object`"),
        ({"": {"filterable": True}}, "non-empty"),
        ({"$year": {"filterable": True}}, "not start with $"),
        ({f"f{n}": {"filterable": True} for n in range(257)}, "at most 256 fields"),
        ({f"{n}{'x' * 1000}": {"filterable": True} for n in range(17)}, "16384 bytes"),
    ],
)
def test_a_wrong_schema_of_a_namespace_is_refused(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        created(fields)
    assert named in str(refusal.value)


def test_namespaces() -> None:
    assert checked_namespace(None) == checked_namespace("") == "__default__"
    assert checked_namespace("../a b/c") == "../a b/c"
    for wrong in ("x" * 513, "ns-ä", "a\0"):
        with pytest.raises(InvalidRequest, match="namespace"):
            checked_namespace(wrong)


def test_a_query_by_vector() -> None:
    asked = query(topK=10_000, vector=[1, 2, 3], filter={"x": 1}, includeMetadata=True)
    assert asked.vector is not None
    assert asked.vector.tolist() == [1.0, 2.0, 3.0]
    assert asked.filter == parse_filter({"x": 1})
    assert (asked.namespace, asked.id, asked.sparse) == ("__default__", None, None)
    assert (asked.include_metadata, asked.include_values) == (True, False)
    assert asked.scan_share == 1.0
    assert query(topK=1, vector=[1, 2, 3], scanFactor=1, maxCandidates=10).scan_share == 0.25


def test_a_whole_number_may_come_as_a_float() -> None:
    """JSON does not tell them apart, and encoders of other languages write 5.0."""
    assert query(topK=5.0, vector=[1, 2, 3], maxCandidates=1e2).top_k == 5
    with pytest.raises(InvalidRequest, match="indices"):
        query(SPARSE, topK=1, sparseVector={"indices": [3.0], "values": [1]})
    for wrong in (5.5, 1e300, -1.0):
        with pytest.raises(InvalidRequest, match="topK"):
            query(topK=wrong, vector=[1, 2, 3])


def test_other_queries() -> None:
    by_id = query(topK=1, id="a", vector=[], namespace="n", filter={}, scanFactor=2)
    assert (by_id.id, by_id.vector, by_id.filter, by_id.namespace) == ("a", None, None, "n")
    sparse = {"indices": [3], "values": [1]}
    assert query(SPARSE, topK=1, sparseVector=sparse).vector is None
    hybrid = query(HYBRID, topK=1, vector=[0, 0, 0], sparseVector=sparse)
    assert hybrid.vector is not None, "zeros switch the dense part off"
    assert hybrid.sparse is not None


@pytest.mark.parametrize(
    ("info", "body", "named"),
    [
        (DENSE, {"vector": [1, 2, 3]}, "topK"),
        (DENSE, {"topK": 0, "vector": [1, 2, 3]}, "between 1 and 10000"),
        (DENSE, {"topK": 10001, "vector": [1, 2, 3]}, "between 1 and 10000"),
        (DENSE, {"topK": True, "vector": [1, 2, 3]}, "topK"),
        (DENSE, {"topK": 1}, "vector or id"),
        (DENSE, {"topK": 1, "id": "a", "vector": [1, 2, 3]}, "both 'ID' and 'vector'"),
        (DENSE, {"topK": 1, "id": "a", "scanFactor": 0.4}, "between 0.5 and 4.0"),
        (DENSE, {"topK": 1, "id": "a", "scanFactor": 4.1}, "between 0.5 and 4.0"),
        (DENSE, {"topK": 9, "id": "a", "maxCandidates": 8}, "between topK and 100000"),
        (DENSE, {"topK": 9, "id": "a", "maxCandidates": 100_001}, "between topK and 100000"),
        (SPARSE, {"topK": 1, "id": "a", "scanFactor": 1}, "dense indexes only"),
        (DENSE, {"topK": 1, "vector": [1, 2]}, "dimension"),
        (DENSE, {"topK": 1, "vector": [1e39, 1, 2]}, "32-bit"),
        (DENSE, {"topK": 1, "id": "a", "filter": {"x": {"$gt": "a"}}}, "$gt"),
        (DENSE, {"topK": 1, "id": ""}, "between 1 and 512"),
        (HYBRID, {"topK": 1, "sparseVector": {"indices": [1], "values": [1]}}, "vector or id"),
        (
            HYBRID,
            {"topK": 1, "id": "a", "sparseVector": {"indices": [1], "values": [1]}},
            "both 'ID' and 'sparse_vector'",
        ),
        (
            DENSE,
            {"topK": 1, "vector": [1, 2, 3], "sparseVector": {"indices": [1], "values": [1]}},
            "does not support sparse",
        ),
        (SPARSE, {"topK": 1, "vector": [1, 2, 3]}, "sparseVector"),
        (SPARSE, {"topK": 1}, "sparseVector"),
    ],
)
def test_wrong_queries_are_refused(info: IndexInfo, body: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        query(info, **body)
    assert named in str(refusal.value)
