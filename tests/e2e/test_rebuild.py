"""`firndb rebuild`: the log alone gives the same answers, to the last digit.

At stake: the promise that files can be thrown away, because the log is the truth. Meanwhile queries
and writes go on, and nothing of them is lost.
"""

import asyncio
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.commands import complaint, told
from tests.e2e.deployments import Deployment, distributed, embedded
from tests.e2e.ledger import DIMENSION, Ledger, answered, values
from tests.e2e.processes import KEY

QUIET = "quiet"
RECORDS = 400
QUERIES = 200
WORKERS = 3
COLORS = ["red", "green", "blue"]
PARTITIONS = {"FIRNDB_PARTITIONS": "4"}


def fill(client: httpx.Client) -> None:
    """A namespace with a past: overwritten, updated and deleted records, in many small writes."""
    source = random.Random(7)

    def write(path: str, **body: Any) -> None:
        client.post(path, json={**body, "namespace": QUIET}).raise_for_status()

    for first in range(0, RECORDS, 40):
        vectors = [
            {
                "id": f"r{n:03}",
                "values": values(f"r{n}", first),
                "metadata": {"color": source.choice(COLORS), "n": n},
            }
            for n in range(max(0, first - 15), first + 40)
        ]
        write("/vectors/upsert", vectors=vectors)
        write("/vectors/update", id=f"r{first:03}", setMetadata={"touched": True})
        write("/vectors/delete", ids=[f"r{first + 3:03}", f"r{first + 7:03}"])
    write("/vectors/update", filter={"n": {"$lt": 30}}, setMetadata={"age": "old"})
    write("/vectors/delete", filter={"color": "blue", "n": {"$gte": 350}})


def questions() -> list[tuple[str, str, dict[str, Any], dict[str, str]]]:
    """200 of every kind that has one right answer: (method, path, body or parameters, headers)."""
    source = random.Random(8)
    conditions: list[dict[str, Any] | None] = [
        None,
        {"color": "red"},
        {"n": {"$gte": 100, "$lt": 200}},
        {"$or": [{"touched": True}, {"age": "old"}]},
    ]
    asked: list[tuple[str, str, dict[str, Any], dict[str, str]]] = []
    for number in range(QUERIES):
        body: dict[str, Any] = {"namespace": QUIET, "topK": source.choice([1, 10, 100])}
        if number % 5 == 4:
            names = [f"r{source.randrange(RECORDS):03}" for _ in range(20)]
            asked.append(("GET", "/vectors/fetch", {"ids": names, "namespace": QUIET}, {}))
            continue
        if number % 5 == 3:
            body["id"] = f"r{source.randrange(RECORDS):03}"
        else:
            body["vector"] = values("question", number)
        condition = source.choice(conditions)
        if condition is not None:
            body["filter"] = condition
        body |= {"includeMetadata": True, "includeValues": number % 2 == 0}
        asked.append(("POST", "/query", body, {"x-firndb-exhaustive": "true"}))
    return asked


async def answers(client: httpx.AsyncClient) -> list[str]:
    """As text, without what an answer cost."""
    texts = []
    for method, path, what, headers in questions():
        request = {"json" if method == "POST" else "params": what, "headers": headers}
        body = await answered(client, method, path, **request)
        del body["usage"]
        texts.append(json.dumps(body, sort_keys=path != "/query"))
    return texts


async def rebuilt_under_load(
    deployment: Deployment, host: str, ledger: Ledger, rebuild: Callable[[], Any]
) -> Any:
    """Rebuild while the ledger writes elsewhere and the same questions are asked again."""
    async with deployment.data_client(host) as client:
        before = await answers(client)
        assert any('"age": "old"' in text for text in before)
        stopping = asyncio.Event()
        load = asyncio.create_task(ledger.run(client, WORKERS, 1, stopping))
        rebuilding = asyncio.create_task(asyncio.to_thread(rebuild))
        while not rebuilding.done():
            assert await answers(client) == before, "while it is rebuilt"
        done = await rebuilding
        assert await answers(client) == before, "after it was rebuilt"
        stopping.set()
        await load
        await ledger.verify(client)
    return done


@contextmanager
def filled(deployment: Deployment, name: str) -> Iterator[str]:
    host = deployment.create_index(name, DIMENSION)
    with httpx.Client(base_url=host, headers={"Api-Key": KEY}, timeout=60) as client:
        fill(client)
    yield host


def wait_until_indexed(*arguments: str | Path, environment: Mapping[str, str] | None) -> None:
    """A namespace that no builder has written yet cannot be rebuilt."""
    for _ in range(60):
        rows = told("status", "again", *arguments, environment=environment)
        if any(row["namespace"] == QUIET and row["lag"] == 0 for row in rows):
            return
        time.sleep(0.5)
    raise AssertionError(f"{QUIET} is not indexed")


def data_files(folder: Path) -> set[Path]:
    """What a manifest names; manifests and registries are the small files of msgpack or JSON."""
    return {p for p in (folder / "objects").rglob("*") if p.is_file()}


@pytest.mark.timeout(600)
def test_beside_a_running_server(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    ledger = Ledger()
    data = tmp_path / "data"
    with embedded(tmp_path) as deployment, filled(deployment, "again") as host:
        wait_until_indexed("--data", data, environment=None)
        files = data_files(data)
        rows = asyncio.run(
            rebuilt_under_load(
                deployment, host, ledger, lambda: told("rebuild", "again", "--data", data)
            )
        )
        count = len({row["namespace"] for row in rows})
        assert count == len(rows)
        assert QUIET in {row["namespace"] for row in rows}
        assert data_files(data) - files, "nothing was built"
        line = complaint("rebuild", "nowhere", "--data", data)
        assert "nowhere" in line
    record_property("queries compared", QUERIES)
    record_property("acknowledged writes meanwhile", ledger.writes)


@pytest.mark.timeout(600)
def test_a_closed_folder_and_only_one_namespace(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with embedded(tmp_path) as deployment, filled(deployment, "again") as host:

        async def ask() -> list[str]:
            async with deployment.data_client(host) as client:
                return await answers(client)

        before = asyncio.run(ask())
        assert deployment.process.stop() == 0
        arguments = ["rebuild", "again", "--namespace", QUIET, "--data", str(data)]
        (row,) = told(*arguments, environment=PARTITIONS)
        (status,) = told("status", "again", "--data", data, environment=PARTITIONS)
        assert row["namespace"] == QUIET
        assert row["records"] == status["records"]
        deployment.restart()
        assert asyncio.run(ask()) == before


@pytest.mark.timeout(600)
def test_on_kafka(
    tmp_path: Path,
    service_settings: Mapping[str, str],
    record_property: Callable[[str, object], None],
) -> None:
    ledger = Ledger()
    environment = {**service_settings, "FIRNDB_DATA": str(tmp_path / "command")}
    with distributed(tmp_path, service_settings) as deployment, filled(deployment, "again") as host:
        wait_until_indexed(environment=environment)
        rows = asyncio.run(
            rebuilt_under_load(
                deployment,
                host,
                ledger,
                lambda: told("rebuild", "again", environment=environment),
            )
        )
        assert QUIET in {row["namespace"] for row in rows}
    record_property("queries compared", QUERIES)
    record_property("acknowledged writes meanwhile", ledger.writes)
