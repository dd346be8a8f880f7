"""`firndb recluster`: other files, the same answers to the last digit, beside a server and without.

At stake: that moving every row of a namespace loses none, while writes go on.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.e2e.commands import complaint, told
from tests.e2e.deployments import embedded
from tests.e2e.processes import KEY
from tests.e2e.test_rebuild import PARTITIONS, wait_until_indexed

# 1,107 live ones x 1,536 float32 are 6.8 MB, which one file is too small for.
DIMENSION = 1536
RECORDS = 1200
BATCH = 50
QUIET = "quiet"


def vector(seed: int) -> list[float]:
    drawn = np.random.default_rng(seed).normal(size=DIMENSION)
    return [round(value, 3) for value in drawn.tolist()]


def fill(client: httpx.Client) -> None:
    for start in range(0, RECORDS, BATCH):
        vectors = [
            {"id": f"r{n}", "values": vector(n), "metadata": {"n": n}}
            for n in range(start, start + BATCH)
        ]
        body = {"vectors": vectors, "namespace": QUIET}
        client.post("/vectors/upsert", json=body).raise_for_status()
    gone = [f"r{n}" for n in range(0, RECORDS, 13)]
    body = {"ids": gone, "namespace": QUIET}
    client.post("/vectors/delete", json=body).raise_for_status()


async def answers(client: httpx.AsyncClient) -> list[str]:
    texts = []
    for seed in range(5):
        body: dict[str, Any] = {"namespace": QUIET, "topK": 50, "vector": vector(10_000 + seed)}
        body["filter"] = {"n": {"$lt": 1000 - seed}}
        answer = await client.post("/query", json={**body, "includeMetadata": True})
        answer.raise_for_status()
        texts.append(json.dumps(answer.json()["matches"]))
    return texts


async def reclustered_under_load(client: httpx.AsyncClient, data: Path) -> Any:
    """Writes go to the same namespace meanwhile: far away, so that the answers stay."""
    before = await answers(client)
    work = asyncio.create_task(asyncio.to_thread(told, "recluster", "again", "--data", data))
    written = 0
    while not work.done():
        fresh = [{"id": f"w{written}", "values": vector(20_000), "metadata": {"n": 5000}}]
        body = {"vectors": fresh, "namespace": QUIET}
        (await client.post("/vectors/upsert", json=body)).raise_for_status()
        written += 1
        assert await answers(client) == before
    rows = await work
    assert await answers(client) == before
    found = await client.get(
        "/vectors/fetch", params={"ids": [f"w{n}" for n in range(written)], "namespace": QUIET}
    )
    assert len(found.json()["vectors"]) == written > 0
    return rows


@pytest.mark.long
@pytest.mark.timeout(300)
def test_beside_a_server_and_on_a_closed_folder(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with embedded(tmp_path) as deployment:
        host = deployment.create_index("again", DIMENSION)
        with httpx.Client(base_url=host, headers={"Api-Key": KEY}, timeout=60) as client:
            fill(client)
        wait_until_indexed("--data", data, environment=None)

        async def load() -> Any:
            async with deployment.data_client(host) as client:
                return await reclustered_under_load(client, data)

        async def ask() -> list[str]:
            async with deployment.data_client(host) as client:
                return await answers(client)

        (row,) = asyncio.run(load())
        assert row["namespace"] == QUIET
        assert row["clusters"] >= 2
        before = asyncio.run(ask())
        assert "nowhere" in complaint("recluster", "nowhere", "--data", data)
        assert deployment.process.stop() == 0
        arguments = ["recluster", "again", "--namespace", QUIET, "--data", str(data)]
        (again,) = told(*arguments, environment=PARTITIONS)
        assert again["version"] > row["version"]
        assert again["clusters"] >= 2
        deployment.restart()
        assert asyncio.run(ask()) == before
