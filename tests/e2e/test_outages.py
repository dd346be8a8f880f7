"""The broker, the object store or the database dies under load, and comes back.

At stake: nothing is acknowledged that is not in the log; what was acknowledged is there afterwards;
every role goes on by itself.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping

import httpx
import pytest

from infra.services.service import Service
from tests.e2e.deployments import Deployment, distributed
from tests.e2e.ledger import DIMENSION, NAMESPACE, Ledger, values
from tests.e2e.topics import wait_until_quiet

WORKERS = 4
LOAD_S = 1.5


@pytest.fixture(scope="module")
def deployment(
    tmp_path_factory: pytest.TempPathFactory, service_settings: Mapping[str, str]
) -> Iterator[Deployment]:
    with distributed(tmp_path_factory.mktemp("outages"), service_settings) as served:
        yield served


def upsert(record: str) -> dict[str, object]:
    vector = {"id": record, "values": values(record, 1), "metadata": {"version": 1}}
    return {"vectors": [vector], "namespace": NAMESPACE}


async def through_an_outage(
    deployment: Deployment,
    host: str,
    service: Service,
    settings: Mapping[str, str],
    meanwhile: Callable[[httpx.AsyncClient], Awaitable[None]],
) -> Ledger:
    """Load, the service dies, `meanwhile`, it comes back; then all must be as it was told."""
    ledger = Ledger()
    async with deployment.data_client(host) as client:
        stopping = asyncio.Event()
        load = asyncio.create_task(ledger.run(client, WORKERS, 1, stopping))
        await asyncio.sleep(LOAD_S)
        service.kill()
        try:
            await meanwhile(client)
        finally:
            await asyncio.to_thread(service.start)
        stopping.set()
        await load
        await asyncio.to_thread(wait_until_quiet, settings)
        await ledger.verify(client)
        await client.post("/vectors/upsert", json=upsert("after"))
    assert ledger.writes > WORKERS
    return ledger


@pytest.mark.timeout(300)
def test_without_the_broker_nothing_is_acknowledged(
    deployment: Deployment, service_settings: Mapping[str, str], kafka_service: Service
) -> None:
    """503 with Retry-After, never 200; and reads say that they may be stale."""

    async def meanwhile(client: httpx.AsyncClient) -> None:
        refused = await client.post("/vectors/upsert", json=upsert("never"))
        assert refused.status_code == 503, refused.text
        assert "retry-after" in refused.headers
        body = {"vector": values("never", 1), "topK": 3, "namespace": NAMESPACE}
        read = await client.post("/query", json=body)
        assert read.status_code == 200
        assert read.headers["x-firndb-stale"] == "true"

    host = deployment.create_index("no-broker", DIMENSION)
    asyncio.run(through_an_outage(deployment, host, kafka_service, service_settings, meanwhile))


@pytest.mark.timeout(300)
def test_without_the_object_store_writes_go_on(
    deployment: Deployment, service_settings: Mapping[str, str], s3_service: Service
) -> None:
    """The log is what makes a write durable; flushes wait for the store and are done later."""

    async def meanwhile(client: httpx.AsyncClient) -> None:
        ids = [f"meanwhile-{number}" for number in range(20)]
        for record in ids:
            answer = await client.post("/vectors/upsert", json=upsert(record))
            assert answer.status_code == 200, answer.text
        answer = await client.post("/vectors/delete", json={"ids": ids, "namespace": NAMESPACE})
        assert answer.status_code == 200, answer.text

    host = deployment.create_index("no-store", DIMENSION)
    asyncio.run(through_an_outage(deployment, host, s3_service, service_settings, meanwhile))


@pytest.mark.timeout(300)
def test_without_the_database_the_data_plane_goes_on(
    deployment: Deployment, service_settings: Mapping[str, str], postgres_service: Service
) -> None:
    """Known keys and indexes are served from memory; only the control plane is away."""

    async def meanwhile(client: httpx.AsyncClient) -> None:
        assert (await client.post("/vectors/upsert", json=upsert("seen"))).status_code == 200
        ids = {"ids": ["seen"], "namespace": NAMESPACE}
        found = await client.get("/vectors/fetch", params=ids)
        assert set(found.json()["vectors"]) == {"seen"}
        deleted = await client.post("/vectors/delete", json=ids)
        assert deleted.status_code == 200
        with deployment.control() as control:
            assert control.get("/indexes").status_code == 503

    host = deployment.create_index("no-database", DIMENSION)
    asyncio.run(through_an_outage(deployment, host, postgres_service, service_settings, meanwhile))


def test_the_log_of_the_deployment_shows_no_traceback(deployment: Deployment) -> None:
    """Outages are told in lines for people. Runs last in this module."""
    assert "Traceback" not in deployment.process.log.read_text()
