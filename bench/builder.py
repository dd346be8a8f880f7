"""`make bench-builder`: a million records ingested, indexed and churned, on both deployments.

Written: amplification is bytes put into the object store by all processes over bytes of ids,
vectors and metadata that were sent. At rest: everything indexed and no compaction left to do. A
round of churn of 10 % replaces 5 % of the records, deletes another 5 % and adds as many new ones;
each round is waited for until rest, which is the worst case for amplification.

Rates are of this machine in this minute; amplification, objects, requests and recall are counted.
"""

import argparse
import asyncio
import json
import os
import platform
import tempfile
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from bench.dataset import query_vectors, vectors
from bench.enlarge import Enlarged
from bench.load import Latency, RawClient, query_body
from bench.probing import NO_CELL, Cells, recall_at, rows_needed
from bench.resting import Shape, cells_holding, cells_of, shape_of, until_rest
from bench.sites import DIMENSION, Site, embedded_site, kafka_site, served_again
from bench.watch import AnonymousMemory, labelled, since, summed, usage
from bench.workload import Workload, record_id
from builder.compaction.cluster import cluster
from builder.policy import clusters_of
from cli.runtime.consumers import builder_settings
from core.indexes import DEFAULT_NAMESPACE
from core.metric import Metric
from ingest.writer import LogWriter
from storage.layout import NamespaceSchema
from storage.manifest import Manifest
from tests.e2e.processes import KEY

TOP_K = 10
RESULTS = Path(__file__).parent / "results"
SITES = {"embedded": embedded_site, "kafka": kafka_site}


@dataclass(slots=True)
class Phase:
    """acknowledged_s, indexed_s, rest_s: since its first write. cpu_s, peak_mb: by role, peaks
    since the start. written: bytes by kind of object; jobs: data and id runs by who wrote them.
    """

    records: int
    sent_bytes: int
    acknowledged_s: float
    indexed_s: float
    rest_s: float
    cpu_s: dict[str, float]
    peak_mb: dict[str, float]
    written: dict[str, float]
    jobs: dict[str, float]
    requests: dict[str, float]
    compactions: dict[str, float]
    shape: Shape

    @property
    def amplification(self) -> float:
        return sum(self.written.values()) / self.sent_bytes


@dataclass(slots=True)
class Recall:
    """At equal numbers of probed rows, of our clusters and of a fresh clustering of the same data.

    rows: those at which the fresh one has recall 0.95.
    """

    rows: int
    ours: float
    fresh: float
    rows_ours_095: int
    clusters_ours: int
    clusters_fresh: int


@dataclass(slots=True)
class Figures:
    load: Phase
    churn: list[Phase] = field(default_factory=list)
    recall: Recall | None = None
    query: Latency | None = None
    query_recall: float = 0.0
    served_peak_mb: float = 0.0
    anonymous_mb: dict[str, float] = field(default_factory=dict)


class Bench:
    """One deployment, from the first record to the last query."""

    def __init__(self, site: Site, work: Workload, folder: Path) -> None:
        self.site = site
        self.work = work
        self.folder = folder
        self.limits = builder_settings(site.parts.settings).compaction
        self.schema = NamespaceSchema(site.index_id, DEFAULT_NAMESPACE, Metric.COSINE, DIMENSION)

    async def phase(self, records: int, share: float = 0.0) -> tuple[Phase, Manifest]:
        """Load so many, or churn `share` of what is there; then wait for rest."""
        site, work, index_id = self.site, self.work, self.site.index_id
        metrics, used = summed(site.metrics().values()), site.usage()
        sent, before = work.written_bytes, work.written_records
        writer = LogWriter(site.parts.wal, site.parts.clock)
        began = time.perf_counter()
        if share:
            lsn = await work.churn(writer, index_id, DEFAULT_NAMESPACE, share)
        else:
            lsn = await work.load(writer, index_id, DEFAULT_NAMESPACE, records)
        acknowledged = time.perf_counter()
        await writer.close()
        manifest, indexed, rest = await until_rest(
            site.looking, index_id, DEFAULT_NAMESPACE, lsn, self.limits
        )
        added = since(metrics, summed(site.metrics().values()))
        now = site.usage()
        done = Phase(
            records=work.written_records - before,
            sent_bytes=work.written_bytes - sent,
            acknowledged_s=acknowledged - began,
            indexed_s=indexed - began,
            rest_s=rest - began,
            cpu_s={role: now[role].cpu_s - used[role].cpu_s for role in now},
            peak_mb={role: now[role].peak_mb for role in now},
            written=labelled(added, "firndb_object_store_written_bytes"),
            jobs=labelled(added, "firndb_builder_written_bytes_total"),
            requests=labelled(added, "firndb_object_store_requests"),
            compactions=labelled(added, "firndb_builder_compactions_total"),
            shape=await shape_of(site.looking, self.schema.prefix, manifest),
        )
        print(line_of(done), flush=True)
        return done, manifest

    async def recall(self, manifest: Manifest) -> Recall:
        """Needs 3 KB of memory a record: after everything whose memory counts."""
        queries = query_vectors()[300:]
        truth = self.work.true_neighbours(queries, TOP_K)
        names = [record_id(n) for n in truth.ravel().tolist()]
        places = await cells_holding(
            self.site.looking, self.folder / "looking", manifest, sorted(set(names))
        )
        cell = dict(zip(sorted(set(names)), places.tolist(), strict=True))
        found_in = np.array([cell[n] for n in names], dtype=np.int64).reshape(truth.shape)
        ours = rows_needed(cells_of(manifest), queries, found_in)
        numbers, data = self.work.live_vectors()
        rows_max = self.limits.split_bytes // (4 * DIMENSION)
        clusters = clusters_of(data.nbytes, self.limits)
        made = await asyncio.to_thread(cluster, data, Metric.COSINE, clusters, rows_max)
        where = np.full(int(numbers.max()) + 1, NO_CELL, dtype=np.int64)
        for number, members in enumerate(made.members):
            where[numbers[members]] = number
        sizes = np.array([len(members) for members in made.members], dtype=np.int64)
        fresh = rows_needed(Cells(made.centroids, sizes, 0), queries, where[truth])
        rows = int(np.quantile(fresh, 0.95))
        return Recall(
            rows=rows,
            ours=recall_at(ours, rows),
            fresh=recall_at(fresh, rows),
            rows_ours_095=int(np.quantile(ours, 0.95)),
            clusters_ours=int(np.count_nonzero(cells_of(manifest).rows)),
            clusters_fresh=len(sizes),
        )

    async def queried(self, host: str) -> tuple[Latency, float]:
        """Warm: the first round fills caches, the second is measured. Latency and recall@10."""
        queries = query_vectors()[300:]
        truth = self.work.true_neighbours(queries, TOP_K)
        client = RawClient(host, KEY)
        taken: list[float] = []
        found = 0
        try:
            for measured in (False, True):
                for query, expected in zip(queries, truth, strict=True):
                    seconds, answer, _ = await client.post("/query", query_body(query, TOP_K))
                    if measured:
                        taken.append(seconds)
                        ids = {match["id"] for match in answer["matches"]}
                        found += sum(record_id(n) in ids for n in expected.tolist())
        finally:
            await client.close()
        return Latency.of(taken), found / truth.size


async def measure(name: str, options: argparse.Namespace, folder: Path) -> Figures:
    base = vectors()
    if options.embeddings is not None:
        base = np.load(options.embeddings).astype(np.float32)
    work = Workload(Enlarged(base))
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(SITES[name](folder))
        bench = Bench(site, work, folder)
        memory = AnonymousMemory(site.pids)
        loaded, manifest = await bench.phase(options.records)
        figures = Figures(loaded)
        for _ in range(options.churn_rounds):
            done, manifest = await bench.phase(0, options.churn)
            figures.churn.append(done)
        memory.stop()
        figures.anonymous_mb = memory.peak_mb
        if options.recall:
            figures.recall = await bench.recall(manifest)
        if site.host:
            figures.query, figures.query_recall = await bench.queried(site.host)
            figures.served_peak_mb = site.usage()["api"].peak_mb
    if not site.host:
        async with served_again(folder) as (host, pid):
            figures.query, figures.query_recall = await bench.queried(host)
            figures.served_peak_mb = usage(pid).peak_mb
    return figures


def line_of(done: Phase) -> str:
    """One phase while it goes on."""
    shape = done.shape
    return (
        f"{done.records:>9,} records: acknowledged {done.records / done.acknowledged_s:,.0f}/s, "
        f"indexed {done.records / done.indexed_s:,.0f}/s, rest after {done.rest_s:.1f} s, "
        f"written {done.amplification:.2f}x, {shape.clusters} clusters, {shape.deltas} deltas, "
        f"unfolded at most {shape.unfolded_deltas} deltas and {shape.unfolded_share:.0%} of a "
        f"cluster; cpu " + ", ".join(f"{role} {s:.0f} s" for role, s in done.cpu_s.items())
    )


def churn_amplification(figures: Figures) -> float:
    sent = sum(done.sent_bytes for done in figures.churn)
    return sum(sum(done.written.values()) for done in figures.churn) / sent if sent else 0.0


def rows_of(figures: Figures) -> dict[str, str]:
    load, last = figures.load, (figures.churn or [figures.load])[-1]
    shape = last.shape
    shown = {
        "records of 384 dimensions": f"{load.records:,}",
        "records/s acknowledged": f"{load.records / load.acknowledged_s:,.0f}",
        "records/s indexed": f"{load.records / load.indexed_s:,.0f}",
        "records/s until at rest": f"{load.records / load.rest_s:,.0f}",
        "MB sent (ids, vectors, metadata)": f"{load.sent_bytes / 1e6:,.0f}",
        "write amplification, load": f"{load.amplification:.2f}",
    }
    for kind, size in sorted(load.written.items(), key=lambda item: -item[1]):
        if size:
            shown[f"  of it {kind}"] = f"{size / load.sent_bytes:.3f}"
    for verb in ("gets", "puts", "lists", "deletes", "stats"):
        shown[f"{verb}, load"] = f"{load.requests.get(verb, 0):,.0f}"
    for role, cpu in load.cpu_s.items():
        shown[f"CPU s per million records, {role}"] = f"{cpu * 1e6 / load.records:,.0f}"
    for role, peak in last.peak_mb.items():
        shown[f"peak memory MB, {role}"] = f"{peak:,.0f}"
        shown[f"  of it not of files, {role}"] = f"{figures.anonymous_mb.get(role, 0):,.0f}"
    if figures.churn:
        shown["write amplification, churn"] = f"{churn_amplification(figures):.2f}"
        rounds = [done.amplification for done in figures.churn]
        shown["  lowest and highest round"] = f"{min(rounds):.2f} {max(rounds):.2f}"
    shown |= {
        "objects that the index consists of": f"{shape.named_objects:,}",
        "  MB of them": f"{shape.named_bytes / 1e6:,.0f}",
        "objects stored, garbage of the last hour too": f"{shape.objects:,}",
        "  MB of them all": f"{shape.stored_bytes / 1e6:,.0f}",
        "manifest KB": f"{shape.manifest_bytes / 1e3:,.0f}",
        "clusters": f"{shape.clusters:,}",
        "rows a cluster p10 p50 max": f"{shape.cluster_rows_p10} {shape.cluster_rows_p50} "
        f"{shape.cluster_rows_max}",
        "deltas at rest": f"{shape.deltas}",
        "deltas with rows of one cluster, max": f"{shape.unfolded_deltas}",
        "share of a cluster in deltas, max": f"{shape.unfolded_share:.2f}",
    }
    if figures.recall is not None:
        recall = figures.recall
        shown["rows probed"] = f"{recall.rows:,}"
        shown["recall@10 there"] = f"{recall.ours:.4f}"
        shown["  of a fresh clustering"] = f"{recall.fresh:.4f}"
    if figures.query is not None:
        shown["warm query, p50 / p99 ms"] = f"{figures.query.p50:.1f} / {figures.query.p99:.1f}"
        shown["recall@10 of queries"] = f"{figures.query_recall:.4f}"
        shown["peak memory MB, serving queries"] = f"{figures.served_peak_mb:,.0f}"
    return shown


def table(all_figures: Mapping[str, Figures]) -> str:
    columns = {name: rows_of(figures) for name, figures in all_figures.items()}
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    width = max(map(len, names))
    lines = [" " * width + "".join(f"{name:>22}" for name in columns)]
    for name in names:
        cells = (column.get(name, "") for column in columns.values())
        lines.append(name.ljust(width) + "".join(f"{cell:>22}" for cell in cells))
    return "\n".join(lines)


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure FirnDB's index builder.")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--deployments", default="embedded,kafka")
    parser.add_argument("--churn-rounds", type=int, default=10)
    parser.add_argument("--churn", type=float, default=0.1, help="share of a round")
    parser.add_argument("--embeddings", type=Path, help="real ones to enlarge, .npy (n, 384)")
    parser.add_argument("--recall", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--folder", type=Path, help="where the data goes while it runs")
    parser.add_argument("--json", type=Path, default=RESULTS / "builder.json")
    return parser.parse_args(arguments)


def main() -> None:
    options = options_of()
    figures: dict[str, Figures] = {}
    for name in options.deployments.split(","):
        with tempfile.TemporaryDirectory(prefix="firndb-bench-", dir=options.folder) as folder:
            print(f"{name}:", flush=True)
            figures[name] = asyncio.run(measure(name, options, Path(folder)))
    print(table(figures))
    machine = {"cores": os.cpu_count(), "python": platform.python_version()}
    report = {"machine": machine, **{name: asdict(f) for name, f in figures.items()}}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=2))
    print(f"written to {options.json}")


if __name__ == "__main__":
    main()
