"""When an index is at rest, what its files are like then, and where records are in them."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.probing import I64, NO_CELL, Cells
from builder.policy import CompactionLimits, plan
from core.object_store import ObjectStore
from storage.commit import ManifestStore
from storage.file_cache import FileCache
from storage.groups import group_live
from storage.manifest import DataFile, Manifest
from storage.namespace import NamespaceReader
from storage.references import keys_of

LOOK_S = 0.5
WAIT_S = 3600.0


@dataclass(frozen=True, slots=True)
class Shape:
    """named_objects: what the newest manifest needs, with itself and its hint. unfolded_deltas: the
    most deltas that hold rows of one cluster; unfolded_share: the most rows of a cluster in deltas,
    over all its rows.
    """

    records: int
    clusters: int
    deltas: int
    id_runs: int
    named_objects: int
    named_bytes: int
    objects: int
    stored_bytes: int
    manifest_bytes: int
    cluster_rows_p10: int
    cluster_rows_p50: int
    cluster_rows_max: int
    dead_rows: int
    unfolded_rows: int
    unfolded_deltas: int
    unfolded_share: float


async def until_rest(
    store: ObjectStore, index_id: str, namespace: str, lsn: int, limits: CompactionLimits
) -> tuple[Manifest, float, float]:
    """The manifest at rest; when `lsn` was indexed, and when there was rest (perf_counter)."""
    manifests = ManifestStore(store)
    indexed = 0.0
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        manifest = await manifests.newest(index_id, namespace)
        now = time.perf_counter()
        if manifest is not None and manifest.indexed_lsn >= lsn:
            indexed = indexed or now
            if await asyncio.to_thread(plan, manifest, limits) is None:
                return manifest, indexed, now
        await asyncio.sleep(LOOK_S)
    raise RuntimeError(f"no rest within {WAIT_S} s: {manifest and manifest.version}")


async def shape_of(store: ObjectStore, prefix: str, manifest: Manifest) -> Shape:
    objects = stored = newest = 0
    async for info in store.list(prefix):
        objects, stored = objects + 1, stored + info.size
        if "/manifests/" in info.key:
            newest = info.size
    cells = cells_of(manifest)
    rows = np.sort(cells.rows[cells.rows > 0])
    unfolded: Counter[int] = Counter()
    deltas: Counter[int] = Counter()
    for file in _deltas(manifest):
        for cluster, live in group_live(file).items():
            if cluster >= 0 and live:
                unfolded[cluster] += live
                deltas[cluster] += 1
    shares = [count / cells.rows[cluster] for cluster, count in unfolded.items()]
    return Shape(
        records=manifest.record_count,
        clusters=len(rows),
        deltas=len(_deltas(manifest)),
        id_runs=len(manifest.id_runs),
        named_objects=len(keys_of(manifest, prefix)) + 2,
        named_bytes=manifest.byte_count,
        objects=objects,
        stored_bytes=stored,
        manifest_bytes=newest,
        cluster_rows_p10=int(np.quantile(rows, 0.1)) if len(rows) else 0,
        cluster_rows_p50=int(np.quantile(rows, 0.5)) if len(rows) else 0,
        cluster_rows_max=int(rows[-1]) if len(rows) else 0,
        dead_rows=sum(file.dead_count for file in manifest.files),
        unfolded_rows=sum(file.live for file in _deltas(manifest)),
        unfolded_deltas=max(deltas.values(), default=0),
        unfolded_share=float(max(shares, default=0.0)),
    )


def cells_of(manifest: Manifest) -> Cells:
    """Live rows by cluster, deltas' groups included."""
    centroids = manifest.centroid_matrix()
    rows = np.zeros(len(centroids), dtype=np.int64)
    loose = 0
    for file in manifest.files:
        live = group_live(file) if file.is_delta else {file.cluster: file.live}
        for cluster, count in live.items():
            if cluster >= 0:
                rows[cluster] += count
            else:
                loose += count
    return Cells(centroids, rows, loose)


async def cells_holding(
    store: ObjectStore, folder: Path, manifest: Manifest, names: list[str]
) -> I64:
    """int64 (names,): the cluster of each record, `NO_CELL` in an ungrouped file."""
    cache = FileCache(store, folder, 8 << 30)
    reader = NamespaceReader(cache, manifest)
    found = await reader.locate(names)
    await cache.close()
    missing = set(names) - found.keys()
    if missing:
        raise RuntimeError(f"{len(missing)} records are in no file, {sorted(missing)[:3]}")
    return np.array(
        [_cell(manifest.files[found[n].file], found[n].row) for n in names], dtype=np.int64
    )


def _cell(file: DataFile, row: int) -> int:
    if not file.is_delta:
        return file.cluster
    return max(((first, c) for c, first in file.groups if first <= row), default=(0, NO_CELL))[1]


def _deltas(manifest: Manifest) -> list[DataFile]:
    return [file for file in manifest.files if file.is_delta]
