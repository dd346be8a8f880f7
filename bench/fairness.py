"""`python -m bench.fairness`: what one tenant's flood does to another tenant's queries.

Two projects with an index each on one `firndb serve`. The victim asks one query after the other, in
turns of some seconds without and with a flood from the other project, so that the noise of the
machine meets both alike. Printed: p50 and p99 of each side, and the median over the turns of the
ratio between neighbours. `overtaken` is counted, not timed: how many requests of the flood were
answered for each one of the victim's. The flood comes from a process of its own, at low priority.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from bench.dataset import query_vectors, vectors
from bench.load import Latency, RawClient, query_body, upsert_body
from bench.run import wait_until_indexed
from infra.catalog.catalog import Catalog
from tests.e2e.deployments import Deployment, embedded
from tests.e2e.processes import KEY

FLOODER_KEY = "flooder-key-0123456789abcdef"
FLOODS = ("queries", "heavy", "upserts", "spread", "mixed")
FLOODING = "flooding\n"
BATCH = 200
THINK_S = 0.005
SERVERLESS = {"serverless": {"cloud": "aws", "region": "us-east-1"}}


@dataclass(frozen=True, slots=True)
class Turn:
    """One measured stretch: the victim's latencies, and what the flood got done meanwhile."""

    latency: Latency
    flooded: int


def with_fields(body: bytes, **fields: Any) -> bytes:
    return json.dumps({**json.loads(body), **fields}).encode()


def flood_requests(kind: str) -> list[tuple[str, bytes]]:
    """Path and body of what is sent in a loop."""
    data, queries = vectors(), query_vectors()
    light = [("/query", query_body(q, 10)) for q in queries[:50]]
    heavy = [
        (
            "/query",
            json.dumps({**json.loads(query_body(q, 1000)), "includeMetadata": True}).encode(),
        )
        for q in queries[:50]
    ]
    rows = [{"n": i} for i in range(BATCH)]
    upserts = [
        ("/vectors/upsert", upsert_body(i, data[i : i + BATCH], rows))
        for i in range(0, 20 * BATCH, BATCH)
    ]
    spread = [
        (path, with_fields(body, namespace=f"n{i}")) for i, (path, body) in enumerate(upserts)
    ]
    return {
        "queries": light,
        "heavy": heavy,
        "upserts": upserts,
        "spread": spread,
        "mixed": [*heavy[:10], *upserts[:10], *light[:10]],
    }[kind]


async def flood(host: str, kind: str, connections: int) -> None:
    """Closed loops over raw sockets: little work for the client, as much as it gets for the server.

    429 is waited for as clients do, 10 times faster.
    """
    address = urlsplit(host)
    requests = [
        (
            f"POST {path} HTTP/1.1\r\nhost: {address.netloc}\r\napi-key: {FLOODER_KEY}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        ).encode()
        + body
        for path, body in flood_requests(kind)
    ]

    async def one(start: int) -> None:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        at = start
        while True:
            writer.write(requests[at % len(requests)])
            at += 1
            head = await reader.readuntil(b"\r\n\r\n")
            lengths = [
                line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
            ]
            await reader.readexactly(int(lengths[0].split(b":")[1]))
            if head.startswith(b"HTTP/1.1 429"):
                await asyncio.sleep(0.1)
            elif at == start + 1 and start == 0:
                print(FLOODING, end="", flush=True)

    await asyncio.gather(*(one(7 * n) for n in range(connections)))


@contextmanager
def flooding(host: str, kind: str | None, connections: int) -> Iterator[None]:
    if kind is None:
        yield
        return
    arguments = [sys.executable, "-m", "bench.fairness", "--flood", kind, "--host", host]
    arguments += ["--connections", str(connections)]
    process = subprocess.Popen(
        arguments, preexec_fn=lambda: os.nice(10), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        if process.stdout.readline() != FLOODING:
            raise RuntimeError("the flood did not begin")
        yield
    finally:
        process.kill()
        process.wait()


async def answered(control: httpx.AsyncClient) -> float:
    """Requests that the server answered with 200 on the data plane so far."""
    text = (await control.get("/metrics")).text
    rows = [
        line
        for line in text.splitlines()
        if line.startswith('firndb_http_requests_total{plane="data",status="200"}')
    ]
    return float(rows[0].rsplit(" ", 1)[1]) if rows else 0.0


async def victim(client: RawClient, control: httpx.AsyncClient, seconds: float) -> Turn:
    queries = query_vectors()
    taken: list[float] = []
    before = await answered(control)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        body = query_body(queries[len(taken) % 500], 10)
        taken.append((await client.post("/query", body))[0])
        await asyncio.sleep(THINK_S)
    return Turn(Latency.of(taken), int(await answered(control) - before) - len(taken))


async def load(host: str, key: str, records: int) -> None:
    client, data = RawClient(host, key), vectors()[:records]
    try:
        for i in range(0, records, BATCH):
            part = data[i : i + BATCH]
            await client.post("/vectors/upsert", upsert_body(i, part, [{"n": i}] * len(part)))
    finally:
        await client.close()


def made_index(deployment: Deployment, key: str) -> str:
    body = {"name": "fair", "dimension": 384, "metric": "cosine", "spec": SERVERLESS}
    headers = {"api-key": key}
    with httpx.Client(base_url=deployment.url, headers=headers, timeout=60) as client:
        return str(client.post("/indexes", json=body).raise_for_status().json()["host"])


async def add_flooder(deployment: Deployment) -> None:
    catalog = Catalog.open(f"sqlite:///{deployment.folder / 'data' / 'catalog.db'}")
    try:
        project = await catalog.ensure_project("flooder")
        await catalog.add_key(project.project_id, FLOODER_KEY)
    finally:
        await catalog.close()


async def measure(
    deployment: Deployment, kind: str, hosts: tuple[str, str], options: argparse.Namespace
) -> dict[str, Any]:
    ours, theirs = hosts
    quiet: list[Turn] = []
    loud: list[Turn] = []
    client = RawClient(ours, KEY)
    async with httpx.AsyncClient(base_url=deployment.url, timeout=60) as control:
        await victim(client, control, 1.0)
        for _ in range(options.turns):
            quiet.append(await victim(client, control, options.seconds))
            with flooding(theirs, kind, options.connections):
                loud.append(await victim(client, control, options.seconds))
            await asyncio.sleep(1.0)
    await client.close()
    pairs = list(zip(quiet, loud, strict=True))
    return {
        "flood": kind,
        "quiet_p50_ms": statistics.median(t.latency.p50 for t in quiet),
        "loud_p50_ms": statistics.median(t.latency.p50 for t in loud),
        "p50_ratio": statistics.median(b.latency.p50 / a.latency.p50 for a, b in pairs),
        "quiet_p99_ms": statistics.median(t.latency.p99 for t in quiet),
        "loud_p99_ms": statistics.median(t.latency.p99 for t in loud),
        "p99_ratio": statistics.median(b.latency.p99 / a.latency.p99 for a, b in pairs),
        "overtaken": statistics.median(b.flooded / b.latency.count for b in loud),
        "flood_per_s": statistics.median(b.flooded / options.seconds for b in loud),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what a flood does to a neighbour.")
    parser.add_argument("--kinds", default=",".join(FLOODS))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--records", type=int, default=6000)
    parser.add_argument("--flood", help="be the flood of that kind, against --host")
    parser.add_argument("--host")
    options = parser.parse_args()
    if options.flood:
        asyncio.run(flood(options.host, options.flood, options.connections))
        return
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="firndb-fair-"))
        deployment = stack.enter_context(embedded(Path(folder)))
        asyncio.run(add_flooder(deployment))
        hosts = made_index(deployment, KEY), made_index(deployment, FLOODER_KEY)
        for host, key in zip(hosts, (KEY, FLOODER_KEY), strict=True):
            asyncio.run(load(host, key, options.records))
        wait_until_indexed(deployment)
        for kind in options.kinds.split(","):
            figures = asyncio.run(measure(deployment, kind, hosts, options))
            print(json.dumps({k: _short(v) for k, v in figures.items()}), flush=True)


def _short(value: Any) -> Any:
    return round(value, 2) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
