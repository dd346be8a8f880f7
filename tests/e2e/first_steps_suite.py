"""What somebody who comes from Pinecone types first, word for word, against a running FirnDB.

Run by tests/e2e/test_first_steps.py with a client's own interpreter; the environment says where
FirnDB is and which certificate to trust, and nothing else is set. README.md shows the same calls.
"""

import time
from collections.abc import Iterator
from typing import Any

import pinecone
import pytest
from pinecone import ForbiddenException, NotFoundException, PodSpec, ServerlessSpec
from pinecone.grpc import PineconeGRPC as Pinecone

MAJOR = int(pinecone.__version__.split(".")[0])
pc: Any = Pinecone()


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Every test leaves nothing behind."""
    yield
    for index in list(pc.list_indexes()):
        pc.delete_index(index.name)
    for collection in list(pc.list_collections()):
        pc.delete_collection(collection.name)


def test_a_serverless_index() -> None:
    pc.create_index(
        name="docs-example",
        dimension=1536,
        metric="cosine",
        spec=ServerlessSpec(cloud="aws", region="us-east-1"),
        deletion_protection="disabled",
        tags={"environment": "development"},
    )
    described = pc.describe_index("docs-example")
    assert described.status.ready
    assert (described.dimension, described.metric) == (1536, "cosine")
    assert described.tags["environment"] == "development"
    assert described.spec.serverless.region == "us-east-1"


def test_a_pod_based_index() -> None:
    pc.create_index(
        name="docs-example2",
        dimension=1536,
        metric="cosine",
        spec=PodSpec(environment="us-west1-gcp", pod_type="p1.x1", pods=1),
        deletion_protection="disabled",
    )
    described = pc.describe_index("docs-example2")
    assert described.status.ready
    assert described.spec.pod.pod_type == "p1.x1"
    assert described.spec.pod.environment == "us-west1-gcp"


@pytest.mark.skipif(MAJOR >= 10, reason="this client refuses a PodSpec with source_collection")
def test_an_index_from_a_collection() -> None:
    pods = PodSpec(environment="us-west1-gcp", pod_type="p1.x1", pods=1)
    pc.create_index(name="docs-example2", dimension=3, metric="cosine", spec=pods)
    pc.Index("docs-example2").upsert(
        vectors=[{"id": "A", "values": [0.1, 0.2, 0.3], "metadata": {"genre": "drama"}}]
    )
    pc.create_collection("example-collection", "docs-example2")
    for _ in range(300):
        if pc.describe_collection("example-collection").status == "Ready":
            break
        time.sleep(0.1)
    pc.create_index(
        name="docs-example3",
        dimension=3,
        metric="cosine",
        spec=PodSpec(
            environment="us-west1-gcp",
            pod_type="p1.x1",
            pods=1,
            source_collection="example-collection",
        ),
    )
    fetched = pc.Index("docs-example3").fetch(ids=["A"])
    assert fetched.vectors["A"].metadata == {"genre": "drama"}


def test_deletion_protection_stops_a_deletion() -> None:
    pc.create_index(
        name="docs-example",
        dimension=3,
        metric="cosine",
        spec=ServerlessSpec(cloud="aws", region="us-east-1"),
        deletion_protection="enabled",
    )
    with pytest.raises(ForbiddenException, match=r"(?i)deletion protection"):
        pc.delete_index("docs-example")
    assert pc.has_index("docs-example")
    pc.configure_index(name="docs-example", deletion_protection="disabled")
    pc.delete_index("docs-example")
    assert not pc.has_index("docs-example")


def test_tenants_in_namespaces() -> None:
    pc.create_index(
        name="multitenant-app",
        dimension=8,
        metric="cosine",
        spec=ServerlessSpec(cloud="aws", region="us-east-1"),
    )
    index = pc.Index("multitenant-app")
    index.upsert(
        vectors=[
            {"id": "A", "values": [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]},
            {"id": "B", "values": [0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2]},
            {"id": "C", "values": [0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]},
            {"id": "D", "values": [0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]},
        ],
        namespace="tenant1",
    )
    index.upsert(
        vectors=[
            {"id": "E", "values": [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]},
            {"id": "F", "values": [0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6]},
            {"id": "G", "values": [0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7]},
            {"id": "H", "values": [0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8]},
        ],
        namespace="tenant2",
    )
    index.update(id="A", values=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], namespace="tenant1")
    updated = index.fetch(ids=["A"], namespace="tenant1").vectors["A"]
    assert list(updated.values) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])

    found = index.query(
        namespace="tenant2",
        vector=[0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7],
        top_k=3,
        include_values=True,
    )
    assert len(found.matches) == 3
    assert {m.id for m in found.matches} < {"E", "F", "G", "H"}

    index.delete(delete_all=True, namespace="tenant1")
    assert index.query(namespace="tenant1", vector=[0.1] * 8, top_k=3).matches == []
    index.delete_namespace(namespace="tenant1")
    assert set(index.describe_index_stats().namespaces) == {"tenant2"}
    with pytest.raises(NotFoundException):
        index.describe_namespace(namespace="tenant1")
