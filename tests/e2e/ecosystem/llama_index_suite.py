"""llama-index-vector-stores-pinecone's everyday work against a running FirnDB.

Run by tests/e2e/test_ecosystem.py with the package's own interpreter, steered by environment
variables; nothing of FirnDB is imported. The client that it pins is below 10.
"""

import asyncio
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base_sparse import BaseSparseEmbedding
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
)
from llama_index.core.vector_stores.types import VectorStoreQueryMode
from llama_index.vector_stores.pinecone import PineconeVectorStore
from pinecone import Pinecone, ServerlessSpec

from tests.e2e.ecosystem.words import DIMENSION, embed, weigh

SPEC = ServerlessSpec(cloud="aws", region="us-east-1")


class Words(BaseEmbedding):
    def _get_text_embedding(self, text: str) -> list[float]:
        return embed(text)

    def _get_query_embedding(self, query: str) -> list[float]:
        return embed(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return embed(query)


class SparseWords(BaseSparseEmbedding):
    def _get_text_embedding(self, text: str) -> dict[int, float]:
        return weigh(text)

    def _get_query_embedding(self, query: str) -> dict[int, float]:
        return weigh(query)

    async def _aget_text_embedding(self, text: str) -> dict[int, float]:
        return weigh(text)

    async def _aget_query_embedding(self, query: str) -> dict[int, float]:
        return weigh(query)


@pytest.fixture
def index_name() -> Iterator[str]:
    client, name = Pinecone(), f"llama-{uuid.uuid4().hex[:12]}"
    client.create_index(name=name, dimension=DIMENSION, metric="dotproduct", spec=SPEC)
    yield name
    client.delete_index(name)


def node(name: str, text: str, document: str, **metadata: Any) -> TextNode:
    source = RelatedNodeInfo(node_id=document)
    return TextNode(
        id_=name,
        text=text,
        metadata=metadata,
        relationships={NodeRelationship.SOURCE: source},
        embedding=embed(text),
    )


def nodes() -> list[TextNode]:
    return [
        node("n1", "the glacier moves", "book", year=1990, kind="ice"),
        node("n2", "the river moves", "book", year=2001, kind="water"),
        node("n3", "firn is old snow", "paper", year=2010, kind="ice"),
        node("n4", "snow falls on the glacier", "paper", year=2020, kind="ice"),
    ]


def texts(found: Any) -> list[str]:
    return [n.text for n in found]


def where(key: str, value: Any, operator: FilterOperator = FilterOperator.EQ) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])


def test_add_query_and_filter(index_name: str) -> None:
    store = PineconeVectorStore(index_name=index_name)
    assert store.add(nodes()) == ["book#n1", "book#n2", "paper#n3", "paper#n4"]
    found = store.query(VectorStoreQuery(embed("old snow is firn"), similarity_top_k=2))
    assert found.ids[0] == "paper#n3"
    assert found.similarities[0] == pytest.approx(1.0, abs=1e-4)
    assert found.nodes[0].metadata == {"year": 2010, "kind": "ice"}
    assert found.nodes[0].ref_doc_id == "paper"
    assert found.nodes[0].embedding == pytest.approx(embed("firn is old snow"), abs=1e-6)
    condition = MetadataFilters(
        filters=[
            MetadataFilter(key="kind", value=["ice"], operator=FilterOperator.IN),
            MetadataFilter(key="year", value=2010, operator=FilterOperator.GTE),
        ],
        condition=FilterCondition.AND,
    )
    query = VectorStoreQuery(embed("the glacier moves"), similarity_top_k=4, filters=condition)
    assert set(store.query(query).ids) == {"paper#n3", "paper#n4"}


def test_an_index_of_documents_and_its_retriever(index_name: str) -> None:
    store = PineconeVectorStore(index_name=index_name, namespace="books")
    index = VectorStoreIndex.from_vector_store(store, embed_model=Words())
    index.insert_nodes(nodes())
    retriever = index.as_retriever(similarity_top_k=1)
    assert texts(n.node for n in retriever.retrieve("the river moves")) == ["the river moves"]
    filtered = index.as_retriever(similarity_top_k=4, filters=where("kind", "water"))
    assert texts(n.node for n in filtered.retrieve("snow")) == ["the river moves"]
    index.delete_ref_doc("paper")
    everything = index.as_retriever(similarity_top_k=9).retrieve("snow")
    assert set(texts(n.node for n in everything)) == {"the glacier moves", "the river moves"}


def test_nodes_by_filter_then_gone(index_name: str) -> None:
    """`get_nodes` asks with a vector of zeros."""
    store = PineconeVectorStore(index_name=index_name)
    store.add(nodes())
    found = store.get_nodes(filters=where("year", 2001, FilterOperator.GT))
    assert set(texts(found)) == {"firn is old snow", "snow falls on the glacier"}
    store.delete_nodes(node_ids=["paper#n3"])
    store.delete_nodes(filters=where("kind", "water"))
    left = store.get_nodes(filters=where("year", 0, FilterOperator.GT))
    assert set(texts(left)) == {"the glacier moves", "snow falls on the glacier"}
    store.clear()
    assert store.get_nodes(filters=where("year", 0, FilterOperator.GT)) == []


def test_ids_of_a_document_are_listed(index_name: str) -> None:
    store = PineconeVectorStore(index_name=index_name)
    store.add(nodes())
    (page,) = list(store.client.list(prefix="book#"))
    listed = [entry if isinstance(entry, str) else entry.id for entry in page]
    assert listed == ["book#n1", "book#n2"]
    store.delete(ref_doc_id="book")
    assert [entry for page in store.client.list(prefix="book#") for entry in page] == []


def test_hybrid_and_sparse_queries(index_name: str) -> None:
    store = PineconeVectorStore(
        index_name=index_name, add_sparse_vector=True, sparse_embedding_model=SparseWords()
    )
    store.add(nodes())
    hybrid = VectorStoreQuery(
        query_embedding=embed("the river moves"),
        query_str="firn",
        similarity_top_k=2,
        mode=VectorStoreQueryMode.HYBRID,
        alpha=0.5,
    )
    found = dict(zip((result := store.query(hybrid)).ids, result.similarities, strict=True))
    assert found["book#n2"] == pytest.approx(0.5, abs=1e-4)
    assert set(found) == {"book#n2", "paper#n3"}
    sparse = VectorStoreQuery(
        query_str="firn", similarity_top_k=1, mode=VectorStoreQueryMode.SPARSE
    )
    result = store.query(sparse)
    assert result.ids == ["paper#n3"]
    assert result.similarities == [1.0]


def test_everything_asynchronous(index_name: str) -> None:
    async def work() -> None:
        store = PineconeVectorStore(index_name=index_name)
        await store.async_add(nodes())
        index = VectorStoreIndex.from_vector_store(store, embed_model=Words())
        found = await index.as_retriever(similarity_top_k=1).aretrieve("firn is old snow")
        assert texts(n.node for n in found) == ["firn is old snow"]
        query = VectorStoreQuery(embed("snow"), similarity_top_k=9, filters=where("kind", "ice"))
        assert len((await store.aquery(query)).ids) == 3
        await store.adelete("paper")
        assert (await store.aquery(query)).ids == ["book#n1"]

    asyncio.run(asyncio.wait_for(work(), 60))
