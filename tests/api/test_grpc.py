"""Pinecone's gRPC methods over a running gateway, and how their errors look."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct

from api.grpc.generated import vector_service_pb2 as pb
from core.errors import CorruptData, Overloaded
from query.model import Consistency
from tests.api.gateway import KEY, OTHER_KEY, READ_ONLY_KEY, Running, running_gateway
from tests.api.grpc_client import RawClient, grpc_client, vectors

METADATA = {"genre": "drama", "year": 1994, "seen": True, "tags": ["a", "b"], "none": []}


@pytest.fixture
async def client(gateway: Running) -> AsyncIterator[RawClient]:
    index = await gateway.create()
    async with grpc_client(index["host"]) as raw:
        yield raw


def struct(value: dict[str, object]) -> Struct:
    return ParseDict(value, Struct())


async def test_records_written_over_grpc_are_read_by_rest_and_back(gateway: Running) -> None:
    index = await gateway.create()
    vector = pb.Vector(id="a", values=[1, 2, 3.5], metadata=struct(METADATA))
    async with grpc_client(index["host"]) as raw:
        done, told = await raw.ask("Upsert", vectors=[vector], namespace="ns")
        assert done.upserted_count == 1
        assert told["x-pinecone-request-lsn"] == told["x-pinecone-lsn-committed"] == "0"
        by_rest = await gateway.ask("GET", "/vectors/fetch?ids=a&namespace=ns", host=index["host"])
        assert by_rest.json()["vectors"]["a"] == {
            "id": "a",
            "values": [1.0, 2.0, 3.5],
            "metadata": {**METADATA, "year": 1994.0},
        }
        body = {"vectors": [{"id": "b", "values": [4, 5, 6], "metadata": METADATA}]}
        await gateway.ask("POST", "/vectors/upsert", host=index["host"], json=body)
        fetched, told = await raw.ask("Fetch", ids=["b", "nobody"], namespace="")
        assert list(fetched.vectors) == ["b"]
        assert fetched.vectors["b"] == pb.Vector(
            id="b", values=[4, 5, 6], metadata=struct(METADATA)
        )
        assert fetched.namespace == "__default__"
        assert fetched.usage.read_units == 1
        assert told["x-pinecone-max-indexed-lsn"] == told["x-pinecone-lsn-reconciled"] == "1"


async def test_queries_by_vector_and_by_id(client: RawClient) -> None:
    records = [
        pb.Vector(id=name, values=values, metadata=struct({"n": n}))
        for n, (name, values) in enumerate([("a", [1, 0, 0]), ("b", [1, 1, 0]), ("c", [0, 0, 1])])
    ]
    await client.ask("Upsert", vectors=records)
    found, told = await client.ask("Query", vector=[1, 0, 0], top_k=2)
    assert [m.id for m in found.matches] == ["a", "b"]
    assert found.matches[0].score == pytest.approx(1.0)
    assert not found.matches[0].values
    assert not found.matches[0].HasField("metadata")
    assert told["x-pinecone-max-indexed-lsn"] == "0"
    found, _ = await client.ask(
        "Query",
        id="a",
        top_k=3,
        filter=struct({"n": {"$gt": 0}, "$or": [{"n": 1}, {"n": {"$in": [2]}}]}),
        include_values=True,
        include_metadata=True,
    )
    assert [m.id for m in found.matches] == ["b", "c"]
    assert list(found.matches[0].values) == [1, 1, 0]
    assert found.matches[0].metadata == struct({"n": 1})


async def test_sparse_values_and_hybrid(gateway: Running) -> None:
    index = await gateway.create(metric="dotproduct")
    sparse = pb.SparseValues(indices=[7, 4_000_000_000], values=[0.5, 2])
    async with grpc_client(index["host"]) as raw:
        vector = pb.Vector(id="a", values=[1, 0, 0], sparse_values=sparse)
        await raw.ask("Upsert", vectors=[vector])
        found, _ = await raw.ask(
            "Query", vector=[1, 0, 0], sparse_vector=sparse, top_k=1, include_values=True
        )
        assert found.matches[0].score == pytest.approx(1 + 0.25 + 4)
        assert found.matches[0].sparse_values == sparse
        changed = pb.SparseValues(indices=[1], values=[1])
        await raw.ask("Update", id="a", sparse_values=changed)
        fetched, _ = await raw.ask("Fetch", ids=["a"])
        assert fetched.vectors["a"].sparse_values == changed


async def test_update_delete_list_and_stats(client: RawClient) -> None:
    await client.ask("Upsert", vectors=vectors(5), namespace="ns")
    _, told = await client.ask(
        "Update", id="v1", values=[9, 9, 9], set_metadata=struct({"x": 1}), namespace="ns"
    )
    assert told["x-pinecone-request-lsn"] == "1"
    fetched, _ = await client.ask("Fetch", ids=["v1"], namespace="ns")
    assert list(fetched.vectors["v1"].values) == [9, 9, 9]
    assert fetched.vectors["v1"].metadata == struct({"x": 1})
    await client.ask("Delete", ids=["v0"], namespace="ns")
    page, _ = await client.ask("List", namespace="ns", prefix="v", limit=3)
    assert [item.id for item in page.vectors] == ["v1", "v2", "v3"]
    token = page.pagination.next
    page, _ = await client.ask("List", namespace="ns", limit=3, pagination_token=token)
    assert [item.id for item in page.vectors] == ["v4"]
    assert not page.HasField("pagination")
    stats, _ = await client.ask("DescribeIndexStats")
    assert {n: s.vector_count for n, s in stats.namespaces.items()} == {"ns": 4}
    assert (stats.dimension, stats.total_vector_count) == (3, 4)
    assert (stats.metric, stats.vector_type) == ("cosine", "dense")
    await client.ask("Delete", delete_all=True, namespace="ns")
    stats, _ = await client.ask("DescribeIndexStats")
    assert stats.total_vector_count == 0


async def test_what_a_filter_matches_is_fetched_updated_and_deleted(client: RawClient) -> None:
    records = [
        pb.Vector(id=f"v{n}", values=[1, n, 0], metadata=struct({"n": n, "even": n % 2 == 0}))
        for n in range(6)
    ]
    await client.ask("Upsert", vectors=records)
    even = struct({"even": True})
    page, told = await client.ask("FetchByMetadata", filter=even, limit=2)
    assert sorted(page.vectors) == ["v0", "v2"]
    assert page.vectors["v2"] == records[2]
    assert page.namespace == "__default__"
    assert told["x-pinecone-max-indexed-lsn"] == "0"
    token = page.pagination.next
    page, _ = await client.ask("FetchByMetadata", filter=even, limit=2, pagination_token=token)
    assert list(page.vectors) == ["v4"]
    assert not page.HasField("pagination")
    changed = struct({"new": "x"})
    done, told = await client.ask("Update", filter=even, set_metadata=changed, dry_run=True)
    assert done.matched_records == 3
    assert "x-pinecone-request-lsn" not in told
    done, told = await client.ask("Update", filter=even, set_metadata=changed)
    assert done.matched_records == 3
    assert told["x-pinecone-request-lsn"] == "1"
    code, text, _ = await client.refused("FetchByMetadata", limit=2)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert text.startswith("Empty filter")


async def test_namespaces(client: RawClient) -> None:
    made, told = await client.ask("CreateNamespace", name="one")
    assert (made.name, made.record_count) == ("one", 0)
    assert told["x-pinecone-request-lsn"] == "0"
    assert not made.HasField("schema")
    code, text, _ = await client.refused("CreateNamespace", name="one")
    assert (code, text) == (grpc.StatusCode.ALREADY_EXISTS, "Namespace one already exists")
    await client.ask("Upsert", vectors=vectors(2), namespace="two")
    page, _ = await client.ask("ListNamespaces", limit=1)
    assert [n.name for n in page.namespaces] == ["one"]
    assert page.total_count == 2
    page, _ = await client.ask("ListNamespaces", pagination_token=page.pagination.next)
    assert [(n.name, n.record_count) for n in page.namespaces] == [("two", 2)]
    described, _ = await client.ask("DescribeNamespace", namespace="two")
    assert described.record_count == 2
    await client.ask("DeleteNamespace", namespace="two")
    code, text, _ = await client.refused("DescribeNamespace", namespace="two")
    assert (code, text) == (grpc.StatusCode.NOT_FOUND, "Namespace not found")


async def test_a_namespace_shows_its_schema(client: RawClient) -> None:
    fields = {"year": {"filterable": True}, "genre": {"filterable": True}}
    schema = ParseDict({"fields": fields}, pb.MetadataSchema())
    made, _ = await client.ask("CreateNamespace", name="one", schema=schema)
    described, _ = await client.ask("DescribeNamespace", namespace="one")
    for shown in (made, described):
        assert shown.schema == schema
        assert sorted(shown.indexed_fields.fields) == ["genre", "year"]
    plain, _ = await client.ask("CreateNamespace", name="two")
    assert not plain.HasField("schema")
    assert not plain.HasField("indexed_fields")
    empty, _ = await client.ask("CreateNamespace", name="three", schema=pb.MetadataSchema())
    assert empty.HasField("schema")
    assert empty.HasField("indexed_fields")


async def test_who_may_do_what(gateway: Running, client: RawClient) -> None:
    for key in (None, "wrong"):
        code, text, told = await client.refused("Query", top_k=1, vector=[1, 2, 3], key=key)
        assert code is grpc.StatusCode.UNAUTHENTICATED
        assert text.startswith("Invalid API Key")
        assert len(told["x-pinecone-request-id"]) == 32
    code, text, _ = await client.refused("DescribeIndexStats", key=OTHER_KEY)
    assert (code, text) == (grpc.StatusCode.NOT_FOUND, "Index not found")
    code, text, _ = await client.refused("Upsert", vectors=vectors(1), key=READ_ONLY_KEY)
    assert code is grpc.StatusCode.PERMISSION_DENIED
    await client.ask("DescribeIndexStats", key=READ_ONLY_KEY)
    bearer = [("authorization", f"Bearer {KEY}")]
    await client.ask("DescribeIndexStats", key=None, metadata=bearer)
    async with grpc_client(gateway.url) as control:
        code, text, _ = await control.refused("DescribeIndexStats")
    assert code is grpc.StatusCode.NOT_FOUND
    assert "not the host of an index" in text


@pytest.mark.parametrize(
    ("method", "fields", "says"),
    [
        ("Upsert", {"vectors": [pb.Vector(id="a", values=[1, 2])]}, "Vector dimension 2 does not"),
        ("Upsert", {"vectors": []}, "between 1 and 1000 vectors, got 0"),
        ("Upsert", {"vectors": [pb.Vector(id="a")] * 1001}, "between 1 and 1000 vectors, got 1001"),
        ("Upsert", {"vectors": [pb.Vector(values=[1, 2, 3])]}, "between 1 and 512 characters"),
        ("Upsert", {"vectors": [pb.Vector(id="a", values=[0, 0, 0])]}, "one non-zero value"),
        ("Fetch", {"ids": ["a"] * 1001}, "Between 1 and 1000 ids are allowed, got 1001"),
        ("Fetch", {"ids": []}, "Between 1 and 1000 ids are allowed, got 0"),
        ("Delete", {"ids": ["a"] * 1001}, "Between 1 and 1000 ids are allowed, got 1001"),
        ("Delete", {}, "must give ids, filter or deleteAll"),
        ("Delete", {"delete_all": True, "ids": ["a"]}, "No explicit IDs allowed"),
        ("Delete", {"filter": Struct()}, "empty metadata filter is not allowed"),
        ("Query", {"top_k": 0, "vector": [1, 2, 3]}, "topK must be between 1 and 10000, got 0"),
        ("Query", {"top_k": 1}, "must give vector or id"),
        ("Query", {"top_k": 1, "vector": [1, 2, 3], "id": "a"}, "Cannot provide both 'ID' and"),
        ("Query", {"top_k": 1, "id": "a", "scan_factor": 9}, "scanFactor must be between"),
        ("Query", {"top_k": 9, "id": "a", "max_candidates": 1}, "between topK and"),
        ("Query", {"top_k": 1, "queries": [pb.QueryVector()]}, "`queries` is not supported"),
        ("Query", {"top_k": 1, "id": "a", "filter": {"$no": 1}}, r"\$no"),
        ("Update", {"values": [1, 2, 3]}, "must name a record by id"),
        ("List", {"limit": 101}, "limit must be between 1 and 100, not 101"),
        ("List", {"limit": 0}, "limit must be between 1 and 100, not 0"),
        ("DescribeIndexStats", {"filter": {"a": 1}}, "do not support describing stats"),
        ("DescribeNamespace", {}, "namespace must be named"),
        ("DeleteNamespace", {}, "namespace must be named"),
        ("CreateNamespace", {}, "cannot be created explicitly"),
        ("Fetch", {"ids": ["a"], "namespace": "n" * 513}, "at most 512 characters"),
    ],
)
async def test_wrong_requests_say_what_is_wrong(
    client: RawClient, method: str, fields: dict[str, object], says: str
) -> None:
    code, text, told = await client.refused(method, **fields)
    assert code is grpc.StatusCode.INVALID_ARGUMENT, text
    with pytest.raises(ValueError, match=says):
        raise ValueError(text)
    assert told["x-pinecone-request-id"]


@pytest.mark.parametrize(
    ("value", "got"),
    [
        ({"deep": 1}, "an object"),
        ([1, 2], "a list with other elements"),
        (["a", ["b"]], "a list with other elements"),
        (None, "null"),
        (float("nan"), "'nan'"),
    ],
)
async def test_metadata_is_flat_as_over_rest(client: RawClient, value: object, got: str) -> None:
    metadata = Struct()
    if isinstance(value, float):
        metadata.fields["f"].number_value = value
    else:
        metadata = struct({"f": value})
    vector = pb.Vector(id="a", values=[1, 2, 3], metadata=metadata)
    code, text, _ = await client.refused("Upsert", vectors=[vector])
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert text == (
        "Metadata value must be a string, number, boolean or list of strings, "
        f"got {got} for field 'f' in vector 'a'."
    )


async def test_texts_beyond_ascii_arrive_whole(client: RawClient) -> None:
    code, text, _ = await client.refused("Fetch", ids=["snö❄"])
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert text == "Vector ID must be ASCII without NUL, but got 'snö❄'."
    metadata = struct({"schnee": "❄" * 100, "ключ": ["ö", ""]})
    await client.ask("Upsert", vectors=[pb.Vector(id="a", values=[1, 2, 3], metadata=metadata)])
    fetched, _ = await client.ask("Fetch", ids=["a"])
    assert fetched.vectors["a"].metadata == metadata


@pytest.mark.parametrize("message", [b"\xff\xff\xff", b"\x0a\xff\x01", b"\x12\x02\xff\xfe"])
async def test_what_is_no_message_is_refused(client: RawClient, message: bytes) -> None:
    code, text, _ = await client.refused("Upsert", message)
    assert (code, text) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "The request is not a valid UpsertRequest message.",
    )


async def test_floats_that_are_not_packed_in_one_piece_are_read_as_well(client: RawClient) -> None:
    one = b"\x0a\x01a" + b"".join(b"\x15" + pb_float for pb_float in _floats(1, 2, 3))
    two = b"\x0a\x01b\x12\x08" + b"".join(_floats(4, 5)) + b"\x12\x04" + b"".join(_floats(6))
    message = b"".join(b"\x0a" + bytes([len(v)]) + v for v in (one, two))
    assert pb.UpsertRequest.FromString(message).vectors[1].values == [4, 5, 6]
    done, _ = await client.ask("Upsert", message)
    assert done.upserted_count == 2
    fetched, _ = await client.ask("Fetch", ids=["a", "b"])
    assert list(fetched.vectors["a"].values) == [1, 2, 3]
    assert list(fetched.vectors["b"].values) == [4, 5, 6]


def _floats(*values: float) -> list[bytes]:
    whole = pb.Vector(values=values).SerializeToString()
    return [whole[2 + 4 * n : 6 + 4 * n] for n in range(len(values))]


async def test_what_is_not_the_callers_to_mend_is_not_told(
    gateway: Running, client: RawClient, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.memory.fail_with = RuntimeError("secret")
    code, text, told = await client.refused("DescribeIndexStats")
    assert code is grpc.StatusCode.INTERNAL
    assert text == "Internal error. The server's log has more under this request's id."
    assert told["x-pinecone-request-id"]
    assert "request to gRPC DescribeIndexStats failed" in caplog.text
    gateway.memory.fail_with = CorruptData("objects/x is damaged")
    code, text, _ = await client.refused("DescribeIndexStats")
    assert (code, text) == (grpc.StatusCode.DATA_LOSS, "objects/x is damaged")
    gateway.memory.fail_with = Overloaded("slow down", retry_after_s=1.5)
    code, text, told = await client.refused("DescribeIndexStats")
    assert (code, text) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "slow down")
    assert told["retry-after"] == "2"


async def test_reads_may_say_how_fresh(gateway: Running, client: RawClient) -> None:
    await client.ask("DescribeIndexStats", metadata=[("x-firndb-consistency", "strong")])
    assert gateway.memory.last_options.consistency is Consistency.STRONG
    assert gateway.memory.last_options.deadline_s is None
    await client.ask("DescribeIndexStats", metadata=[("x-firndb-min-lsn", "7")])
    assert gateway.memory.last_options.min_lsn == 7
    code, text, _ = await client.refused(
        "DescribeIndexStats", metadata=[("x-firndb-consistency", "perfect")]
    )
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "default, strong, eventual" in text
    gateway.memory.freshness_flags = {"stale": True}
    _, told = await client.ask("DescribeIndexStats")
    assert told["x-firndb-stale"] == "true"


async def test_a_read_waits_no_longer_than_its_client(gateway: Running, client: RawClient) -> None:
    await client.ask("DescribeIndexStats", timeout=1)
    assert gateway.memory.last_options.deadline_s is not None
    assert 0 < gateway.memory.last_options.deadline_s <= 0.8


async def test_the_default_namespace_has_the_name_of_the_clients_version(
    client: RawClient,
) -> None:
    await client.ask("Upsert", vectors=vectors(1))
    for version, name in (("2025-01", ""), ("2025-04", "__default__"), ("2026-07", "__default__")):
        told = [("x-pinecone-api-version", version)]
        stats, _ = await client.ask("DescribeIndexStats", metadata=told)
        assert list(stats.namespaces) == [name]


async def test_calls_are_counted(gateway: Running, client: RawClient) -> None:
    await client.ask("DescribeIndexStats")
    await client.refused("Query", top_k=0)
    text = gateway.metrics.text().decode()
    assert 'firndb_grpc_requests_total{code="OK",method="DescribeIndexStats"} 1.0' in text
    assert 'firndb_grpc_requests_total{code="INVALID_ARGUMENT",method="Query"} 1.0' in text
    assert 'firndb_grpc_request_seconds_count{method="Query"} 1.0' in text
    assert "firndb_grpc_connections 1.0" in text


async def test_an_index_is_found_by_its_name_in_the_authority(tmp_path: Path) -> None:
    template = "http://{name}.vectors.example:{port}"
    async with running_gateway(tmp_path, index_host=template) as gateway:
        await gateway.create("movies")
        await gateway.create("books", dimension=2)
        for name, dimension in (("movies", 3), ("books", 2)):
            authority = ("grpc.default_authority", f"{name}.vectors.example:80")
            async with grpc_client(gateway.url, authority) as raw:
                stats, _ = await raw.ask("DescribeIndexStats")
                assert stats.dimension == dimension
        async with grpc_client(
            gateway.url, ("grpc.default_authority", "no.vectors.example")
        ) as raw:
            code, text, _ = await raw.refused("DescribeIndexStats")
            assert (code, text) == (grpc.StatusCode.NOT_FOUND, "Index not found")
