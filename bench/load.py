"""Requests as a raw client sends them, timed one by one, and figures of many of them."""

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from bench.dataset import F32


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds over `count` requests."""

    count: int
    p50: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Latency":
        ordered = sorted(seconds)
        last = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
        return cls(len(ordered), statistics.median(ordered) * 1000, last * 1000)


def upsert_body(first: int, vectors: F32, metadata: Sequence[dict[str, Any]]) -> bytes:
    """The JSON body of one upsert of these rows, ids counting from `first`."""
    rows = [
        {"id": f"r{first + i}", "values": vector.tolist(), "metadata": meta}
        for i, (vector, meta) in enumerate(zip(vectors, metadata, strict=True))
    ]
    return orjson.dumps({"vectors": rows})


def query_body(vector: F32, top_k: int, condition: dict[str, Any] | None = None) -> bytes:
    body: dict[str, Any] = {"vector": vector.tolist(), "topK": top_k}
    return orjson.dumps(body if condition is None else {**body, "filter": condition})


class RawClient:
    """One keep-alive connection pool to an index host; every answer must be 200."""

    def __init__(self, host: str, key: str) -> None:
        headers = {"Api-Key": key, "content-type": "application/json"}
        self._session = aiohttp.ClientSession(host, headers=headers)

    async def close(self) -> None:
        await self._session.close()

    async def post(self, path: str, body: bytes) -> tuple[float, Any, bool]:
        """(seconds until the answer was read, its JSON, whether it was flagged as stale)"""
        began = time.perf_counter()
        async with self._session.post(path, data=body) as answer:
            data = await answer.read()
            taken = time.perf_counter() - began
            if answer.status != 200:
                raise RuntimeError(f"{path} answered {answer.status}: {data[:500]!r}")
            return taken, orjson.loads(data), answer.headers.get("x-firndb-stale") == "true"

    async def post_all(
        self, path: str, bodies: Sequence[bytes], at_once: int
    ) -> tuple[float, list[float]]:
        """Send all, `at_once` in flight; (seconds for all, seconds of each)."""
        waiting = list(reversed(bodies))
        taken: list[float] = []

        async def one_after_another() -> None:
            while waiting:
                taken.append((await self.post(path, waiting.pop()))[0])

        began = time.perf_counter()
        await asyncio.gather(*(one_after_another() for _ in range(at_once)))
        return time.perf_counter() - began, taken


def fsync_latency(size: int = 150_000, count: int = 40) -> Latency:
    """What this disk takes to make as many bytes durable as an upsert of 100 x 384 floats."""
    data = os.urandom(size)
    taken = []
    with tempfile.NamedTemporaryFile(dir=".") as file:
        for _ in range(count):
            began = time.perf_counter()
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - began)
    return Latency.of(taken)
