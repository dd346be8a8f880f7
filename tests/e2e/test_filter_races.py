"""Deletes and updates by filter while others write, over HTTP on a whole server.

At stake: such an operation takes a record that was written after it, or leaves one that was written
before it. LSNs tell the order; where a record and an operation share a log record (the same LSN),
either is right.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from tests.e2e.deployments import Deployment, embedded

GROUPS = ("x", "y", "kept")
WRITERS = 4
PER_WRITER = 60


@dataclass
class Race:
    """written: by id the group and the LSN. deleted: (group, LSN). updated: (group, LSN, number).
    bounds: of updates of what nobody deletes (acknowledged before, matched, LSN).
    """

    client: httpx.AsyncClient
    written: dict[str, tuple[str, int]] = field(default_factory=dict)
    deleted: list[tuple[str, int]] = field(default_factory=list)
    updated: list[tuple[str, int, int]] = field(default_factory=list)
    bounds: list[tuple[int, int, int]] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    async def ask(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """The LSN and the answer; a namespace that is not there yet is fine."""
        answer = await self.client.post(path, json=body)
        assert answer.status_code in (200, 404), answer.text
        return int(answer.headers.get("x-pinecone-request-lsn", -1)), answer.json()

    async def write(self, writer: int) -> None:
        for number in range(PER_WRITER):
            name, group = f"w{writer}-{number:03}", GROUPS[number % len(GROUPS)]
            vector = {"id": name, "values": [1, number + 1], "metadata": {"g": group}}
            lsn, _ = await self.ask("/vectors/upsert", {"vectors": [vector]})
            self.written[name] = group, lsn

    async def delete(self) -> None:
        while not self.done.is_set():
            for group in GROUPS[:2]:
                lsn, _ = await self.ask("/vectors/delete", {"filter": {"g": group}})
                if lsn >= 0:
                    self.deleted.append((group, lsn))
                await asyncio.sleep(0.02)

    async def update(self) -> None:
        number = 0
        while not self.done.is_set():
            for group in GROUPS:
                before = sum(g == group for g, _ in self.written.values())
                change = {"filter": {"g": group}, "setMetadata": {f"seen{number}": True}}
                lsn, body = await self.ask("/vectors/update", change)
                self.updated.append((group, lsn, number))
                if group == "kept":
                    self.bounds.append((before, body["matchedRecords"], lsn))
                number += 1
                await asyncio.sleep(0.01)

    async def run(self) -> None:
        others = [asyncio.create_task(self.delete()), asyncio.create_task(self.update())]
        await asyncio.gather(*(self.write(writer) for writer in range(WRITERS)))
        self.done.set()
        await asyncio.gather(*others)

    def check(self, found: dict[str, Any]) -> None:
        checked = 0
        for name, (group, lsn) in self.written.items():
            deletes = [at for g, at in self.deleted if g == group]
            if any(at > lsn for at in deletes):
                assert name not in found, f"{name} of LSN {lsn} outlived a deletion: {deletes}"
                checked += 1
            elif lsn not in deletes:
                assert name in found, f"{name} of LSN {lsn} was taken by an earlier deletion"
            if name not in found:
                continue
            for g, at, number in self.updated:
                if g == group and at != lsn:
                    seen = found[name]["metadata"].get(f"seen{number}") is True
                    assert seen == (at > lsn), f"{name} of LSN {lsn}, update of LSN {at}"
        assert 20 < checked < len(self.written) - 20, "the race proves nothing"
        for before, matched, lsn in self.bounds:
            most = sum(g == "kept" and at <= lsn for g, at in self.written.values())
            assert before <= matched <= most


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with embedded(tmp_path_factory.mktemp("races")) as deployment:
        yield deployment


LONG = (pytest.param(n, marks=pytest.mark.long) for n in range(1, 20))


@pytest.mark.parametrize("round_", [0, *LONG])
async def test_operations_by_filter_have_their_place_among_racing_writes(
    server: Deployment, round_: int
) -> None:
    host = server.create_index(f"race-{round_}", 2)
    async with server.data_client(host) as client:
        race = Race(client)
        await race.run()
        everything = {"filter": {"g": {"$exists": True}}, "limit": 10_000}
        page = (await client.post("/vectors/fetch_by_metadata", json=everything)).json()
        race.check(page["vectors"])
        stats = (await client.post("/describe_index_stats", json={})).json()
        assert stats["totalVectorCount"] == len(page["vectors"])
        fetched: dict[str, Any] = {}
        for start in range(0, len(race.written), 100):
            ids = list(race.written)[start : start + 100]
            answer = await client.get("/vectors/fetch", params={"ids": ids})
            fetched |= answer.json()["vectors"]
        assert fetched == page["vectors"]
