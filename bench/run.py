"""`make bench`: both deployments on the real embeddings; a table, and JSON with counted work.

Rates and latencies are of this machine in this minute; ratios between the columns, recall and the
counted work (requests, bytes) are what to compare. The queries of the first half are left for
tuning, the second half is reported.
"""

import argparse
import asyncio
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from bench.dataset import documents, query_vectors, true_neighbours, vectors
from bench.load import Latency, RawClient, fsync_latency, query_body, upsert_body
from tests.e2e.deployments import Deployment, distributed, embedded
from tests.e2e.processes import KEY, clean_environment

INDEX = "bench"
BATCH = 100
AT_ONCE = 4
SINGLE_WRITES = 60
TOP_K = 10
CONDITION = {"source": "wordnet"}  # half of the records
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Figures:
    """One deployment. Latencies in ms over HTTP with a raw client; ingest is to acknowledged."""

    records: int
    ingest_records_s: float
    acknowledge: Latency
    visible: Latency
    flagged_stale: int
    indexed_after_s: float
    query: Latency
    recall_at_10: float
    filtered: Latency
    filtered_recall_at_10: float
    work: dict[str, float]


async def measure(deployment: Deployment, records: int) -> Figures:
    host = deployment.create_index(INDEX, 384)
    client = RawClient(host, KEY)
    try:
        data, metadata = vectors()[:records], [{"source": d.source} for d in documents()[:records]]
        bodies = [
            upsert_body(i, data[i : i + BATCH], metadata[i : i + BATCH])
            for i in range(0, records, BATCH)
        ]
        took, _ = await client.post_all("/vectors/upsert", bodies, AT_ONCE)
        acknowledge = (await client.post_all("/vectors/upsert", bodies[:SINGLE_WRITES], 1))[1]
        visible, flagged = await write_then_query(client, data)
        began = time.perf_counter()
        await asyncio.to_thread(wait_until_indexed, deployment, INDEX)
        indexed_after = time.perf_counter() - began
        queries = query_vectors()[300:]
        every = np.arange(records)
        latency, recall = await search(client, queries, data, every, None)
        chosen = np.array([i for i in every if metadata[i]["source"] == CONDITION["source"]])
        filtered, filtered_recall = await search(client, queries, data, chosen, CONDITION)
        return Figures(
            records=records,
            ingest_records_s=records / took,
            acknowledge=Latency.of(acknowledge),
            visible=Latency.of(visible),
            flagged_stale=flagged,
            indexed_after_s=indexed_after,
            query=latency,
            recall_at_10=recall,
            filtered=filtered,
            filtered_recall_at_10=filtered_recall,
            work=counted_work(deployment),
        )
    finally:
        await client.close()


async def write_then_query(client: RawClient, data: Any) -> tuple[list[float], int]:
    """Overwrite a record, ask for it at once: seconds of the queries, how many were flagged."""
    taken: list[float] = []
    flagged = 0
    for row in range(SINGLE_WRITES):
        await client.post("/vectors/upsert", upsert_body(row, data[row : row + 1], [{"new": row}]))
        seconds, answer, stale = await client.post("/query", query_body(data[row], 1))
        taken.append(seconds)
        flagged += stale
        if not stale and answer["matches"][0]["id"] != f"r{row}":
            raise RuntimeError(f"record r{row} is not its own nearest neighbour")
    # as they were, for what is measured next
    metadata = [{"source": d.source} for d in documents()[:SINGLE_WRITES]]
    await client.post("/vectors/upsert", upsert_body(0, data[:SINGLE_WRITES], metadata))
    return taken, flagged


async def search(
    client: RawClient, queries: Any, data: Any, rows: Any, condition: dict[str, Any] | None
) -> tuple[Latency, float]:
    """Warm: the first round fills caches, the second is measured. `rows`: those that may match."""
    truth = rows[true_neighbours(data[rows], queries, TOP_K)]
    taken: list[float] = []
    found = 0
    for measured in (False, True):
        for query, expected in zip(queries, truth, strict=True):
            seconds, answer, _ = await client.post("/query", query_body(query, TOP_K, condition))
            if measured:
                taken.append(seconds)
                ids = {m["id"] for m in answer["matches"]}
                found += sum(f"r{row}" in ids for row in expected.tolist())
    return Latency.of(taken), found / (len(queries) * TOP_K)


def wait_until_indexed(deployment: Deployment, *indexes: str) -> None:
    """Until `firndb status` shows no lag; no names: of all indexes."""
    for _ in range(600):
        shown = subprocess.run(
            [sys.executable, "-m", "cli.main", "status", *indexes, "--json"],
            env={
                **clean_environment(),
                **deployment.process.environment,
                "FIRNDB_DATA": str(deployment.folder / "data"),
            },
            capture_output=True,
            text=True,
            check=True,
        )
        rows = json.loads(shown.stdout)
        if rows and all(row["lag"] == 0 for row in rows):
            return
        time.sleep(0.2)
    raise RuntimeError("the builder does not catch up")


def counted_work(deployment: Deployment) -> dict[str, float]:
    """What the processes say they asked of the object store."""
    total: dict[str, float] = {}
    for url in deployment.metric_urls():
        for line in httpx.get(f"{url}/metrics").raise_for_status().text.splitlines():
            match = re.match(r'firndb_object_store_(requests|bytes){\w+="(\w+)"} (\S+)', line)
            if match:
                name = f"{match[2]} {match[1]}"
                total[name] = total.get(name, 0.0) + float(match[3])
    return total


@contextmanager
def services(folder: Path) -> Iterator[Mapping[str, str]]:
    """FIRNDB_* settings of a Kafka, an S3 server and a PostgreSQL of our own."""
    from infra.services.deployment import FOLDER, cache_of, services_of

    settings: dict[str, str] = {}
    with ExitStack() as stack:
        for service in services_of(folder, cache_of(Path.cwd() / FOLDER)):
            service.start()
            stack.callback(service.stop)
            settings |= service.settings
        yield settings


def table(figures: Mapping[str, Figures]) -> str:
    rows: list[tuple[str, list[str]]] = []
    columns = list(figures.values())

    def row(name: str, values: list[str]) -> None:
        rows.append((name, values))

    row("records of 384 dimensions", [f"{f.records:,}" for f in columns])
    row("ingest, records/s acknowledged", [f"{f.ingest_records_s:,.0f}" for f in columns])
    latencies = {
        f"upsert of {BATCH} acknowledged": [f.acknowledge for f in columns],
        "first query after a write": [f.visible for f in columns],
        "warm query": [f.query for f in columns],
        "warm query, filter matches half": [f.filtered for f in columns],
    }
    for name, values in latencies.items():
        row(f"{name}, p50 / p99 ms", [f"{v.p50:.1f} / {v.p99:.1f}" for v in values])
    row("queries after a write flagged as stale", [str(f.flagged_stale) for f in columns])
    row("recall@10", [f"{f.recall_at_10:.4f}" for f in columns])
    row("recall@10, filtered", [f"{f.filtered_recall_at_10:.4f}" for f in columns])
    row("indexed after the last write, s", [f"{f.indexed_after_s:.1f}" for f in columns])
    for name in sorted({n for f in columns for n in f.work}):
        row(f"object store: {name}", [f"{f.work.get(name, 0):,.0f}" for f in columns])
    width = max(len(name) for name, _ in rows)
    lines = [" " * width + "".join(f"{name:>20}" for name in figures)]
    lines += [name.ljust(width) + "".join(f"{v:>20}" for v in values) for name, values in rows]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure FirnDB on real embeddings.")
    parser.add_argument("--records", type=int, default=len(documents()))
    parser.add_argument("--deployments", default="embedded,distributed")
    parser.add_argument("--json", type=Path, default=RESULTS / "bench.json")
    options = parser.parse_args()
    figures: dict[str, Figures] = {}
    disk = fsync_latency()
    for deployment in options.deployments.split(","):
        with tempfile.TemporaryDirectory(prefix="firndb-bench-") as name, ExitStack() as stack:
            place = Path(name)
            if deployment == "embedded":
                served = stack.enter_context(embedded(place, {"FIRNDB_FLUSH_AGE_S": "1"}))
            else:
                needed = stack.enter_context(services(place / "services"))
                served = stack.enter_context(distributed(place, needed))
            figures[deployment] = asyncio.run(measure(served, options.records))
    print(table(figures))
    print(f"this disk, 150 KB written and synced: p50 {disk.p50:.1f} ms, p99 {disk.p99:.1f} ms")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "fsync": asdict(disk)}
    report = {"machine": machine, **{name: asdict(f) for name, f in figures.items()}}
    options.json.write_text(json.dumps(report, indent=2))
    print(f"written to {options.json}")


if __name__ == "__main__":
    main()
