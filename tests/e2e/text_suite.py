"""What the official client does with texts, against a running FirnDB that has the models which
`FIRN_MODELS` names.

One module for every client version; run like `client_suite.py`. Every test runs with the
synchronous and the asynchronous client, with each model.
"""

import asyncio
import inspect
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pinecone
import pytest
from pinecone import Pinecone, PineconeAsyncio, ServerlessSpec

HOST = os.environ["PINECONE_CONTROLLER_HOST"]
MODELS = os.environ["FIRN_MODELS"].split(",")
MAJOR = int(pinecone.__version__.split(".")[0])
RECORDS = [
    {"_id": "ice", "body": "ice and snow on the mountain", "year": 2024},
    {"_id": "sea", "body": "warm sea and a sandy beach", "year": 2025},
    {"_id": "city", "body": "trains and trams in the city", "year": 2026},
]


async def call(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    result = function(*args, **kwargs)
    return await result if inspect.isawaitable(result) else result


@asynccontextmanager
async def opened(flavour: str) -> AsyncIterator[Any]:
    if flavour == "sync":
        yield Pinecone(host=HOST)
    else:
        async with PineconeAsyncio(host=HOST) as client:
            yield client


@asynccontextmanager
async def index_of(client: Any, flavour: str, host: str) -> AsyncIterator[Any]:
    if flavour == "sync":
        yield client.Index(host=host)
    else:
        async with client.IndexAsyncio(host=host) as index:
            yield index


def each(test: Callable[[str, str], Awaitable[None]]) -> Callable[[str, str], None]:
    @pytest.mark.parametrize("flavour", ["sync", "async"])
    @pytest.mark.parametrize("model", MODELS)
    def run(flavour: str, model: str) -> None:
        asyncio.run(asyncio.wait_for(test(flavour, model), 60))

    run.__name__ = test.__name__
    return run


async def search(index: Any, top_k: int, fields: list[str] | None = None, **query: Any) -> Any:
    more = {} if fields is None else {"fields": fields}
    asked = {"query": {"top_k": top_k, **query}} if MAJOR < 9 else {"top_k": top_k, **query}
    return await call(index.search, namespace="ns", **asked, **more)


def found(response: Any) -> list[str]:
    return [hit["_id"] if MAJOR < 9 else hit.id for hit in response.result.hits]


async def write(index: Any, records: list[dict[str, Any]]) -> None:
    await call(index.upsert_records, namespace="ns", records=records)


@each
async def test_the_life_of_texts(flavour: str, model: str) -> None:
    name = f"texts-{uuid.uuid4().hex[:8]}"
    async with opened(flavour) as client:
        embed = {"model": model, "field_map": {"text": "body"}}
        await call(
            client.create_index_for_model, name=name, cloud="aws", region="us-east-1", embed=embed
        )
        try:
            described = await call(client.describe_index, name)
            if MAJOR < 10:
                assert described.embed.model == model
                assert described.embed.field_map["text"] == "body"
            else:
                assert described.schema.fields["body"].model == model
            async with index_of(client, flavour, described.host) as index:
                await write(index, RECORDS)
                answer = await search(index, 2, inputs={"text": "snow and ice"})
                assert found(answer)[0] == "ice"
                first = answer.result.hits[0]
                assert first.fields["body"] == RECORDS[0]["body"]
                assert first.fields["year"] == 2024
                assert answer.usage.read_units >= 1
                assert answer.usage.embed_total_tokens > 0
                assert found(await search(index, 1, id="sea")) == ["sea"]
                late = await search(
                    index, 3, ["year"], inputs={"text": "snow"}, filter={"year": {"$gt": 2024}}
                )
                assert set(found(late)) == {"sea", "city"}
                assert [dict(hit.fields).keys() for hit in late.result.hits] == [{"year"}] * 2
                await write(index, [{"_id": "sea", "body": "snow and ice again"}])
                again = await search(index, 2, inputs={"text": "snow and ice"})
                assert set(found(again)) == {"ice", "sea"}
                stats = await call(index.describe_index_stats)
                assert stats.total_vector_count == 3
                with pytest.raises(Exception, match="96 records"):
                    await write(index, [{"_id": str(i), "body": "x"} for i in range(97)])
                with pytest.raises(Exception, match="'body', which the index embeds"):
                    await write(index, [{"_id": "n", "text": "x"}])
        finally:
            await call(client.delete_index, name)


@each
async def test_an_index_of_vectors_is_searched_by_vector_and_takes_no_texts(
    flavour: str, model: str
) -> None:
    name = f"plain-{uuid.uuid4().hex[:8]}"
    spec = ServerlessSpec(cloud="aws", region="us-east-1")
    async with opened(flavour) as client:
        made = await call(client.create_index, name, dimension=3, metric="cosine", spec=spec)
        try:
            async with index_of(client, flavour, made.host) as index:
                vectors = [{"id": "a", "values": [1.0, 0.0, 0.0], "metadata": {"k": 1}}]
                await call(index.upsert, vectors=vectors, namespace="ns")
                answer = await search(index, 1, vector={"values": [1.0, 0.0, 0.0]})
                assert found(answer) == ["a"]
                assert found(await search(index, 1, id="a")) == ["a"]
                with pytest.raises(Exception, match="no integrated embedding"):
                    await search(index, 1, inputs={"text": "snow"})
                with pytest.raises(Exception, match="no integrated embedding"):
                    await write(index, RECORDS)
        finally:
            await call(client.delete_index, name)


@each
async def test_models_are_listed_and_embed(flavour: str, model: str) -> None:
    async with opened(flavour) as client:
        listed = await call(client.inference.list_models)
        assert {one.model for one in listed} >= set(MODELS)
        one = await call(client.inference.get_model, model_name=model)
        parameters = {"input_type": "query"}
        embedded = await call(
            client.inference.embed, model=model, inputs=["snow", "sea"], parameters=parameters
        )
        assert len(embedded) == 2
        assert len(embedded[0].values) == one.default_dimension
        assert embedded.usage.total_tokens > 0
        with pytest.raises(Exception, match="no model 'nobody'"):
            await call(client.inference.embed, model="nobody", inputs=["snow"], parameters={})
