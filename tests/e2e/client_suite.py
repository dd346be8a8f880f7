"""What the official Pinecone client does all day, against a running FirnDB.

One module for every client version.

Run by tests/e2e/test_official_clients.py with the interpreter of a client's own environment:
`PINECONE_API_KEY=... PINECONE_CONTROLLER_HOST=http://127.0.0.1:8080 pytest client_suite.py`.
Nothing of FirnDB is imported. Every test runs with the synchronous client, the asynchronous one,
and the synchronous one with its data plane over gRPC.
"""

import asyncio
import inspect
import math
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pinecone
import pytest
from pinecone import Pinecone, PineconeAsyncio, ServerlessSpec

HOST = os.environ["PINECONE_CONTROLLER_HOST"]
MAJOR = int(pinecone.__version__.split(".")[0])
SPEC = ServerlessSpec(cloud="aws", region="us-east-1")


async def call(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call a method of either client; the asynchronous one's result is awaited."""
    result = function(*args, **kwargs)
    return await result if inspect.isawaitable(result) else result


@asynccontextmanager
async def opened(flavour: str, key: str | None = None) -> AsyncIterator[Any]:
    if flavour == "grpc" and MAJOR < 8:
        from pinecone.grpc import PineconeGRPC

        yield PineconeGRPC(api_key=key or os.environ["PINECONE_API_KEY"], host=HOST)
    elif flavour == "grpc" and MAJOR >= 10:
        yield Pinecone(api_key=key, host=HOST, grpc_scheme="http")
    elif flavour != "async":
        yield Pinecone(api_key=key, host=HOST) if key else Pinecone(host=HOST)
    else:
        async with (
            PineconeAsyncio(api_key=key, host=HOST) if key else PineconeAsyncio(host=HOST) as client
        ):
            yield client


@asynccontextmanager
async def index_of(
    client: Any, flavour: str, dimension: int | None = 3, metric: str = "cosine", **options: Any
) -> AsyncIterator[Any]:
    """A fresh index and a data plane client for it; deleted at the end."""
    name = f"suite-{uuid.uuid4().hex[:12]}"
    model = await call(
        client.create_index, name, dimension=dimension, metric=metric, spec=SPEC, **options
    )
    try:
        if flavour == "sync":
            yield client.Index(host=model.host)
        elif flavour == "grpc":
            yield grpc_index(client, model.host)
        else:
            async with client.IndexAsyncio(host=model.host) as index:
                yield index
    finally:
        await call(client.delete_index, name)


def grpc_index(client: Any, host: str) -> Any:
    """How each version is told that there is no TLS."""
    if MAJOR < 8:
        from pinecone import grpc

        config = vars(grpc)["GRPCClientConfig"](secure=False)
        return client.Index(host=host.removeprefix("http://"), grpc_config=config)
    if MAJOR < 10:
        from pinecone.grpc import GrpcIndex

        return GrpcIndex(host=host, secure=False)
    return client.index(host=host, grpc=True)


def not_found(flavour: str) -> Any:
    """What a client raises; the gRPC client of version 7 has one exception for everything."""
    if flavour == "grpc" and MAJOR < 8:
        from pinecone.exceptions import PineconeException

        return PineconeException
    return pinecone.NotFoundException


def each(test: Callable[[str], Awaitable[None]]) -> Callable[[str], None]:
    """The coroutine test as a plain pytest test, once for each flavour of the client."""

    @pytest.mark.parametrize("flavour", ["sync", "async", "grpc"])
    def run(flavour: str) -> None:
        asyncio.run(asyncio.wait_for(test(flavour), 90))

    run.__name__ = test.__name__
    return run


def ids(response: Any) -> list[str]:
    return [m.id for m in response.matches]


async def stats_of(index: Any) -> Any:
    return await call(index.describe_index_stats)


@each
async def test_index_life(flavour: str) -> None:
    async with opened(flavour) as client:
        name = f"life-{uuid.uuid4().hex[:12]}"
        options: dict[str, Any] = {"deletion_protection": "enabled", "tags": {"team": "ice"}}
        created = await call(
            client.create_index, name, dimension=8, metric="euclidean", spec=SPEC, **options
        )
        assert created.name == name
        assert created.host.startswith("http://")
        described = await call(client.describe_index, name)
        assert described.dimension == 8
        assert described.metric == "euclidean"
        assert described.status.ready
        assert described.tags["team"] == "ice"
        listed = await call(client.list_indexes)
        if hasattr(type(listed), "__aiter__"):
            names = [i.name async for i in listed]
        else:
            names = [i.name for i in listed]
        assert name in names
        assert await call(client.has_index, name)
        with pytest.raises(Exception, match=r"(?i)exists"):
            await call(client.create_index, name, dimension=8, metric="cosine", spec=SPEC)
        with pytest.raises(Exception, match=r"(?i)protect"):
            await call(client.delete_index, name)
        await call(client.configure_index, name, deletion_protection="disabled")
        await call(client.delete_index, name)
        assert not await call(client.has_index, name)
        with pytest.raises(pinecone.NotFoundException):
            await call(client.describe_index, name)


@each
async def test_wrong_key_is_refused(flavour: str) -> None:
    async with opened(flavour, key="totally-wrong") as client:
        with pytest.raises(pinecone.UnauthorizedException):
            await call(client.describe_index, "whatever")


@each
async def test_upsert_query_fetch(flavour: str) -> None:
    async with opened(flavour) as client, index_of(client, flavour) as index:
        response = await call(
            index.upsert,
            vectors=[
                {"id": "a", "values": [1.0, 0.0, 0.0], "metadata": {"kind": "x", "n": 1}},
                {"id": "b", "values": [0.0, 1.0, 0.0], "metadata": {"kind": "y", "n": 2}},
                {"id": "c", "values": [0.9, 0.1, 0.0], "metadata": {"tags": ["p", "q"]}},
            ],
        )
        assert response.upserted_count == 3
        found = await call(
            index.query,
            vector=[1.0, 0.0, 0.0],
            top_k=2,
            include_values=True,
            include_metadata=True,
        )
        assert ids(found) == ["a", "c"]
        assert math.isclose(found.matches[0].score, 1.0, abs_tol=1e-4)
        assert list(found.matches[0].values) == [1.0, 0.0, 0.0]
        assert found.matches[0].metadata["kind"] == "x"
        assert found.matches[1].metadata["tags"] == ["p", "q"]
        assert found.usage.read_units >= 1
        bare = await call(index.query, vector=[1.0, 0.0, 0.0], top_k=1)
        assert not bare.matches[0].values
        assert not bare.matches[0].metadata
        by_id = await call(index.query, id="b", top_k=1)
        assert ids(by_id) == ["b"]
        fetched = await call(index.fetch, ids=["a", "missing"])
        assert set(fetched.vectors) == {"a"}
        assert list(fetched.vectors["a"].values) == [1.0, 0.0, 0.0]
        assert fetched.vectors["a"].metadata["n"] == 1


@each
async def test_overwritten_and_deleted_records_never_come_back(flavour: str) -> None:
    async with opened(flavour) as client, index_of(client, flavour) as index:
        for turn in range(5):
            vector = [0.0, 0.0, 0.0]
            vector[turn % 3] = 1.0
            await call(
                index.upsert,
                vectors=[{"id": "same", "values": vector, "metadata": {"turn": turn}}],
            )
            found = await call(index.query, vector=vector, top_k=5, include_metadata=True)
            assert [(m.id, m.metadata["turn"]) for m in found.matches] == [("same", turn)]
        await call(index.delete, ids=["same"])
        assert ids(await call(index.query, vector=[1.0, 0.0, 0.0], top_k=5)) == []
        assert (await call(index.fetch, ids=["same"])).vectors == {}


@each
async def test_scores_of_the_three_metrics(flavour: str) -> None:
    expected = {
        "cosine": [("a", 1.0), ("b", 0.6)],
        "dotproduct": [("a", 2.0), ("b", 1.2)],
        "euclidean": [("b", 0.68), ("a", 1.0)],
    }
    async with opened(flavour) as client:
        for metric, scores in expected.items():
            async with index_of(client, flavour, dimension=2, metric=metric) as index:
                await call(
                    index.upsert,
                    vectors=[
                        {"id": "a", "values": [2.0, 0.0]},
                        {"id": "b", "values": [1.2, 1.6 if metric != "euclidean" else 0.8]},
                    ],
                )
                found = await call(index.query, vector=[1.0, 0.0], top_k=2)
                assert ids(found) == [i for i, _ in scores], metric
                for match, (_, score) in zip(found.matches, scores, strict=True):
                    assert math.isclose(match.score, score, abs_tol=1e-4), metric


FILTERS: list[tuple[dict[str, Any], set[str]]] = [
    ({"genre": "drama"}, {"m0", "m3"}),
    ({"genre": {"$ne": "drama"}}, {"m1", "m2", "m4"}),
    ({"year": {"$gte": 2000}}, {"m2", "m3"}),
    ({"year": {"$lt": 2000, "$gt": 1980}}, {"m1"}),
    ({"genre": {"$in": ["action", "comedy"]}}, {"m1", "m2"}),
    ({"genre": {"$nin": ["action", "comedy"]}}, {"m0", "m3", "m4"}),
    ({"tags": "cold"}, {"m1", "m3"}),
    ({"tags": {"$in": ["warm"]}}, {"m2", "m3"}),
    ({"seen": True}, {"m0"}),
    ({"seen": {"$exists": False}}, {"m2", "m3", "m4"}),
    ({"$and": [{"genre": "drama"}, {"year": {"$gt": 1980}}]}, {"m3"}),
    ({"$or": [{"genre": "action"}, {"year": 1971}]}, {"m0", "m1"}),
]


@each
async def test_the_filter_language(flavour: str) -> None:
    records: list[dict[str, Any]] = [
        {"genre": "drama", "year": 1971, "seen": True},
        {"genre": "action", "year": 1990, "tags": ["cold", "old"], "seen": False},
        {"genre": "comedy", "year": 2001.5, "tags": ["warm"]},
        {"genre": "drama", "year": 2020, "tags": ["warm", "cold"]},
        {},
    ]
    async with opened(flavour) as client, index_of(client, flavour) as index:
        vectors = [
            {"id": f"m{i}", "values": [1.0, float(i), 0.5], "metadata": m}
            for i, m in enumerate(records)
        ]
        await call(index.upsert, vectors=vectors)
        for condition, expected in FILTERS:
            found = await call(index.query, vector=[1.0, 1.0, 1.0], top_k=10, filter=condition)
            assert set(ids(found)) == expected, condition
        with pytest.raises(Exception, match=r"\$bogus"):
            await call(index.query, vector=[1.0, 1.0, 1.0], top_k=1, filter={"a": {"$bogus": 1}})


@each
async def test_update_by_id(flavour: str) -> None:
    async with opened(flavour) as client, index_of(client, flavour) as index:
        await call(
            index.upsert,
            vectors=[{"id": "u", "values": [1.0, 0.0, 0.0], "metadata": {"a": 1, "b": "x"}}],
        )
        await call(index.update, id="u", set_metadata={"b": "y", "c": True})
        record = (await call(index.fetch, ids=["u"])).vectors["u"]
        assert record.metadata == {"a": 1, "b": "y", "c": True}
        assert list(record.values) == [1.0, 0.0, 0.0]
        await call(index.update, id="u", values=[0.0, 0.0, 1.0])
        record = (await call(index.fetch, ids=["u"])).vectors["u"]
        assert list(record.values) == [0.0, 0.0, 1.0]
        assert record.metadata["b"] == "y"
        await call(index.update, id="nobody", set_metadata={"z": 1})
        assert (await call(index.fetch, ids=["nobody"])).vectors == {}


@each
async def test_delete_by_ids_filter_and_all(flavour: str) -> None:
    async with opened(flavour) as client, index_of(client, flavour) as index:
        vectors = [
            {"id": f"d{i}", "values": [1.0, float(i), 1.0], "metadata": {"even": i % 2 == 0}}
            for i in range(10)
        ]
        await call(index.upsert, vectors=vectors, namespace="ns")
        await call(index.delete, ids=["d0", "d1", "never-there"], namespace="ns")
        found = await call(index.query, vector=[1.0, 1.0, 1.0], top_k=20, namespace="ns")
        assert set(ids(found)) == {f"d{i}" for i in range(2, 10)}
        await call(index.delete, filter={"even": {"$eq": True}}, namespace="ns")
        found = await call(index.query, vector=[1.0, 1.0, 1.0], top_k=20, namespace="ns")
        assert set(ids(found)) == {"d3", "d5", "d7", "d9"}
        await call(index.delete, delete_all=True, namespace="ns")
        found = await call(index.query, vector=[1.0, 1.0, 1.0], top_k=20, namespace="ns")
        assert ids(found) == []
        with pytest.raises(not_found(flavour)):
            await call(index.delete, ids=["x"], namespace="never-made")


@each
async def test_list_pages_through_prefixes(flavour: str) -> None:
    async with opened(flavour) as client, index_of(client, flavour) as index:
        vectors = [{"id": f"doc1#{i:03}", "values": [1.0, float(i), 0.0]} for i in range(25)]
        vectors += [{"id": f"doc2#{i:03}", "values": [1.0, float(i), 0.0]} for i in range(5)]
        await call(index.upsert, vectors=vectors)
        seen: list[str] = []
        token: str | None = None
        pages = 0
        while True:
            more = {"pagination_token": token} if token else {}
            page = await call(index.list_paginated, prefix="doc1#", limit=10, **more)
            seen += [v.id for v in page.vectors]
            pages += 1
            token = page.pagination.next if page.pagination else None
            if not token:
                break
        assert seen == [f"doc1#{i:03}" for i in range(25)]
        assert pages == 3


@each
async def test_stats_count_exactly(flavour: str) -> None:
    async with opened(flavour) as client, index_of(client, flavour) as index:
        assert (await stats_of(index)).total_vector_count == 0
        vectors = [{"id": str(i), "values": [1.0, float(i), 0.0]} for i in range(20)]
        await call(index.upsert, vectors=vectors)
        await call(index.upsert, vectors=vectors[:7], namespace="second")
        await call(index.upsert, vectors=vectors[:5])
        await call(index.delete, ids=["0", "1", "unknown"])
        stats = await stats_of(index)
        assert stats.dimension == 3
        assert stats.total_vector_count == 25
        assert {n: s.vector_count for n, s in stats.namespaces.items()} == {
            "__default__": 18,
            "second": 7,
        }


@each
async def test_namespaces_isolate_tenants(flavour: str) -> None:
    async with opened(flavour) as client, index_of(client, flavour) as index:
        for tenant in ("tenant1", "tenant2"):
            await call(
                index.upsert,
                vectors=[
                    {"id": i, "values": [1.0, float(n), 0.0], "metadata": {"of": tenant}}
                    for n, i in enumerate("ABCD")
                ],
                namespace=tenant,
            )
        await call(index.update, id="A", values=[0.0, 0.0, 9.0], namespace="tenant1")
        found = await call(
            index.query,
            vector=[1.0, 0.0, 0.0],
            top_k=3,
            namespace="tenant2",
            include_metadata=True,
        )
        assert ids(found) == ["A", "B", "C"]
        assert {m.metadata["of"] for m in found.matches} == {"tenant2"}
        page = await call(index.list_namespaces_paginated)
        assert {n.name for n in page.namespaces} == {"tenant1", "tenant2"}
        described = await call(index.describe_namespace, namespace="tenant2")
        assert int(described.record_count) == 4
        await call(index.delete_namespace, namespace="tenant1")
        found = await call(index.query, vector=[1.0, 0.0, 0.0], top_k=3, namespace="tenant1")
        assert ids(found) == []
        assert set((await stats_of(index)).namespaces) == {"tenant2"}
        with pytest.raises(not_found(flavour)):
            await call(index.describe_namespace, namespace="tenant1")
        await call(
            index.upsert, vectors=[{"id": "new", "values": [1.0, 0.0, 0.0]}], namespace="tenant1"
        )
        found = await call(index.query, vector=[1.0, 0.0, 0.0], top_k=9, namespace="tenant1")
        assert ids(found) == ["new"]


@pytest.mark.skipif(MAJOR < 8, reason="this client cannot create a namespace")
@each
async def test_create_namespace(flavour: str) -> None:
    async with opened(flavour) as client, index_of(client, flavour) as index:
        made = await call(index.create_namespace, name="empty")
        assert made.name == "empty"
        with pytest.raises(Exception, match=r"(?i)exists"):
            await call(index.create_namespace, name="empty")
        assert int((await call(index.describe_namespace, name="empty")).record_count) == 0
        schema = {"fields": {"year": {"filterable": True}}}
        made = await call(index.create_namespace, name="declared", schema=schema)
        described = await call(index.describe_namespace, name="declared")
        for shown in (made, described):
            assert list(shown.schema.fields) == list(shown.indexed_fields.fields) == ["year"]
            assert shown.schema.fields["year"].filterable


@pytest.mark.skipif(MAJOR < 8, reason="this client knows neither")
@each
async def test_fetch_and_update_by_metadata(flavour: str) -> None:
    if flavour == "grpc" and MAJOR < 10:
        pytest.skip("this client has no fetch_by_metadata over gRPC")
    async with opened(flavour) as client, index_of(client, flavour) as index:
        rows = [(f"r{n}", [1.0, n, 0.0], {"even": n % 2 == 0}) for n in range(7)]
        await call(index.upsert, vectors=rows)
        wanted = {"even": {"$eq": True}}
        first = await call(index.fetch_by_metadata, filter=wanted, limit=3)
        assert sorted(first.vectors) == ["r0", "r2", "r4"]
        token = first.pagination.next
        rest = await call(index.fetch_by_metadata, filter=wanted, limit=3, pagination_token=token)
        assert list(rest.vectors) == ["r6"]
        assert rest.pagination is None or not rest.pagination.next
        changes = {"filter": wanted, "set_metadata": {"even": False}}
        assert (await call(index.update, **changes, dry_run=True)).matched_records == 4
        assert (await call(index.update, **changes)).matched_records == 4
        assert (await call(index.update, **changes)).matched_records == 0
        assert not (await call(index.fetch_by_metadata, filter=wanted)).vectors


@each
async def test_sparse_and_hybrid(flavour: str) -> None:
    async with opened(flavour) as client:
        async with index_of(
            client, flavour, dimension=None, metric="dotproduct", vector_type="sparse"
        ) as index:
            await call(
                index.upsert,
                vectors=[
                    {"id": "s1", "sparse_values": {"indices": [1, 5], "values": [0.5, 2.0]}},
                    {"id": "s2", "sparse_values": {"indices": [5, 9], "values": [1.0, 1.0]}},
                    {"id": "s3", "sparse_values": {"indices": [77], "values": [1.0]}},
                ],
            )
            found = await call(
                index.query, sparse_vector={"indices": [1, 5], "values": [1.0, 1.0]}, top_k=5
            )
            assert [(m.id, round(m.score, 4)) for m in found.matches] == [("s1", 2.5), ("s2", 1.0)]
        async with index_of(client, flavour, dimension=2, metric="dotproduct") as index:
            await call(
                index.upsert,
                vectors=[
                    {
                        "id": "h1",
                        "values": [1.0, 0.0],
                        "sparse_values": {"indices": [3], "values": [1.0]},
                    },
                    {"id": "h2", "values": [1.5, 0.0]},
                ],
            )
            found = await call(
                index.query,
                vector=[1.0, 0.0],
                sparse_vector={"indices": [3], "values": [1.0]},
                top_k=2,
            )
            assert [(m.id, round(m.score, 4)) for m in found.matches] == [("h1", 2.0), ("h2", 1.5)]


@each
async def test_bad_input_is_told_clearly(flavour: str) -> None:
    async with opened(flavour) as client, index_of(client, flavour) as index:
        with pytest.raises(Exception, match=r"(?i)dimension"):
            await call(index.upsert, vectors=[{"id": "x", "values": [1.0, 2.0]}])
        with pytest.raises(Exception, match=r"(?i)dimension"):
            await call(index.query, vector=[1.0, 2.0], top_k=1)
        with pytest.raises(Exception, match=r"(?i)metadata"):
            await call(
                index.upsert,
                vectors=[{"id": "x", "values": [1.0, 2.0, 3.0], "metadata": {"nested": {"no": 1}}}],
            )
        with pytest.raises(Exception, match=r"(?i)top_?k"):
            await call(index.query, vector=[1.0, 2.0, 3.0], top_k=10001)
        assert (await stats_of(index)).total_vector_count == 0


@each
async def test_a_thousand_records_at_once(flavour: str) -> None:
    async with opened(flavour) as client, index_of(client, flavour, dimension=8) as index:
        vectors = [
            {
                "id": f"v{i:04}",
                "values": [math.sin((i + 1) * (j + 1)) for j in range(8)],
                "metadata": {"i": i, "third": i % 3 == 0},
            }
            for i in range(1000)
        ]
        await call(index.upsert, vectors=vectors)
        query = [math.sin(501 * (j + 1)) for j in range(8)]
        found = await call(index.query, vector=query, top_k=1000)
        assert len(found.matches) == 1000
        assert found.matches[0].id == "v0500"
        filtered = await call(index.query, vector=query, top_k=1000, filter={"third": True})
        assert len(filtered.matches) == 334
        assert (await stats_of(index)).total_vector_count == 1000
