"""`kill -9` of the embedded server at random moments under load.

At stake: an acknowledged write is never lost, nothing deleted comes back, counts are exact,
whatever the server was doing: committing to the log, flushing, compacting, answering.
"""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.e2e.crowd import SETTINGS, Crowd, compactions, until_compacting
from tests.e2e.deployments import Deployment, embedded
from tests.e2e.ledger import DIMENSION, Ledger

WORKERS = 6


async def one_life(
    deployment: Deployment, host: str, ledger: Ledger, crowd: Crowd, seed: int
) -> int:
    """Check what the last life left, write under load, kill at a random moment; compactions."""
    async with deployment.data_client(host) as client:
        await look(client, ledger, crowd, seed)
        load = asyncio.create_task(ledger.run(client, WORKERS, seed))
        churn = asyncio.create_task(crowd.churn(client, seed, asyncio.Event()))
        if crowd.size:
            await until_compacting(client, deployment.url)
        await asyncio.sleep(random.Random(seed).uniform(0.05, 1.5))
        done = await compactions(client, deployment.url)
        deployment.process.kill()
        await asyncio.gather(load, churn)
    return done


async def look(client: httpx.AsyncClient, ledger: Ledger, crowd: Crowd, seed: int) -> None:
    await crowd.verify(client, min(500, crowd.size), seed)
    await ledger.verify(client, crowd.count)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("kills", "records"),
    [
        (6, 0),
        pytest.param(50, 0, marks=pytest.mark.long),
        pytest.param(50, 100_000, marks=pytest.mark.long),
    ],
)
def test_no_kill_loses_or_revives_a_record(
    tmp_path: Path, kills: int, records: int, record_property: Callable[[str, object], None]
) -> None:
    """With many records the namespace has clusters, and compaction runs when it is killed."""
    ledger, crowd, compacted = Ledger(), Crowd(records), 0
    with embedded(tmp_path, SETTINGS) as deployment:
        host = deployment.create_index("kills", DIMENSION)

        async def first() -> None:
            async with deployment.data_client(host) as client:
                await crowd.load(client)

        asyncio.run(first())
        for life in range(kills):
            compacted += asyncio.run(one_life(deployment, host, ledger, crowd, seed=life))
            deployment.restart()

        async def last_look() -> None:
            async with deployment.data_client(host) as client:
                await crowd.verify(client, min(5_000, records), -1)
                await look(client, ledger, crowd, kills)

        asyncio.run(last_look())
    assert ledger.writes > kills, "the load wrote next to nothing, so the test showed nothing"
    if records:
        assert compacted >= kills, "compaction hardly ran between the kills"
        record_property("records", records)
        record_property("compactions", compacted)
    record_property("kills", kills)
    record_property("acknowledged writes", ledger.writes + crowd.account.writes)
