"""Backups, collections and schedules with the official Pinecone client, against a running FirnDB.

Run as `client_suite.py` is; one module for every client version.
"""

import os
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pinecone
import pytest
from pinecone import Pinecone, PodSpec, ServerlessSpec

HOST = os.environ["PINECONE_CONTROLLER_HOST"]
MAJOR = int(pinecone.__version__.split(".")[0])
SPEC = ServerlessSpec(cloud="aws", region="us-east-1")
PODS = PodSpec(environment="us-east-1-aws", pod_type="p1.x1")
# Of 0.1 s.
TRIES = 600


@pytest.fixture
def client() -> Iterator[Any]:
    made = Pinecone(host=HOST)
    yield made
    for index in made.list_indexes():
        made.delete_index(index.name)


def fresh(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex[:8]}"


def filled(client: Any, spec: Any) -> str:
    """The name of a new index with two records of tenant `a` and one of the default namespace."""
    name = fresh("films")
    client.create_index(name, dimension=3, metric="cosine", spec=spec, tags={"team": "ice"})
    index = client.Index(host=client.describe_index(name).host)
    two = [{"id": "x", "values": [1.0, 0.0, 0.5]}, {"id": "y", "values": [0.0, 1.0, 0.5]}]
    index.upsert(vectors=two, namespace="a")
    index.upsert(vectors=[{"id": "z", "values": [1.0, 1.0, 1.0], "metadata": {"k": "v"}}])
    return name


def check_filled(client: Any, name: str) -> None:
    index = client.Index(host=client.describe_index(name).host)
    assert index.describe_index_stats().total_vector_count == 3
    assert sorted(index.fetch(ids=["x", "y", "z"], namespace="a").vectors) == ["x", "y"]
    assert index.fetch(ids=["z"]).vectors["z"].metadata == {"k": "v"}
    found = index.query(vector=[1.0, 0.0, 0.5], top_k=2, namespace="a")
    assert [match.id for match in found.matches] == ["x", "y"]


def until_ready(describe: Callable[[], Any]) -> Any:
    for _ in range(TRIES):
        found = describe()
        if found.status == "Ready":
            return found
        assert found.status == "Initializing"
        time.sleep(0.1)
    raise AssertionError(f"it is {found.status}")


def back_up(client: Any, index: str) -> Any:
    if MAJOR == 7:
        made = client.create_backup(index_name=index, backup_name="mine", description="why")
        return until_ready(lambda: client.describe_backup(backup_id=made.backup_id))
    made = client.backups.create(index_name=index, name="mine", description="why")
    return until_ready(lambda: client.backups.describe(backup_id=made.backup_id))


def test_a_backup_brings_a_deleted_index_back(client: Any) -> None:
    name, again = filled(client, SPEC), fresh("again")
    backup = back_up(client, name)
    assert (backup.source_index_name, backup.name, backup.record_count) == (name, "mine", 3)
    assert (backup.cloud, backup.region, backup.namespace_count) == ("aws", "us-east-1", 2)
    client.delete_index(name)
    client.create_index_from_backup(name=again, backup_id=backup.backup_id)
    check_filled(client, again)
    jobs = client.list_restore_jobs() if MAJOR == 7 else client.restore_jobs.list()
    (job,) = [one for one in jobs if one.target_index_name == again]
    assert (job.status, job.backup_id, job.percent_complete) == (
        *("Completed", backup.backup_id, 100.0),
    )
    listed = client.list_backups() if MAJOR == 7 else client.backups.list()
    assert backup.backup_id in [one.backup_id for one in listed]
    if MAJOR == 7:
        client.delete_backup(backup_id=backup.backup_id)
    else:
        client.backups.delete(backup_id=backup.backup_id)
    check_filled(client, again)


@pytest.mark.skipif(MAJOR >= 10, reason="newer clients do not make indexes from collections")
def test_an_index_from_a_collection(client: Any) -> None:
    name, collection, again = filled(client, PODS), fresh("frozen"), fresh("thawed")
    if MAJOR == 7:
        client.create_collection(collection, name)
    else:
        client.collections.create(name=collection, source=name)

    def describe() -> Any:
        if MAJOR == 7:
            return _Attributes(client.describe_collection(collection))
        return client.collections.describe(collection)

    assert until_ready(describe).vector_count == 3
    client.delete_index(name)
    spec = PodSpec(environment="us-east-1-aws", pod_type="p1.x1", source_collection=collection)
    client.create_index(again, dimension=3, metric="cosine", spec=spec)
    check_filled(client, again)
    if MAJOR == 7:
        client.delete_collection(collection)
    else:
        client.collections.delete(collection)


class _Attributes:
    """Client 7 describes collections as dicts."""

    def __init__(self, found: dict[str, Any]) -> None:
        self.status, self.vector_count = found["status"], found.get("vector_count")


@pytest.mark.skipif(MAJOR < 10, reason="older clients have no schedules")
def test_the_life_of_a_schedule(client: Any) -> None:
    name = filled(client, SPEC)
    schedules = client.backup_schedules
    made = schedules.create(index_name=name, name="nightly", frequency="daily", retention_days=3)
    assert made.enabled
    assert made.next_scheduled_run > made.created_at
    listed = list(schedules.iter_schedules(index_name=name, limit=500))
    assert [one.schedule_id for one in listed] == [made.schedule_id]
    assert list(schedules.iter_history(schedule_id=made.schedule_id)) == []
    changed = schedules.update(
        schedule_id=made.schedule_id, frequency="weekly", retention_days=9, enabled=False
    )
    assert (changed.frequency, changed.retention_expire_after_days) == ("weekly", 9)
    assert changed.next_scheduled_run is None
    schedules.delete(schedule_id=made.schedule_id)
    assert list(schedules.list(index_name=name)) == []
