"""A load of writes on one namespace, with an exact account of what was acknowledged.

Each worker owns its ids, so the order of writes of an id is known. A write whose answer did not
come (the server was killed) leaves its ids *unsure*: before or after it, both are right; `verify`
learns which, and every other state is a failure.
"""

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

import httpx

DIMENSION = 8
IDS_PER_WORKER = 30
NAMESPACE = "ledger"

State = int | None  # the version that is stored; None: the record is not there


def values(record: str, version: int) -> list[float]:
    """A vector that only this version of this record has."""
    source = random.Random(f"{record}/{version}")
    return [round(source.uniform(-1, 1), 4) for _ in range(DIMENSION)]


@dataclass
class Ledger:
    """What must be found: the acknowledged state of every id, two possible ones of unsure ids."""

    acknowledged: dict[str, State] = field(default_factory=dict)
    unsure: dict[str, set[State]] = field(default_factory=dict)
    writes: int = 0
    version: int = 0

    def next_version(self) -> int:
        self.version += 1
        return self.version

    async def write(self, client: httpx.AsyncClient, path: str, body: dict[str, Any],
                    after: dict[str, State]) -> bool:  # fmt: skip
        """Send one write that leaves `after`; False if its fate is unknown."""
        try:
            response = await client.post(path, json=body)
            if response.status_code == 200 or (
                response.status_code == 404 and path.endswith("delete")
            ):
                self.acknowledged.update(after)
                self.writes += 1
                return True
        except httpx.TransportError:
            pass
        for record, state in after.items():
            self.unsure[record] = {self.acknowledged.get(record), state}
        return False

    async def worker(self, client: httpx.AsyncClient, number: int, seed: int) -> None:
        """Random upserts, deletions and updates of its ids until a write has no answer."""
        source = random.Random(f"{seed}/{number}")
        own = [f"w{number}-{i}" for i in range(IDS_PER_WORKER)]
        while True:
            chosen = source.sample(own, source.randint(1, 8))
            if not await self._random_write(client, source, chosen):
                return

    async def _random_write(
        self, client: httpx.AsyncClient, source: random.Random, chosen: list[str]
    ) -> bool:
        kind = source.random()
        version = self.next_version()
        if kind < 0.65:
            vectors = [
                {"id": i, "values": values(i, version), "metadata": {"version": version}}
                for i in chosen
            ]
            body: dict[str, Any] = {"vectors": vectors, "namespace": NAMESPACE}
            return await self.write(client, "/vectors/upsert", body, dict.fromkeys(chosen, version))
        if kind < 0.85:
            body = {"ids": chosen, "namespace": NAMESPACE}
            return await self.write(client, "/vectors/delete", body, dict.fromkeys(chosen, None))
        record = chosen[0]
        exists = self.acknowledged.get(record) is not None
        body = {
            "id": record,
            "values": values(record, version),
            "setMetadata": {"version": version},
            "namespace": NAMESPACE,
        }
        after = {record: version if exists else None}
        return await self.write(client, "/vectors/update", body, after)

    async def run(self, client: httpx.AsyncClient, workers: int, seed: int) -> None:
        """Until every worker met a write without an answer (or the task is cancelled)."""
        await asyncio.gather(*(self.worker(client, n, seed) for n in range(workers)))

    async def verify(self, client: httpx.AsyncClient) -> None:
        """Every id has its acknowledged state, unsure ids one of two; count and query agree."""
        found = await self._fetch_all(client)
        for record, possible in self.unsure.items():
            state = found.get(record)
            assert state in possible, f"{record} is {state}, neither of {possible}"
            self.acknowledged[record] = state
        self.unsure.clear()
        for record, state in self.acknowledged.items():
            assert found.get(record) == state, f"{record} is {found.get(record)}, not {state}"
        present = {i: v for i, v in self.acknowledged.items() if v is not None}
        assert found == present
        stats = (await client.post("/describe_index_stats", json={})).raise_for_status().json()
        count = stats["namespaces"].get(NAMESPACE, {"vectorCount": 0})["vectorCount"]
        assert count == len(present), f"stats say {count}, there are {len(present)}"
        await self._verify_by_query(client, present)

    async def _verify_by_query(self, client: httpx.AsyncClient, present: dict[str, int]) -> None:
        body = {
            "vector": [1.0] * DIMENSION,
            "topK": 10000,
            "namespace": NAMESPACE,
            "includeMetadata": True,
        }
        answer = (await client.post("/query", json=body)).raise_for_status()
        assert answer.headers.get("x-firndb-stale") != "true"
        matches = answer.json()["matches"]
        assert len({m["id"] for m in matches}) == len(matches), "an id twice"
        assert {m["id"]: int(m["metadata"]["version"]) for m in matches} == present

    async def _fetch_all(self, client: httpx.AsyncClient) -> dict[str, int]:
        known = sorted({*self.acknowledged, *self.unsure})
        found: dict[str, int] = {}
        for first in range(0, len(known), 100):
            query = {"ids": known[first : first + 100], "namespace": NAMESPACE}
            answer = (await client.get("/vectors/fetch", params=query)).raise_for_status()
            for record, vector in answer.json()["vectors"].items():
                version = int(vector["metadata"]["version"])
                expected = values(record, version)
                assert all(
                    abs(a - b) < 1e-6 for a, b in zip(vector["values"], expected, strict=True)
                ), f"{record} has the values of another version than {version}"
                found[record] = version
        return found
