"""What the official Pinecone client does with indexes of every kind, with keys, and at quotas.

One module for every client version.

Run by tests/e2e/test_control_plane.py with the interpreter of a client's own environment. The
server lets a project have four indexes. `FIRN_READ_WRITE_KEY`: of a key that may only write
records. Nothing of FirnDB is imported.
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pinecone
import pytest
from pinecone import ByocSpec, Pinecone, PodSpec, ServerlessSpec

HOST = os.environ["PINECONE_CONTROLLER_HOST"]
KEY = os.environ["PINECONE_API_KEY"]
READ_WRITE_KEY = os.environ["FIRN_READ_WRITE_KEY"]
MAJOR = int(pinecone.__version__.split(".")[0])
SERVERLESS = ServerlessSpec(cloud="aws", region="us-east-1")
DEDICATED = {
    "mode": "Dedicated",
    "dedicated": {"node_type": "b1", "scaling": "Manual", "manual": {"shards": 1, "replicas": 2}},
}


@pytest.fixture
def client() -> Any:
    return Pinecone(api_key=KEY, host=HOST)


@contextmanager
def index(client: Any, spec: Any, **options: Any) -> Iterator[str]:
    name = f"control-{uuid.uuid4().hex[:12]}"
    client.create_index(name, dimension=3, metric="cosine", spec=spec, **options)
    try:
        yield name
    finally:
        client.configure_index(name, deletion_protection="disabled")
        client.delete_index(name)


@contextmanager
def refused(status: int, text: str) -> Iterator[None]:
    with pytest.raises(Exception, match=text) as raised:
        yield
    error: Any = raised.value
    assert getattr(error, "status_code", getattr(error, "status", None)) == status


def test_a_pod_index_serves_and_is_scaled_on_paper(client: Any) -> None:
    spec = PodSpec(environment="us-east1-gcp", pod_type="p1.x1", replicas=2, shards=1)
    with index(client, spec) as name:
        described = client.describe_index(name)
        assert described.status.ready
        pod = described.spec.pod
        assert (pod.environment, pod.pod_type, pod.replicas) == ("us-east1-gcp", "p1.x1", 2)
        assert (pod.shards, pod.pods) == (1, 2)
        data = client.Index(host=described.host)
        assert data.upsert(vectors=[{"id": "a", "values": [1.0, 0.0, 0.0]}]).upserted_count == 1
        assert data.query(vector=[1.0, 0.0, 0.0], top_k=1).matches[0].id == "a"
        client.configure_index(name, replicas=4, pod_type="p1.x2")
        pod = client.describe_index(name).spec.pod
        assert (pod.pod_type, pod.replicas, pod.pods) == ("p1.x2", 4, 4)
        with refused(400, "replicas must be between 1 and 1000"):
            client.configure_index(name, replicas=1001)


def test_a_byoc_index_says_where_it_would_be(client: Any) -> None:
    with index(client, ByocSpec(environment="aws-us-east-1-b921")) as name:
        assert client.describe_index(name).spec.byoc.environment == "aws-us-east-1-b921"


def test_only_pods_are_scaled(client: Any) -> None:
    with index(client, SERVERLESS) as name, refused(400, "pods"):
        client.configure_index(name, replicas=2)


@pytest.mark.skipif(MAJOR < 9, reason="this client does not send read_capacity")
def test_read_capacity_is_kept_and_changed(client: Any) -> None:
    spec = ServerlessSpec(cloud="aws", region="us-east-1", read_capacity=DEDICATED)
    with index(client, spec) as name:
        shown = client.describe_index(name).spec.serverless.read_capacity
        assert shown["mode"] == "Dedicated"
        assert shown["dedicated"]["node_type"] == "b1"
        assert shown["status"]["state"] == "Ready"
        assert shown["status"]["current_replicas"] == 2
        option = "serverless_read_capacity" if MAJOR == 9 else "read_capacity"
        client.configure_index(name, **{option: {"mode": "OnDemand"}})
        assert client.describe_index(name).spec.serverless.read_capacity["mode"] == "OnDemand"


def test_tags_merge_and_protection_protects(client: Any) -> None:
    with index(client, SERVERLESS, tags={"a": "1"}, deletion_protection="enabled") as name:
        client.configure_index(name, tags={"a": "", "b": "2"})
        described = client.describe_index(name)
        assert dict(described.tags.to_dict()) == {"b": "2"}
        assert described.deletion_protection == "enabled"
        with refused(403, "Deletion protection is enabled"):
            client.delete_index(name)


def test_a_project_has_only_so_many_indexes(client: Any) -> None:
    with (
        index(client, SERVERLESS),
        index(client, SERVERLESS),
        index(client, SERVERLESS),
        index(client, SERVERLESS),
        refused(403, r"You've reached the max indexes allowed in project default \(4\)"),
    ):
        client.create_index("fifth", dimension=3, metric="cosine", spec=SERVERLESS)


def test_a_key_for_records_does_not_change_indexes(client: Any) -> None:
    limited: Any = Pinecone(api_key=READ_WRITE_KEY, host=HOST)
    with index(client, SERVERLESS) as name:
        data = limited.Index(host=limited.describe_index(name).host)
        assert data.upsert(vectors=[{"id": "a", "values": [1.0, 0.0, 0.0]}]).upserted_count == 1
        with refused(403, "needs the role admin"):
            limited.delete_index(name)
        with refused(403, "needs the role admin"):
            limited.configure_index(name, tags={"a": "1"})
        with refused(403, "needs the role admin"):
            limited.create_index("no", dimension=3, metric="cosine", spec=SERVERLESS)


@pytest.mark.skipif(MAJOR < 10, reason="only its admin client can be pointed at another server")
def test_the_admin_client_manages_keys(client: Any) -> None:
    admin: Any = pinecone.Admin(
        client_id="any", client_secret=KEY, host=HOST, oauth_url=f"{HOST}/oauth/token"
    )
    (project,) = admin.projects.list()
    assert admin.projects.describe(project_id=project.id).name == "default"
    made = admin.api_keys.create(
        project_id=project.id, name="search", roles=[pinecone.APIKeyRole.DATA_PLANE_EDITOR]
    )
    assert made.key.role == "DataPlaneEditor"
    Pinecone(api_key=made.value, host=HOST).list_indexes()
    assert "search" in admin.api_keys.list(project_id=project.id).names()
    changed = admin.api_keys.update(api_key_id=made.key.id, name="x", roles=["ProjectViewer"])
    assert (changed.name, changed.role) == ("x", "ProjectViewer")
    assert admin.api_keys.describe(api_key_id=made.key.id).name == "x"
    admin.api_keys.delete(api_key_id=made.key.id)
    with refused(404, "not found"):
        admin.api_keys.describe(api_key_id=made.key.id)
    with refused(401, "Invalid API Key"):
        Pinecone(api_key=made.value, host=HOST).list_indexes()
