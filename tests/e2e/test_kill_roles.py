"""`kill -9` of each role of the distributed deployment under load.

At stake: the same as for the embedded server, with three processes that can die one by one. While
one is dead the others go on: writes are acknowledged without builder and freshness, and reads that
cannot see them say so.
"""

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping

import httpx
import pytest

from tests.e2e.crowd import SETTINGS, Crowd, compactions, until_compacting
from tests.e2e.deployments import Roles, roles
from tests.e2e.ledger import DIMENSION, NAMESPACE, Ledger, answered, values
from tests.e2e.topics import wait_until_quiet

WORKERS = 6
ROLES = ["api", "builder", "freshness"]


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, service_settings: Mapping[str, str]
) -> Iterator[Roles]:
    settings = {**service_settings, **SETTINGS}
    with roles(tmp_path_factory.mktemp("roles"), settings) as started:
        yield started


async def one_kill(
    running: Roles, role: str, host: str, ledger: Ledger, crowd: Crowd, seed: int
) -> int:
    """Write under load, kill the role at a random moment, go on without it for a while. How many
    compactions the builder had committed just before, since its start.
    """
    source = random.Random(seed)
    stopping = asyncio.Event()
    async with running.deployment.data_client(host) as client:
        load = asyncio.create_task(ledger.run(client, WORKERS, seed, stopping))
        churn = asyncio.create_task(crowd.churn(client, seed, stopping))
        if crowd.size:
            await until_compacting(client, builder_url(running))
        await asyncio.sleep(source.uniform(0.3, 2.0))
        done = await compactions(client, builder_url(running))
        await asyncio.to_thread(running.processes[role].kill)
        await asyncio.sleep(source.uniform(0.0, 1.0))
        stopping.set()
        await asyncio.gather(load, churn)
    return done


def builder_url(running: Roles) -> str:
    return running.processes["builder"].ready_url.removesuffix("/readyz")


async def look(running: Roles, host: str, ledger: Ledger, crowd: Crowd, seed: int) -> None:
    async with running.deployment.data_client(host) as client:
        await crowd.verify(client, min(500, crowd.size), seed)
        await ledger.verify(client, crowd.count)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("kills", "records"),
    [
        (2, 0),
        pytest.param(10, 0, marks=pytest.mark.long),
        pytest.param(10, 100_000, marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("role", ROLES)
def test_no_kill_loses_or_revives_a_record(
    running: Roles,
    service_settings: Mapping[str, str],
    role: str,
    kills: int,
    records: int,
    record_property: Callable[[str, object], None],
) -> None:
    """With many records the namespace has clusters, and compaction runs when a role is killed."""
    ledger, crowd, compacted = Ledger(), Crowd(records), 0
    host = running.deployment.create_index(f"kill-{role}-{kills}-{records}", DIMENSION)

    async def first() -> int:
        async with running.deployment.data_client(host) as client:
            await crowd.load(client)
            return await compactions(client, builder_url(running))

    counted = asyncio.run(first())
    for number in range(kills):
        done = asyncio.run(one_kill(running, role, host, ledger, crowd, seed=number))
        compacted, counted = compacted + done - counted, 0 if role == "builder" else done
        running.restart(role)
        wait_until_quiet(service_settings)
        asyncio.run(look(running, host, ledger, crowd, number))
    assert ledger.writes > kills, "the load wrote next to nothing, so the test showed nothing"
    if records:
        assert compacted >= kills, "compaction hardly ran between the kills"
        record_property("records", records)
        record_property("compactions", compacted)
    record_property("kills", kills)
    record_property("acknowledged writes", ledger.writes + crowd.account.writes)


@pytest.mark.timeout(900)
def test_without_freshness_reads_say_that_they_are_stale(running: Roles) -> None:
    """A write is acknowledged all the same; who wants to see it for sure gets an error."""
    host = running.deployment.create_index("without-freshness", DIMENSION)
    vector = values("r", 1)

    async def story() -> None:
        async with running.deployment.data_client(host) as client:
            await upsert(client, "before")
            await answered(client, "POST", "/query", json=query(vector))
            await asyncio.to_thread(running.processes["builder"].kill)
            await asyncio.to_thread(running.processes["freshness"].kill)
            await upsert(client, "after")
            stale = await client.post("/query", json=query(vector))
            assert stale.status_code == 200
            assert stale.headers["x-firndb-stale"] == "true"
            assert "after" not in {m["id"] for m in stale.json()["matches"]}
            strong = await client.post(
                "/query", json=query(vector), headers={"x-firndb-consistency": "strong"}
            )
            assert strong.status_code in (503, 504)
            assert "retry-after" in strong.headers
            await asyncio.to_thread(running.restart, "freshness")
            await asyncio.to_thread(running.restart, "builder")
            current = await answered(client, "POST", "/query", json=query(vector))
            assert {m["id"] for m in current["matches"]} == {"before", "after"}

    asyncio.run(story())


async def upsert(client: httpx.AsyncClient, record: str) -> None:
    body = {"vectors": [{"id": record, "values": values(record, 1)}], "namespace": NAMESPACE}
    (await client.post("/vectors/upsert", json=body)).raise_for_status()


def query(vector: list[float]) -> dict[str, object]:
    return {"vector": vector, "topK": 10, "namespace": NAMESPACE}
