"""`make bench-namespaces`: many small namespaces on the embedded deployment, and what they cost.

Created and filled over HTTP, indexed, restarted; then memory against an empty folder, queries to
random ones, pages of their names, and deletions until they are invisible.
"""

import argparse
import asyncio
import json
import random
import re
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp
import httpx
import numpy as np
import orjson

from bench.load import Latency
from tests.e2e.deployments import Deployment, embedded
from tests.e2e.processes import KEY

INDEX = "many"
DIMENSION = 64
RECORDS = 10
AT_ONCE = 32
QUERIES = 300
DELETIONS = 30
PAGES = 20
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Figures:
    """`empty_mb`, `full_mb`: resident memory after a restart; `queried_mb`: after the queries.
    Latencies in ms over HTTP; `cold`: the first query to a namespace, `deleted`: from the request
    until a query finds nothing.
    """

    namespaces: int
    created_s: float
    created_per_s: float
    indexed_after_s: float
    objects_per_namespace: float
    objects: dict[str, int]
    bytes_per_namespace: float
    log_bytes_per_namespace: float
    stopped_s: float
    restarted_s: float
    empty_mb: float
    full_mb: float
    queried_mb: float
    cold: Latency
    page: Latency
    total: int
    deleted: Latency


class Client:
    """Raw requests to the index's host; every answer must be 200."""

    def __init__(self, host: str) -> None:
        headers = {"Api-Key": KEY, "content-type": "application/json"}
        connector = aiohttp.TCPConnector(limit=AT_ONCE)
        self.session = aiohttp.ClientSession(host, headers=headers, connector=connector)

    async def ask(
        self, verb: str, path: str, body: object = None
    ) -> tuple[float, dict[str, object]]:
        """(seconds, answer)"""
        began = time.perf_counter()
        data = None if body is None else orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
        async with self.session.request(verb, path, data=data) as answer:
            text = await answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{verb} {path} answered {answer.status}: {text[:300]!r}")
            found: dict[str, object] = orjson.loads(text)
            return time.perf_counter() - began, found

    async def fill(self, count: int) -> float:
        """Every namespace with its records; seconds for all."""
        waiting = iter(range(count))

        async def one_after_another() -> None:
            for number in waiting:
                rows = [
                    {"id": f"r{row}", "values": values, "metadata": {"tenant": number}}
                    for row, values in enumerate(vectors_of(number))
                ]
                await self.ask(
                    "POST", "/vectors/upsert", {"vectors": rows, "namespace": name(number)}
                )

        began = time.perf_counter()
        await asyncio.gather(*(one_after_another() for _ in range(AT_ONCE)))
        return time.perf_counter() - began

    async def query(self, number: int, row: int) -> tuple[float, list[dict[str, object]]]:
        body = {"vector": vectors_of(number)[row], "topK": RECORDS, "namespace": name(number)}
        seconds, answer = await self.ask("POST", "/query", body)
        matches = answer["matches"]
        assert isinstance(matches, list)
        return seconds, matches


def name(number: int) -> str:
    return f"tenant-{number:07d}"


def vectors_of(number: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.random.default_rng(number).normal(size=(RECORDS, DIMENSION)).astype(np.float32)


async def fill(host: str, count: int) -> float:
    client = Client(host)
    try:
        return await client.fill(count)
    finally:
        await client.session.close()


async def use(host: str, count: int, server: Deployment) -> dict[str, object]:
    """Queries, pages and deletions; what `Figures` says of them."""
    client = Client(host)
    chosen = random.Random(1).sample(range(count), min(count, QUERIES + DELETIONS))
    asked, doomed = chosen[:-DELETIONS], chosen[-DELETIONS:]
    try:
        cold: list[float] = []
        for number in asked:
            seconds, matches = await client.query(number, number % RECORDS)
            cold.append(seconds)
            if len(matches) != RECORDS or matches[0]["id"] != f"r{number % RECORDS}":
                raise RuntimeError(f"namespace {name(number)} answers {matches}")
        queried = resident_mb(server)
        pages, total, token = [], 0, ""
        for _ in range(PAGES):
            seconds, answer = await client.ask(
                "GET", f"/namespaces?limit=100&prefix=tenant-&paginationToken={token}"
            )
            pages.append(seconds)
            total = int(str(answer["total_count"]))
            following = answer.get("pagination")
            if not isinstance(following, dict):
                break
            token = str(following["next"])
        deleted: list[float] = []
        for number in doomed:
            began = time.perf_counter()
            await client.ask("DELETE", f"/namespaces/{name(number)}")
            _, matches = await client.query(number, 0)
            deleted.append(time.perf_counter() - began)
            if matches:
                raise RuntimeError(f"the deleted namespace {name(number)} answers {matches}")
        return {
            "cold": Latency.of(cold),
            "queried_mb": queried,
            "page": Latency.of(pages),
            "total": total,
            "deleted": Latency.of(deleted),
        }
    finally:
        await client.session.close()


def resident_mb(server: Deployment) -> float:
    """Of the server's process, once it has come to rest."""
    assert server.process.process is not None
    status = Path(f"/proc/{server.process.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1024


def restart(server: Deployment) -> tuple[float, float, float]:
    """(seconds to stop, seconds until ready, resident memory some seconds later)"""
    began = time.perf_counter()
    server.process.stop()
    stopped = time.perf_counter() - began
    began = time.perf_counter()
    server.restart()
    ready = time.perf_counter() - began
    time.sleep(5)
    return stopped, ready, resident_mb(server)


def wait_until_indexed(server: Deployment) -> float:
    """Until nothing is buffered; seconds."""
    began = time.perf_counter()
    for _ in range(36_000):
        shown = httpx.get(f"{server.url}/metrics", timeout=60).text
        found = re.search(r"^firndb_builder_buffered_records (\S+)", shown, re.MULTILINE)
        if found is not None and float(found[1]) == 0:
            return time.perf_counter() - began
        time.sleep(0.1)
    raise RuntimeError("the builder does not catch up")


def objects_of(folder: Path) -> tuple[Counter[str], int]:
    """(objects by kind, bytes of all)"""
    kinds: Counter[str] = Counter()
    size = 0
    for path in folder.rglob("*"):
        if path.is_file() and ".tmp" not in path.parts:
            parts = path.relative_to(folder).parts
            kinds["registry" if parts[0] == "registry" else parts[2]] += 1
            size += path.stat().st_size
    return kinds, size


def measure(folder: Path, count: int) -> Figures:
    with embedded(folder, {"FIRNDB_FLUSH_AGE_S": "2", "FIRNDB_PARTITIONS": "16"}) as server:
        host = server.create_index(INDEX, DIMENSION)
        _, _, empty_mb = restart(server)
        created = asyncio.run(fill(host, count))
        say(f"{count} namespaces acknowledged after {created:.1f} s")
        indexed = wait_until_indexed(server)
        say(f"indexed {indexed:.1f} s later, {resident_mb(server):.0f} MB")
        stopped, ready, full_mb = restart(server)
        say(f"restarted: {stopped:.1f} s to stop, {ready:.1f} s to be ready, {full_mb:.0f} MB")
        kinds, size = objects_of(folder / "data" / "objects")
        log = sum(path.stat().st_size for path in (folder / "data").glob("log.db*"))
        used = asyncio.run(use(host, count, server))
        return Figures(
            namespaces=count,
            created_s=created,
            created_per_s=count / created,
            indexed_after_s=indexed,
            objects_per_namespace=(kinds.total() - kinds["registry"]) / count,
            objects=dict(kinds),
            bytes_per_namespace=size / count,
            log_bytes_per_namespace=log / count,
            stopped_s=stopped,
            restarted_s=ready,
            empty_mb=empty_mb,
            full_mb=full_mb,
            **used,  # type: ignore[arg-type]
        )


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure many small namespaces.")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="where to work; none: a temporary one")
    parser.add_argument("--json", type=Path, default=RESULTS / "namespaces.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="firndb-bench-", dir=options.folder) as place:
        figures = measure(Path(place), options.count)
    for label, value in asdict(figures).items():
        print(f"{label:>24}  {value}")
    print(f"memory grew by {figures.full_mb - figures.empty_mb:.0f} MB")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(asdict(figures), indent=2))


if __name__ == "__main__":
    main()
