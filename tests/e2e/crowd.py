"""A hundred thousand records beside those of a ledger, in the same namespace and always changing.

They make the namespace one of many clusters, so that compaction runs while processes are killed.
What they must be is in an account of their own; of so many only a sample is looked at each time.
"""

import asyncio
import random
from dataclasses import dataclass, field

import httpx

from tests.e2e.ledger import DELETE, NAMESPACE, Ledger, State, values

LOADED_AT_ONCE = 500
CHANGED_AT_ONCE = 300
DELETED_AT_ONCE = 40
COMPACTING_TRIES = 1800  # of 0.1 s
# Rows of 32 bytes: some fifty clusters of 2,000 rows.
SETTINGS = {"FIRNDB_CLUSTER_BYTES": str(64 << 10)}


@dataclass
class Crowd:
    """Records `c0`, `c1` ..., told apart from the ledger's by a field."""

    size: int
    account: Ledger = field(default_factory=Ledger)

    @property
    def count(self) -> int:
        """How many of them are there; nothing may be unsure."""
        return sum(version is not None for version in self.account.acknowledged.values())

    async def load(self, client: httpx.AsyncClient) -> None:
        for first in range(0, self.size, LOADED_AT_ONCE):
            names = [f"c{n}" for n in range(first, min(first + LOADED_AT_ONCE, self.size))]
            assert await self._upsert(client, names)

    async def churn(self, client: httpx.AsyncClient, seed: int, stopping: asyncio.Event) -> None:
        """Replace and delete some of them until a write has no answer."""
        source = random.Random(f"crowd/{seed}")
        going_on = self.size > 0
        while going_on and not stopping.is_set():
            if source.random() < 0.8:
                names = [f"c{n}" for n in source.sample(range(self.size), CHANGED_AT_ONCE)]
                going_on = await self._upsert(client, names)
            else:
                names = [f"c{n}" for n in source.sample(range(self.size), DELETED_AT_ONCE)]
                body = {"ids": names, "namespace": NAMESPACE}
                after: dict[str, State] = dict.fromkeys(names, None)
                going_on = await self.account.write(client, DELETE, body, after)

    async def verify(self, client: httpx.AsyncClient, sample: int, seed: int) -> None:
        """Those whose fate is unknown, and a sample of the others; all of them if it is `size`."""
        chosen = random.Random(f"look/{seed}").sample(range(self.size), sample)
        await self.account.verify_some(client, sorted({f"c{n}" for n in chosen}))

    async def _upsert(self, client: httpx.AsyncClient, names: list[str]) -> bool:
        version = self.account.next_version()
        vectors = [
            {"id": i, "values": values(i, version), "metadata": {"version": version, "crowd": True}}
            for i in names
        ]
        after: dict[str, State] = dict.fromkeys(names, version)
        body = {"vectors": vectors, "namespace": NAMESPACE}
        return await self.account.write(client, "/vectors/upsert", body, after)


async def compactions(client: httpx.AsyncClient, url: str) -> int:
    """Committed by the process that shows its metrics there, since its start."""
    text = (await client.get(f"{url}/metrics")).raise_for_status().text
    return sum(
        int(float(line.rpartition(" ")[2]))
        for line in text.splitlines()
        if line.startswith("firndb_builder_compactions_total{")
    )


async def until_compacting(client: httpx.AsyncClient, url: str) -> int:
    """Returns right after another one was committed: where there was one there are more."""
    before = await compactions(client, url)
    for _ in range(COMPACTING_TRIES):
        done = await compactions(client, url)
        if done > before:
            return done
        await asyncio.sleep(0.1)
    raise AssertionError("no compaction in minutes of churn")
