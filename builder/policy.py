"""When to flush and what to compact: pure functions from metadata to a decision.

The trade-off everywhere: bytes rewritten against files and unsorted rows that a query has to read.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil

from storage.manifest import DataFile, Manifest

UNGROUPED = -1


@dataclass(frozen=True, slots=True)
class FlushLimits:
    """A namespace is flushed once any of these is reached.

    records: rows of one delta worth a file of their own. bytes: about a second of full ingest on
    one core (10,000 x 384 x 4). age_s: writes are in the index within 1-2 s. filter_operations:
    each pending one is replayed by every query on every candidate row.
    """

    records: int = 20_000
    bytes: int = 16 << 20
    age_s: float = 1.0
    filter_operations: int = 8


@dataclass(frozen=True, slots=True)
class PendingLoad:
    """What waits for the next flush of one namespace. age_s: of the oldest entry."""

    records: int
    bytes: int
    age_s: float
    filter_operations: int


def should_flush(load: PendingLoad, limits: FlushLimits, debt: float) -> bool:
    """`debt` (>= 0): deltas over the most that is wanted, as a fraction of it.

    A namespace whose compaction is behind flushes less often, in bigger deltas: age and filter
    operations count for less, the bounds of memory stay.
    """
    patience = 1.0 + min(debt, 8.0)
    return (
        load.records >= limits.records
        or load.bytes >= limits.bytes
        or load.age_s >= limits.age_s * patience
        or load.filter_operations >= limits.filter_operations * patience
    )


@dataclass(frozen=True, slots=True)
class CompactionLimits:
    """Sizes that shape a namespace's files. Rows of a sparse index count `sparse_file_rows`.

    cluster_bytes: vectors of one cluster at its best (measured: ~4 MB balances GETs, bytes and
    rewriting). split_bytes: a bigger one is split; also where the first clustering happens.
    deltas, runs: the most at rest. fold_fraction: rows of deltas, or dead rows, over rows of the
    file before it is rewritten: 0.5 rewrites (1 + 0.5) / 0.5 = 3 rows for each row that arrives,
    and lets a probe read up to half as many rows again.
    dead_fraction: the same for dead rows of a namespace without clusters, from `dead_rows_min` on,
    below which a rewrite costs more than what it saves. job_bytes: the most vectors one job holds
    in memory (a job of one file or one cluster always goes).
    """

    cluster_bytes: int = 4 << 20
    split_bytes: int = 8 << 20
    deltas: int = 8
    runs: int = 8
    fold_fraction: float = 0.5
    dead_fraction: float = 0.3
    dead_rows_min: int = 100
    sparse_file_rows: int = 16_384
    job_bytes: int = 64 << 20


@dataclass(frozen=True, slots=True)
class FoldFiles:
    """Live rows of these files (uuids) into as few unclustered files as their bound allows."""

    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recluster:
    """Live rows of these files (uuids) into about so many clusters with new centroids.

    Files that are left out are deltas; they are grouped by the new centroids later.
    """

    clusters: int
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FoldClusters:
    """Each of these clusters and its rows in grouped deltas into a new file, split if too big."""

    clusters: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MergeDeltas:
    """Live rows of these deltas (uuids, one is enough) into one delta, grouped anew."""

    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MergeRuns:
    """These id runs (object names) into one."""

    runs: tuple[str, ...]


Compaction = FoldFiles | Recluster | FoldClusters | MergeDeltas | MergeRuns


def plan(manifest: Manifest, limits: CompactionLimits) -> Compaction | None:
    """The next job, or None when the namespace is at rest. Every job brings it nearer to rest."""
    if manifest.deleted or not manifest.files:
        return None
    if not manifest.dimension:
        job = _plan_sparse(manifest, limits)
    elif not manifest.centroids:
        job = _plan_small(manifest, limits)
    else:
        job = _plan_clustered(manifest, limits)
    return job or _merge_runs(manifest, limits)


def may_need_compaction(manifest: Manifest, limits: CompactionLimits) -> bool:
    """A quick look without opening a bitmap: False only if `plan` has nothing to do."""
    if len(manifest.files) <= 1 and len(manifest.id_runs) <= limits.runs:
        live_bytes = manifest.record_count * manifest.dimension * 4
        worn = any(_many_dead(f.dead_count, f.rows, limits) for f in manifest.files)
        return worn or bool(manifest.centroids) or live_bytes > limits.split_bytes
    return True


def delta_debt(manifest: Manifest, limits: CompactionLimits) -> float:
    """Deltas over the bound, as a fraction of it; 0 at rest."""
    return max(0, len(_deltas(manifest)) - limits.deltas) / limits.deltas


def group_live(delta: DataFile) -> dict[int, int]:
    """Live rows by cluster; all under `UNGROUPED` where the delta is not grouped."""
    dead = delta.dead_rows()
    starts = list(delta.groups) or [(UNGROUPED, 0)]
    ends = [first for _, first in starts[1:]] + [delta.rows]
    live: dict[int, int] = {}
    for (cluster, first), end in zip(starts, ends, strict=True):
        rows = end - first - dead.range_cardinality(first, end)
        live[cluster] = live.get(cluster, 0) + rows
    return live


def clusters_of(live_bytes: int, limits: CompactionLimits) -> int:
    """How many clusters hold so many bytes of vectors; 1 up to the size that is split."""
    return 1 if live_bytes <= limits.split_bytes else ceil(live_bytes / limits.cluster_bytes)


def _plan_sparse(manifest: Manifest, limits: CompactionLimits) -> Compaction | None:
    """Deltas go into files of bounded rows; files with many dead rows, and small ones, join in."""
    deltas = _deltas(manifest)
    files = [f for f in manifest.files if not f.is_delta]
    full = limits.sparse_file_rows
    # A small file costs little to take along, which keeps the number of files bounded.
    ready = [f for f in files if f.live < full // 2 or _many_dead(f.dead_count, f.rows, limits)]
    worn = any(_many_dead(f.dead_count, f.rows, limits) for f in files)
    if len(deltas) <= limits.deltas and not worn and len(ready) <= 2:
        return None
    pending = sum(f.live for f in deltas)
    if deltas and not worn and pending < limits.fold_fraction * min(_live(ready), full):
        return _merge_deltas(deltas, 0, limits)
    return FoldFiles(tuple(f.uuid for f in [*ready, *deltas]))


def _plan_small(manifest: Manifest, limits: CompactionLimits) -> Compaction | None:
    """Without centroids: one file and some deltas, until they outgrow one file."""
    live = _live(manifest.files)
    live_bytes = live * manifest.dimension * 4
    if live_bytes > limits.split_bytes:
        return _first_clustering(manifest, limits)
    deltas = _deltas(manifest)
    dead = sum(f.dead_count for f in manifest.files)
    worn = _many_dead(dead, live + dead, limits)
    files = len(manifest.files) - len(deltas)
    if len(deltas) <= limits.deltas and not worn and files <= 1:
        return None
    if not worn and files <= 1 and _live(deltas) < limits.fold_fraction * (live - _live(deltas)):
        return _merge_deltas(deltas, manifest.dimension, limits)
    return FoldFiles(tuple(f.uuid for f in manifest.files))


def _plan_clustered(manifest: Manifest, limits: CompactionLimits) -> Compaction | None:
    """Clusters that are too big or much changed first, then the number of deltas."""
    row_bytes = manifest.dimension * 4
    clusters = len(manifest.centroids) // row_bytes
    live_bytes = _live(manifest.files) * row_bytes
    # A quarter full on average: centroids that stand for nothing, files too small for their GETs.
    if clusters * limits.cluster_bytes > max(4 * live_bytes, 4 * limits.cluster_bytes):
        if live_bytes <= limits.split_bytes:
            return FoldFiles(tuple(f.uuid for f in manifest.files))
        return Recluster(
            clusters_of(live_bytes, limits), tuple(file.uuid for file in manifest.files)
        )
    fold = _clusters_to_fold(manifest, clusters, limits)
    if fold:
        return FoldClusters(fold)
    deltas = _deltas(manifest)
    # Every probe reads an ungrouped delta whole, so a big one is not left like that.
    loose = [f for f in deltas if not f.groups and f.live * row_bytes * 4 > limits.cluster_bytes]
    if loose:
        return MergeDeltas((loose[0].uuid,))
    if len(deltas) > limits.deltas:
        return _merge_deltas(deltas, manifest.dimension, limits)
    return None


def _first_clustering(manifest: Manifest, limits: CompactionLimits) -> Recluster:
    """What is there, or of a backlog as much as one job may hold: the rest joins cluster by
    cluster.
    """
    row_bytes = manifest.dimension * 4
    by_size = sorted(manifest.files, key=lambda f: (f.is_delta, -f.live, f.uuid))
    chosen: list[DataFile] = []
    for file in by_size:
        enough = _live([*chosen, file]) * row_bytes > limits.job_bytes
        if file.is_delta and chosen and enough:
            break
        chosen.append(file)
    clusters = clusters_of(_live(chosen) * row_bytes, limits)
    return Recluster(clusters, tuple(file.uuid for file in chosen))


def _clusters_to_fold(
    manifest: Manifest, clusters: int, limits: CompactionLimits
) -> tuple[int, ...]:
    """Worst first, as many as one job may hold."""
    settled, added, dead = [0] * clusters, [0] * clusters, [0] * clusters
    for file in manifest.files:
        if file.is_delta:
            for cluster, rows in group_live(file).items():
                if cluster != UNGROUPED:
                    added[cluster] += rows
        else:
            settled[file.cluster] += file.live
            dead[file.cluster] += file.dead_count
    row_bytes = manifest.dimension * 4
    # A cluster that has few rows is not rewritten for each handful that joins it.
    floor = limits.cluster_bytes // row_bytes // 4
    pressed: list[tuple[float, int]] = []
    for cluster in range(clusters):
        excess = (settled[cluster] + added[cluster]) * row_bytes / limits.split_bytes
        changed = max(added[cluster], dead[cluster])
        pressure = changed / max(settled[cluster], floor, 1) / limits.fold_fraction
        # A big cluster that one fold has just left big (a racing flush) is split by the next.
        if excess > 1.0 or pressure > 1.0:
            pressed.append((max(excess, pressure), cluster))
    chosen: list[int] = []
    room = limits.job_bytes
    for _, cluster in sorted(pressed, key=lambda p: (-p[0], p[1])):
        room -= (settled[cluster] + added[cluster]) * row_bytes
        if chosen and room < 0:
            break
        chosen.append(cluster)
    return tuple(chosen)


def _merge_deltas(
    deltas: Sequence[DataFile], dimension: int, limits: CompactionLimits
) -> MergeDeltas | FoldFiles | None:
    """The smaller half and one more: each row is merged about log2(rows) times at most."""
    by_size = sorted(deltas, key=lambda f: (bool(f.groups) or not dimension, f.live, f.uuid))
    chosen = by_size[: max(2, len(deltas) // 2 + 1)]
    room = limits.job_bytes
    kept: list[str] = []
    for file in chosen:
        room -= file.live * max(dimension, 1) * 4
        if len(kept) >= 2 and room < 0:
            break
        kept.append(file.uuid)
    return MergeDeltas(tuple(kept)) if len(kept) >= 2 else None


def _merge_runs(manifest: Manifest, limits: CompactionLimits) -> MergeRuns | None:
    """The smaller half and one more, so that a big run is not rewritten for a few small ones."""
    runs = sorted(manifest.id_runs, key=lambda r: (r.entries, r.object.name))
    if len(runs) <= limits.runs:
        return None
    return MergeRuns(tuple(r.object.name for r in runs[: len(runs) // 2 + 1]))


def _deltas(manifest: Manifest) -> list[DataFile]:
    return [f for f in manifest.files if f.is_delta]


def _live(files: Iterable[DataFile]) -> int:
    return sum(f.live for f in files)


def _many_dead(dead: int, rows: int, limits: CompactionLimits) -> bool:
    return dead >= limits.dead_rows_min and dead > limits.dead_fraction * rows
