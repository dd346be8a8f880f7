"""`python -m bench.transports`: the same upserts and queries over REST and over gRPC, in turns.

For decision 0016. Bytes are exact; times are of this machine in this minute, so the two take turns
and their ratios are what to compare. CPU is that of the server's process, consumers included.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np

from api.grpc.generated import packed_pb2 as packed
from bench.dataset import F32
from bench.load import Latency, RawClient, query_body, upsert_body
from bench.watch import usage
from tests.e2e.deployments import Deployment, embedded
from tests.e2e.processes import KEY

DIMENSION = 384
RECORDS = 100
TOP_K = 10
METADATA: dict[str, Any] = {"genre": "drama", "year": 1994.0, "seen": True}
IN_FLIGHT = 4

Send = Callable[[bytes], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one kind of request over one transport."""

    latency: Latency
    body_bytes: int
    per_s: float
    cpu_ms: float


def upsert_message(first: int, vectors: F32) -> bytes:
    message = packed.UpsertRequest()
    for i, vector in enumerate(vectors):
        one = message.vectors.add(id=f"r{first + i}", values=vector.astype("<f4").tobytes())
        one.metadata.update(METADATA)
    return message.SerializeToString()


def query_message(vector: F32) -> bytes:
    values = vector.astype("<f4").tobytes()
    return packed.QueryRequest(vector=values, top_k=TOP_K).SerializeToString()


async def measured(send: Send, bodies: list[bytes], pid: int) -> Measured:
    """Once one after the other, for the latency; once with `IN_FLIGHT` at a time, for the rest."""
    seconds = []
    for body in bodies:
        began = time.perf_counter()
        await send(body)
        seconds.append(time.perf_counter() - began)
    waiting = iter(bodies)

    async def one_lane() -> None:
        for body in waiting:
            await send(body)

    before, began = usage(pid).cpu_s, time.perf_counter()
    await asyncio.gather(*(one_lane() for _ in range(IN_FLIGHT)))
    took, cpu_s = time.perf_counter() - began, usage(pid).cpu_s - before
    size = sum(map(len, bodies)) // len(bodies)
    return Measured(Latency.of(seconds), size, len(bodies) / took, 1000 * cpu_s / len(bodies))


async def compare(deployment: Deployment, requests: int) -> dict[str, dict[str, Measured]]:
    """By kind of request and transport."""
    host = deployment.create_index("transports", DIMENSION)
    process = deployment.process.process
    assert process is not None
    rng = np.random.default_rng(7)
    vectors = rng.standard_normal((requests, RECORDS, DIMENSION)).astype(np.float32)
    told = (("api-key", KEY),)
    rest = RawClient(host, KEY)
    async with grpc.aio.insecure_channel(host.split("://")[1]) as channel:
        calls: Mapping[str, Any] = {
            name: channel.unary_unary(f"/VectorService/{name}") for name in ("Upsert", "Query")
        }
        ways: dict[str, dict[str, tuple[Send, list[bytes]]]] = {
            "upsert of 100 records": {
                "REST": (
                    lambda body: rest.post("/vectors/upsert", body),
                    [upsert_body(0, rows, [METADATA] * RECORDS) for rows in vectors],
                ),
                "gRPC": (
                    lambda body: calls["Upsert"](body, metadata=told),
                    [upsert_message(0, rows) for rows in vectors],
                ),
            },
            "query, top 10": {
                "REST": (
                    lambda body: rest.post("/query", body),
                    [query_body(rows[0], TOP_K) for rows in vectors],
                ),
                "gRPC": (
                    lambda body: calls["Query"](body, metadata=told),
                    [query_message(rows[0]) for rows in vectors],
                ),
            },
        }
        found: dict[str, dict[str, Measured]] = {}
        for kind, of_kind in ways.items():
            for send, bodies in of_kind.values():
                await measured(send, bodies[:10], process.pid)  # connections, first files
            found[kind] = {
                transport: await measured(send, bodies, process.pid)
                for transport, (send, bodies) in of_kind.items()
            }
    await rest.close()
    return found


def show(found: Mapping[str, Mapping[str, Measured]]) -> None:
    print("| request | transport | bytes | p50 ms | p99 ms | per second | server CPU ms |")
    print("|---|---|---|---|---|---|---|")
    for kind, of_kind in found.items():
        for transport, m in of_kind.items():
            print(
                f"| {kind} | {transport} | {m.body_bytes} | {m.latency.p50:.2f} | "
                f"{m.latency.p99:.2f} | {m.per_s:.0f} | {m.cpu_ms:.2f} |"
            )
        rest, over_grpc = of_kind["REST"], of_kind["gRPC"]
        print(
            f"| {kind} | gRPC / REST | {over_grpc.body_bytes / rest.body_bytes:.2f} | "
            f"{over_grpc.latency.p50 / rest.latency.p50:.2f} | "
            f"{over_grpc.latency.p99 / rest.latency.p99:.2f} | "
            f"{over_grpc.per_s / rest.per_s:.2f} | {over_grpc.cpu_ms / rest.cpu_ms:.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=200)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        embedded(Path(folder), {"FIRNDB_FLUSH_AGE_S": "30"}) as deployment,
    ):
        show(asyncio.run(compare(deployment, given.requests)))


if __name__ == "__main__":
    main()
