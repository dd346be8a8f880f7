"""pinecone-haystack's everyday work against a running FirnDB, steered by environment variables.

Run by tests/e2e/test_ecosystem.py with the package's own interpreter; nothing of FirnDB is
imported. The store makes its index by itself.
"""

import asyncio
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from haystack import Document, Pipeline
from haystack.document_stores.types import DuplicatePolicy
from haystack_integrations.components.retrievers.pinecone import PineconeEmbeddingRetriever
from haystack_integrations.document_stores.pinecone import PineconeDocumentStore
from pinecone import Pinecone

from tests.e2e.ecosystem.words import DIMENSION, embed


@pytest.fixture
def store() -> Iterator[PineconeDocumentStore]:
    name = f"haystack-{uuid.uuid4().hex[:12]}"
    yield PineconeDocumentStore(
        index=name, namespace="books", dimension=DIMENSION, show_progress=False
    )
    Pinecone().delete_index(name)


def document(name: str, text: str, **meta: Any) -> Document:
    return Document(id=name, content=text, meta=meta, embedding=embed(text))


def documents() -> list[Document]:
    return [
        document("d1", "the glacier moves", year=1990, kind="ice"),
        document("d2", "the river moves", year=2001, kind="water"),
        document("d3", "firn is old snow", year=2010, kind="ice"),
        document("d4", "snow falls on the glacier", year=2020, kind="ice", tags=["new", "cold"]),
    ]


def where(field: str, operator: str, value: Any) -> dict[str, Any]:
    return {"field": f"meta.{field}", "operator": operator, "value": value}


def ids(found: list[Document]) -> set[str]:
    return {d.id for d in found}


def test_write_count_and_retrieve_in_a_pipeline(store: PineconeDocumentStore) -> None:
    assert store.write_documents(documents()) == 4
    assert store.count_documents() == 4
    pipeline = Pipeline()
    pipeline.add_component("retriever", PineconeEmbeddingRetriever(document_store=store, top_k=2))
    answer = pipeline.run({"retriever": {"query_embedding": embed("old snow is firn")}})
    best = answer["retriever"]["documents"][0]
    assert (best.id, best.content, best.meta["year"]) == ("d3", "firn is old snow", 2010)
    assert best.score == pytest.approx(1.0, abs=1e-4)
    filters = {
        "operator": "AND",
        "conditions": [where("kind", "==", "ice"), where("year", ">", 1990)],
    }
    run = {"query_embedding": embed("the glacier moves"), "filters": filters, "top_k": 4}
    answer = pipeline.run({"retriever": run})
    assert ids(answer["retriever"]["documents"]) == {"d3", "d4"}


def test_filters(store: PineconeDocumentStore) -> None:
    store.write_documents(documents())
    expected: list[tuple[dict[str, Any], set[str]]] = [
        (where("kind", "==", "water"), {"d2"}),
        (where("kind", "!=", "ice"), {"d2"}),
        (where("year", ">=", 2010), {"d3", "d4"}),
        (where("year", "in", [1990, 2020]), {"d1", "d4"}),
        (where("kind", "not in", ["water"]), {"d1", "d3", "d4"}),
        (where("tags", "in", ["cold"]), {"d4"}),
    ]
    for filters, found in expected:
        assert ids(store.filter_documents(filters)) == found, filters
    assert ids(store.filter_documents()) == {"d1", "d2", "d3", "d4"}
    assert store.count_documents_by_filter(where("kind", "==", "ice")) == 3


def test_overwrite_update_and_delete(store: PineconeDocumentStore) -> None:
    store.write_documents(documents())
    store.write_documents(
        [document("d1", "a lake", year=1, kind="water")], policy=DuplicatePolicy.OVERWRITE
    )
    assert store.count_documents() == 4
    (lake,) = store.filter_documents(where("year", "==", 1))
    assert lake.content == "a lake"
    assert store.update_by_filter(where("kind", "==", "water"), {"kind": "wet"}) == 2
    assert ids(store.filter_documents(where("kind", "==", "wet"))) == {"d1", "d2"}
    assert store.delete_by_filter(where("kind", "==", "wet")) == 2
    store.delete_documents(["d3", "never-there"])
    assert ids(store.filter_documents()) == {"d4"}
    store.delete_all_documents()
    assert store.count_documents() == 0
    store.delete_all_documents()


def test_everything_asynchronous(store: PineconeDocumentStore) -> None:
    async def work() -> None:
        assert await store.write_documents_async(documents()) == 4
        retriever = PineconeEmbeddingRetriever(document_store=store, top_k=1)
        found = await retriever.run_async(query_embedding=embed("old snow is firn"))
        assert ids(found["documents"]) == {"d3"}
        assert ids(await store.filter_documents_async(where("kind", "==", "water"))) == {"d2"}
        await store.delete_documents_async(["d1"])
        assert await store.count_documents_async() == 3
        await store.delete_all_documents_async()
        assert await store.count_documents_async() == 0
        await store.close_async()

    asyncio.run(asyncio.wait_for(work(), 60))
