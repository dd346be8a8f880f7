"""`kill -9` of the embedded server at random moments under load.

At stake: an acknowledged write is never lost, nothing deleted comes back, counts are exact,
whatever the server was doing: committing to the log, flushing, compacting, answering.
"""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.deployments import Deployment, embedded
from tests.e2e.ledger import DIMENSION, Ledger

WORKERS = 6


async def one_life(deployment: Deployment, host: str, ledger: Ledger, seed: int) -> None:
    """Check what the last life left, write under load, kill at a random moment."""
    async with deployment.data_client(host) as client:
        await ledger.verify(client)
        load = asyncio.create_task(ledger.run(client, WORKERS, seed))
        await asyncio.sleep(random.Random(seed).uniform(0.05, 1.5))
        deployment.process.kill()
        await load


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kills", [6, pytest.param(50, marks=pytest.mark.long)])
def test_no_kill_loses_or_revives_a_record(
    tmp_path: Path, kills: int, record_property: Callable[[str, object], None]
) -> None:
    ledger = Ledger()
    with embedded(tmp_path) as deployment:
        host = deployment.create_index("kills", DIMENSION)
        for life in range(kills):
            asyncio.run(one_life(deployment, host, ledger, seed=life))
            deployment.restart()

        async def last_look() -> None:
            async with deployment.data_client(host) as client:
                await ledger.verify(client)

        asyncio.run(last_look())
    assert ledger.writes > kills, "the load wrote next to nothing, so the test showed nothing"
    record_property("kills", kills)
    record_property("acknowledged writes", ledger.writes)
