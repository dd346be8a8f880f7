"""`firndb snapshot`, `branch` and `restore` beside a server, on a closed folder and on Kafka.

At stake: a backup that lacks what a client was told is written, and a restore that the first query
after it does not see.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.commands import complaint, told
from tests.e2e.deployments import Deployment, distributed, embedded
from tests.e2e.ledger import DIMENSION, values
from tests.e2e.processes import KEY

INDEX = "films"


class Client:
    """A namespace's records by id, as queries and fetches see them."""

    def __init__(self, host: str) -> None:
        # After a start the port of an index opens some moments after the control plane's.
        waiting = httpx.HTTPTransport(retries=6)
        headers = {"Api-Key": KEY}
        self._http = httpx.Client(base_url=host, headers=headers, timeout=60, transport=waiting)

    def upsert(self, namespace: str, *names: str, seed: int = 0) -> int:
        """The LSN."""
        vectors = [{"id": n, "values": values(n, seed), "metadata": {"s": seed}} for n in names]
        answer = self._http.post(
            "/vectors/upsert", json={"namespace": namespace, "vectors": vectors}
        )
        answer.raise_for_status()
        return int(answer.headers["x-pinecone-request-lsn"])

    def delete(self, namespace: str, *names: str) -> None:
        body = {"namespace": namespace, "ids": names}
        self._http.post("/vectors/delete", json=body).raise_for_status()

    def drop(self, namespace: str) -> None:
        self._http.delete(f"/namespaces/{namespace}").raise_for_status()

    def seen(self, namespace: str) -> dict[str, Any]:
        """id -> seed; every query must say that it saw everything."""
        body = {"namespace": namespace, "topK": 1000, "vector": values("q", 0)}
        answer = self._http.post("/query", json={**body, "includeMetadata": True})
        answer.raise_for_status()
        return {match["id"]: match["metadata"]["s"] for match in answer.json()["matches"]}

    def close(self) -> None:
        self._http.close()


@contextmanager
def client_of(deployment: Deployment) -> Iterator[Client]:
    client = Client(deployment.create_index(INDEX, DIMENSION))
    try:
        yield client
    finally:
        client.close()


NAMES = [f"r{n}" for n in range(30)]
FIRST = dict.fromkeys(NAMES, 0)


def whole_story(client: Client, *where: str, environment: Mapping[str, str] | None = None) -> None:
    """Every command once; the first query after each sees what it did."""

    def ask(*arguments: str) -> Any:
        return told(*arguments, *where, environment=environment)

    client.upsert("n", *NAMES)
    (row,) = ask("snapshot", "create", INDEX, "--namespace", "n", "--name", "first")
    assert row["records"] == len(NAMES), "every acknowledged write is in it"
    before = datetime.now(UTC).isoformat()
    client.delete("n", "r0")
    lsn = client.upsert("n", "r1", "new", seed=1)
    later = {**FIRST, "r1": 1, "new": 1}
    del later["r0"]
    done = ask("branch", INDEX, "--namespace", "n", "--to", "b")
    assert done["records"] == len(later)
    assert client.seen("b") == later
    client.upsert("b", "only-b", seed=2)
    client.upsert("n", "only-n", seed=2)
    assert client.seen("b") == {**later, "only-b": 2}
    assert client.seen("n") == {**later, "only-n": 2}
    ask("restore", INDEX, "--namespace", "n", "--snapshot", "first", "--to", "old")
    assert client.seen("old") == FIRST
    ask("restore", INDEX, "--namespace", "n", "--to", "at-lsn", "--to-lsn", str(lsn))
    assert client.seen("at-lsn") == later
    ask("restore", INDEX, "--namespace", "n", "--to", "at-time", "--to-time", before)
    assert client.seen("at-time") == FIRST
    ask("snapshot", "delete", INDEX, "first")
    assert ask("snapshot", "list", INDEX) == []
    client.drop("n")
    assert client.seen("b") == {**later, "only-b": 2}
    assert client.seen("old") == FIRST


@pytest.mark.timeout(300)
def test_beside_a_running_server(tmp_path: Path) -> None:
    with embedded(tmp_path) as deployment, client_of(deployment) as client:
        data = str(tmp_path / "data")
        whole_story(client, "--data", data)
        command = ["branch", INDEX, "--namespace", "b", "--data", data]
        assert "is there already" in complaint(*command, "--to", "old")
        assert "nowhere" in complaint(*command, "--to", "x", "--to-index", "nowhere")
        assert "no namespace" in complaint("branch", INDEX, "--to", "x", "--data", data)
        restore = ["restore", INDEX, "--namespace", "b", "--to", "x", "--data", data]
        assert "snapshot list" in complaint(*restore, "--snapshot", "none")
        assert "no time" in complaint(*restore, "--to-time", "yesterday")
        deployment.create_index("other", DIMENSION + 1)
        assert "dimension" in complaint(*command, "--to", "x", "--to-index", "other")


@pytest.mark.timeout(300)
def test_a_closed_folder(tmp_path: Path) -> None:
    """After a kill, what is only in the log is indexed first by the command itself."""
    environment = {"FIRNDB_PARTITIONS": "4"}
    data = str(tmp_path / "data")
    with embedded(tmp_path) as deployment, client_of(deployment) as client:
        client.upsert("n", *NAMES)
        deployment.process.kill()
        ask = ["--data", data]
        (row,) = told("snapshot", "create", INDEX, "--name", "s", *ask, environment=environment)
        assert row["records"] == len(NAMES)
        told("branch", INDEX, "--namespace", "n", "--to", "b", *ask, environment=environment)
        arguments = ["--namespace", "n", "--snapshot", "s", "--to", "old"]
        told("restore", INDEX, *arguments, *ask, environment=environment)
        deployment.restart()
        assert client.seen("b") == client.seen("old") == client.seen("n") == FIRST


@pytest.mark.timeout(300)
def test_on_kafka(tmp_path: Path, service_settings: Mapping[str, str]) -> None:
    environment = {**service_settings, "FIRNDB_DATA": str(tmp_path / "command")}
    with distributed(tmp_path, service_settings) as deployment, client_of(deployment) as client:
        whole_story(client, environment=environment)
