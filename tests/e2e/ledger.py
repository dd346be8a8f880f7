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

DELETE = "/vectors/delete"
# Log away, or too slow to say: such a write may still take effect. 500: the server is going down.
UNSURE = (500, 503, 504)
# A role that was killed is taken over within its group's session; reads say so until then.
ANSWER_TRIES = 450
TRY_S = 0.2

State = int | None  # the version that is stored; None: the record is not there


def values(record: str, version: int) -> list[float]:
    """A vector that only this version of this record has."""
    source = random.Random(f"{record}/{version}")
    return [round(source.uniform(-1, 1), 4) for _ in range(DIMENSION)]


async def answered(client: httpx.AsyncClient, method: str, path: str, **request: Any) -> Any:
    """The body of an answer that does not say that it is stale, asked for until there is one."""
    told = "nothing"
    for _ in range(ANSWER_TRIES):
        answer = await client.request(method, path, **request)
        stale = answer.headers.get("x-firndb-stale") == "true"
        if answer.status_code == 200 and not stale:
            return answer.json()
        told = "a stale answer" if stale else f"{answer.status_code}: {answer.text}"
        assert stale or answer.status_code in (503, 504), told
        await asyncio.sleep(TRY_S)
    raise AssertionError(f"{path} does not become current: {told}")


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

    async def write(
        self, client: httpx.AsyncClient, path: str, body: dict[str, Any], after: dict[str, State]
    ) -> bool:
        """Send one write that leaves `after`; False if its fate is unknown."""
        try:
            response = await client.post(path, json=body)
        except httpx.TransportError:
            response = None
        if response is not None:
            # a deletion where there is no namespace leaves what it wanted
            if response.status_code == 200 or (response.status_code, path) == (404, DELETE):
                self.acknowledged.update(after)
                self.writes += 1
                return True
            assert response.status_code in UNSURE, f"{response.status_code}: {response.text}"
        for record, state in after.items():
            self.unsure[record] = {self.acknowledged.get(record), state}
        return False

    async def worker(
        self, client: httpx.AsyncClient, number: int, seed: int, stopping: asyncio.Event
    ) -> None:
        """Random upserts, deletions and updates of its ids until a write has no answer."""
        source = random.Random(f"{seed}/{number}")
        own = [f"w{number}-{i}" for i in range(IDS_PER_WORKER)]
        while not stopping.is_set():
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
            return await self.write(client, DELETE, body, dict.fromkeys(chosen, None))
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

    async def run(
        self,
        client: httpx.AsyncClient,
        workers: int,
        seed: int,
        stopping: asyncio.Event | None = None,
    ) -> None:
        """Until every worker met a write without an answer, or `stopping` is set."""
        stopping = stopping or asyncio.Event()
        await asyncio.gather(*(self.worker(client, n, seed, stopping) for n in range(workers)))

    async def verify(self, client: httpx.AsyncClient, beside: int = 0) -> None:
        """Every id has its acknowledged state, unsure ids one of two; count and query agree.

        No write may be on its way any more. beside: records of a crowd in the same namespace.
        """
        await self.verify_some(client, sorted({*self.acknowledged, *self.unsure}))
        present = {i: v for i, v in self.acknowledged.items() if v is not None}
        stats = await answered(client, "POST", "/describe_index_stats", json={})
        count = stats["namespaces"].get(NAMESPACE, {"vectorCount": 0})["vectorCount"]
        expected = len(present) + beside
        assert count == expected, f"stats say {count}, there are {expected}"
        await self._verify_by_query(client, present)

    async def verify_some(self, client: httpx.AsyncClient, known: list[str]) -> None:
        """Those ids and all unsure ones."""
        known = sorted({*known, *self.unsure})
        found = await self._fetch(client, known)
        for record, possible in self.unsure.items():
            state = found.get(record)
            assert state in possible, f"{record} is {state}, neither of {possible}"
            self.acknowledged[record] = state
        self.unsure.clear()
        for record in known:
            state = self.acknowledged.get(record)
            assert found.get(record) == state, f"{record} is {found.get(record)}, not {state}"

    async def _verify_by_query(self, client: httpx.AsyncClient, present: dict[str, int]) -> None:
        body = {
            "vector": [1.0] * DIMENSION,
            "topK": 10000,
            "namespace": NAMESPACE,
            "includeMetadata": True,
            "filter": {"crowd": {"$exists": False}},
        }
        all_of_it = {"x-firndb-exhaustive": "true"}
        answer = await answered(client, "POST", "/query", json=body, headers=all_of_it)
        found = {m["id"]: int(m["metadata"]["version"]) for m in answer["matches"]}
        assert len(found) == len(answer["matches"]), "an id twice"
        wrong = set(found.items()) ^ set(present.items())
        assert not wrong, f"a query and the account differ: {sorted(wrong)[:10]}"

    async def _fetch(self, client: httpx.AsyncClient, known: list[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for first in range(0, len(known), 100):
            query = {"ids": known[first : first + 100], "namespace": NAMESPACE}
            answer = await answered(client, "GET", "/vectors/fetch", params=query)
            for record, vector in answer["vectors"].items():
                version = int(vector["metadata"]["version"])
                assert record in known, f"{record} was not asked for"
                expected = values(record, version)
                assert all(
                    abs(a - b) < 1e-6 for a, b in zip(vector["values"], expected, strict=True)
                ), f"{record} has the values of another version than {version}"
                found[record] = version
        return found
