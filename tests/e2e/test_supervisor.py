"""`firndb serve` on Kafka: one command, every role a supervised process.

At stake: a role that died and stays dead without anybody noticing, and roles that go on writing
when the command that started them is gone.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
import pytest

from tests.e2e.deployments import Deployment, distributed
from tests.e2e.ledger import DIMENSION, answered, values

ROLES = ("builder", "freshness")
LOOKS_MAX = 600
LOOK_S = 0.1


def roles_of(deployment: Deployment) -> dict[str, int]:
    """The supervised processes that run now."""
    assert deployment.process.process is not None
    parent = deployment.process.process.pid
    found: dict[str, int] = {}
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        found |= {role: int(pid) for role in ROLES if role in words}
    return found


def runs(pid: int) -> bool:
    """A process that nobody has waited for yet counts as ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_until(true: Callable[[], bool]) -> None:
    for _ in range(LOOKS_MAX):
        if true():
            return
        time.sleep(LOOK_S)
    raise AssertionError("that never came true")


async def write_and_see(client: httpx.AsyncClient, record: str) -> None:
    vector = values(record, 1)
    body = {"vectors": [{"id": record, "values": vector}]}
    (await client.post("/vectors/upsert", json=body)).raise_for_status()
    found = await answered(client, "POST", "/query", json={"vector": vector, "topK": 100})
    assert record in {m["id"] for m in found["matches"]}


@pytest.mark.timeout(600)
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
def test_a_dead_role_is_started_again_and_none_outlives_the_command(
    tmp_path: Path, service_settings: Mapping[str, str]
) -> None:
    with distributed(tmp_path, service_settings) as deployment:
        host = deployment.create_index("supervised", DIMENSION)
        first = roles_of(deployment)
        assert set(first) == set(ROLES)

        async def kill_each_role() -> None:
            async with deployment.data_client(host) as client:
                await write_and_see(client, "before")
                for role in ROLES:
                    os.kill(first[role], signal.SIGKILL)
                    await write_and_see(client, f"after the death of a {role}")

        asyncio.run(kill_each_role())
        wait_until(lambda: set(roles_of(deployment)) == set(ROLES))
        second = roles_of(deployment)
        assert not set(first.values()) & set(second.values())
        deployment.process.kill()
        wait_until(lambda: not any(runs(pid) for pid in second.values()))

        deployment.restart()

        async def look() -> None:
            async with deployment.data_client(host) as client:
                await write_and_see(client, "again")

        asyncio.run(look())
        assert deployment.process.stop() == 0
