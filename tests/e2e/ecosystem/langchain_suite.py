"""langchain-pinecone's everyday work against a running FirnDB, steered by environment variables.

Run by tests/e2e/test_ecosystem.py with the package's own interpreter; nothing of FirnDB is
imported. The client that langchain-pinecone pins is 7.x.
"""

import asyncio
import os
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_pinecone import PineconeSparseEmbeddings, PineconeVectorStore
from langchain_pinecone.vectorstores_sparse import PineconeSparseVectorStore
from pinecone import Pinecone, ServerlessSpec, SparseValues

from tests.e2e.ecosystem.words import DIMENSION, embed, weigh

SPEC = ServerlessSpec(cloud="aws", region="us-east-1")
TEXTS = ["the glacier moves", "the river moves", "firn is old snow", "snow falls on the glacier"]
METADATAS = [{"year": 1990}, {"year": 2001}, {"year": 2010}, {"year": 2020}]


class Words(Embeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [embed(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return embed(text)


class SparseWords(PineconeSparseEmbeddings):
    """The sparse store takes no other base class; only what would ask a hosted model differs."""

    def list_supported_models(self, vector_type: str | None = None) -> list[Any]:
        return [{"model": "words"}]

    def embed_documents(self, texts: list[str]) -> list[SparseValues]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> SparseValues:
        weights = weigh(text)
        return SparseValues(indices=list(weights), values=list(weights.values()))

    async def aembed_documents(self, texts: list[str]) -> list[SparseValues]:
        return self.embed_documents(texts)

    async def aembed_query(self, text: str) -> SparseValues:
        return self.embed_query(text)


@pytest.fixture
def index_name() -> Iterator[str]:
    client, name = Pinecone(), f"langchain-{uuid.uuid4().hex[:12]}"
    client.create_index(name, dimension=DIMENSION, metric="cosine", spec=SPEC)
    yield name
    client.delete_index(name)


@pytest.fixture
def sparse_index() -> Iterator[Any]:
    client, name = Pinecone(), f"langchain-{uuid.uuid4().hex[:12]}"
    client.create_index(name, metric="dotproduct", vector_type="sparse", spec=SPEC)
    yield client.Index(name)
    client.delete_index(name)


def filled(name: str, **options: Any) -> PineconeVectorStore:
    metadatas = [dict(m) for m in METADATAS]
    return PineconeVectorStore.from_texts(
        TEXTS, Words(), metadatas, ids=["a", "b", "c", "d"], index_name=name, **options
    )


def texts(documents: list[Document]) -> list[str]:
    return [d.page_content for d in documents]


def test_search_with_scores_and_filters(index_name: str) -> None:
    store = filled(index_name)
    (best, score), *_ = store.similarity_search_with_score("old snow is firn", k=2)
    assert (best.id, best.page_content, best.metadata) == ("c", TEXTS[2], {"year": 2010})
    assert score == pytest.approx(1.0, abs=1e-4)
    found = store.similarity_search("the glacier moves", k=4, filter={"year": {"$gte": 2001}})
    assert set(texts(found)) == set(TEXTS[1:])
    found = store.similarity_search("the glacier moves", k=4, filter={"year": 2020})
    assert texts(found) == [TEXTS[3]]
    by_relevance = store.similarity_search_with_relevance_scores("the river moves", k=1)
    assert by_relevance[0][0].page_content == TEXTS[1]


def test_adding_overwriting_and_deleting(index_name: str) -> None:
    store = filled(index_name)
    store.add_documents([Document(page_content="a lake", metadata={"year": 1})], ids=["a"])
    assert texts(store.similarity_search("a lake", k=1)) == ["a lake"]
    assert TEXTS[0] not in texts(store.similarity_search("the glacier moves", k=10))
    store.delete(ids=["a"])
    store.delete(filter={"year": {"$lt": 2005}})
    assert set(texts(store.similarity_search("snow", k=10))) == {TEXTS[2], TEXTS[3]}
    store.delete(delete_all=True)
    assert store.similarity_search("snow", k=10) == []


def test_ids_with_a_prefix_are_listed(index_name: str) -> None:
    store = PineconeVectorStore(index_name=index_name, embedding=Words())
    store.add_texts(TEXTS, ids=["1", "2", "3", "4"], id_prefix="book", batch_size=2)
    store.add_texts(["another"], ids=["other#1"])
    (page,) = list(store.index.list(prefix="book#"))
    assert page == ["book#1", "book#2", "book#3", "book#4"]


def test_namespaces_hold_tenants_apart(index_name: str) -> None:
    one = filled(index_name, namespace="one")
    two = PineconeVectorStore(index_name=index_name, embedding=Words(), namespace="two")
    two.add_texts(["only of two"])
    assert texts(two.similarity_search("the glacier moves", k=10)) == ["only of two"]
    assert len(one.similarity_search("only of two", k=10)) == 4
    assert texts(one.similarity_search("two", k=10, namespace="two")) == ["only of two"]


def test_a_retriever_of_diverse_documents(index_name: str) -> None:
    retriever = filled(index_name).as_retriever(
        search_type="mmr", search_kwargs={"k": 2, "fetch_k": 4, "lambda_mult": 0.5}
    )
    assert texts(retriever.invoke("the glacier moves"))[0] == TEXTS[0]


def test_an_existing_index_and_many_batches(index_name: str) -> None:
    store = PineconeVectorStore.from_existing_index(index_name, Words(), namespace="bulk")
    ids = store.add_texts([f"document number {n}" for n in range(300)], batch_size=50)
    assert len(set(ids)) == 300
    stats = store.index.describe_index_stats()
    assert stats["namespaces"]["bulk"]["vector_count"] == 300


def test_everything_asynchronous(index_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the index's host alone, as PINECONE_HOST gives it."""
    monkeypatch.setenv("PINECONE_HOST", str(Pinecone().describe_index(index_name).host))

    async def work() -> None:
        store = await PineconeVectorStore.afrom_texts(
            TEXTS, Words(), [dict(m) for m in METADATAS], ids=["a", "b", "c", "d"]
        )
        found = await store.asimilarity_search_with_score("old snow is firn", k=1)
        assert found[0][0].id == "c"
        found = await store.asimilarity_search("moves", k=4, filter={"year": {"$lt": 2005}})
        assert set(texts(found)) == set(TEXTS[:2])
        await store.adelete(ids=["a"])
        await store.adelete(filter={"year": 2020})
        assert set(texts(await store.asimilarity_search("snow", k=10))) == {TEXTS[1], TEXTS[2]}
        await store.adelete(delete_all=True)
        assert await store.asimilarity_search("snow", k=10) == []

    asyncio.run(asyncio.wait_for(work(), 60))


def test_the_sparse_store(sparse_index: Any) -> None:
    store = PineconeSparseVectorStore(index=sparse_index, embedding=SparseWords(model="words"))
    store.add_texts(TEXTS, [dict(m) for m in METADATAS], ids=["a", "b", "c", "d"])
    found = store.similarity_search_with_score("old snow", k=4)
    assert [(d.id, score) for d, score in found] == [("c", 2.0), ("d", 1.0)]
    found = store.similarity_search_with_score("old snow", k=4, filter={"year": 2020})
    assert [d.id for d, _ in found] == ["d"]
    store.delete(ids=["c"])
    assert texts(store.similarity_search("old snow", k=4)) == [TEXTS[3]]


def test_the_sparse_store_asynchronous(sparse_index: Any) -> None:
    async def work() -> None:
        store = PineconeSparseVectorStore(
            host=sparse_index.config.host,
            embedding=SparseWords(model="words"),
            pinecone_api_key=os.environ["PINECONE_API_KEY"],
        )
        await store.aadd_texts(TEXTS, ids=["a", "b", "c", "d"])
        found = await store.asimilarity_search_with_score("old snow", k=4)
        assert [(d.id, score) for d, score in found] == [("c", 2.0), ("d", 1.0)]
        await store.adelete(ids=["c"])
        assert texts(await store.asimilarity_search("old snow", k=4)) == [TEXTS[3]]

    asyncio.run(asyncio.wait_for(work(), 60))
