"""Where a compaction's CPU work runs best beside an event loop: in threads, or in a process.

`python -m bench.cpu_place`: folds of one size (k-means of a split, Annoy and column encoding of the
pieces) run one after the other while an event loop ticks every millisecond; how late it ticks, and
how many rows are written a second, for each place. What a process has to be given and gives back
(vectors, ids, metadata, encoded files) is pickled, as it would be.
"""

import asyncio
import json
import multiprocessing
import time
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass

import click
import numpy as np

from bench.dataset import documents, vectors
from builder.compaction.cluster import cluster
from core.metric import Metric
from storage.cluster_file import write_cluster
from storage.layout import NamespaceSchema
from storage.rows import Rows

ROWS_MAX, ROWS_MIN = 4096, 1024
TICK_S = 0.001
SCHEMA = NamespaceSchema("bench", "n", Metric.COSINE, 384)


@dataclass(frozen=True, slots=True)
class Measured:
    """Lateness of a tick in milliseconds."""

    place: str
    rows_per_s: float
    late_p50_ms: float
    late_p99_ms: float
    late_max_ms: float


def fold(rows: Rows) -> list[bytes]:
    """A cluster's rows split in two and encoded. A process sends the bytes back."""
    assert rows.vectors is not None
    made = cluster(rows.vectors, SCHEMA.metric, 2, ROWS_MAX, ROWS_MIN)
    files = [
        write_cluster(rows.take(members), SCHEMA, cluster=number, centroid=made.centroids[number])
        for number, members in enumerate(made.members)
    ]
    return [o.data for file in files for o in file.objects]


def some_rows(count: int) -> Rows:
    texts, data = documents(), vectors()
    pick = np.arange(count) % len(data)
    return Rows(
        ids=[texts[row].id for row in pick],
        lsns=np.arange(count, dtype=np.int64),
        vectors=np.ascontiguousarray(data[pick]),
        sparse=[None] * count,
        metadata=[texts[row].metadata for row in pick],
    )


async def lateness(stopping: asyncio.Event) -> list[float]:
    late: list[float] = []
    while not stopping.is_set():
        begun = time.perf_counter()
        await asyncio.sleep(TICK_S)
        late.append((time.perf_counter() - begun - TICK_S) * 1000)
    return late


async def measured(place: str, pool: Executor | None, rows: Rows, folds: int) -> Measured:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    ticking = asyncio.create_task(lateness(stopping))
    begun = time.perf_counter()
    for _ in range(folds):
        if pool is None:
            await asyncio.sleep(0.01)
        else:
            await loop.run_in_executor(pool, fold, rows)
    took = time.perf_counter() - begun
    stopping.set()
    late = np.array(await ticking)
    p50, p99 = (round(float(np.quantile(late, q)), 2) for q in (0.5, 0.99))
    speed = 0.0 if pool is None else folds * len(rows) / took
    return Measured(place, round(speed), p50, p99, round(float(late.max()), 2))


@click.command()
@click.option("--rows", default=4096, show_default=True, help="Rows of one fold.")
@click.option("--folds", default=20, show_default=True)
def main(rows: int, folds: int) -> None:
    """Print one line of JSON for each place."""
    data = some_rows(rows)
    spawn = multiprocessing.get_context("spawn")
    with ThreadPoolExecutor(1) as threads, ProcessPoolExecutor(1, spawn) as processes:
        processes.submit(fold, data).result()  # its imports
        for place, pool in (("idle", None), ("thread", threads), ("process", processes)):
            print(json.dumps(asdict(asyncio.run(measured(place, pool, data, folds)))))


if __name__ == "__main__":
    main()
