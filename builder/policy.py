"""When to flush and what to compact: pure functions from metadata to a decision.

The trade-off everywhere: bytes rewritten against files and unsorted rows that a query has to read.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil

import numpy as np
import numpy.typing as npt

from builder.compaction.cluster import occupied
from builder.compaction.reassign import Sizes
from builder.compaction.run_policy import RunJob, RunLimits, plan_runs
from storage.groups import UNGROUPED, group_live, groups_of
from storage.manifest import DataFile, Manifest


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
    """What waits for the next flush of one namespace. age_s: of the oldest entry. attaches: until
    they are in the index, nothing of the namespace can be read.
    """

    records: int
    bytes: int
    age_s: float
    filter_operations: int
    attaches: int = 0


def due_in_s(load: PendingLoad, limits: FlushLimits, debt: float) -> float:
    """Seconds until a flush is due if nothing is added; 0: now. `debt` (>= 0): deltas over
    the most that is wanted, as a fraction of it.

    A namespace whose compaction is behind flushes less often, in bigger deltas: age and filter
    operations count for less, the bounds of memory stay.
    """
    patience = 1.0 + min(debt, 8.0)
    if outgrown(load, limits, patience):
        return 0.0
    return max(0.0, limits.age_s * patience - load.age_s)


def outgrown(load: PendingLoad, limits: FlushLimits, patience: float = 1.0) -> bool:
    """A flush is due whatever the age."""
    return (
        load.attaches > 0
        or load.records >= limits.records
        or load.bytes >= limits.bytes
        or load.filter_operations >= limits.filter_operations * patience
    )


@dataclass(frozen=True, slots=True)
class CompactionLimits:
    """Sizes that shape a namespace's files. Rows of a sparse index count `sparse_file_rows`.

    cluster_bytes: vectors of one cluster at its best (measured: ~4 MB balances GETs, bytes and
    rewriting). split_bytes: a bigger one is split; also where the first clustering happens. A
    cluster under a quarter of `cluster_bytes` is merged away; a split makes none under 3/8, so that
    one must lose a third of its rows before it goes. neighbours: clusters next to a split one whose
    rows are compared with the new centroids at once, 0 for none (then it is done when they are
    folded).
    deltas: the most at rest. fold_fraction: rows of deltas, or dead rows, over rows of the
    file before it is rewritten: 0.5 rewrites (1 + 0.5) / 0.5 = 3 rows for each row that arrives,
    and lets a probe read up to half as many rows again.
    dead_fraction: the same for dead rows of a namespace without clusters, from `dead_rows_min` on,
    below which a rewrite costs more than what it saves. job_bytes: the most vectors one job holds
    in memory (a job of one file or one cluster always goes).
    """

    cluster_bytes: int = 4 << 20
    split_bytes: int = 6 << 20
    deltas: int = 8
    fold_fraction: float = 0.5
    dead_fraction: float = 0.3
    dead_rows_min: int = 100
    sparse_file_rows: int = 16_384
    job_bytes: int = 64 << 20
    neighbours: int = 16
    id_runs: RunLimits = field(default_factory=RunLimits)


@dataclass(frozen=True, slots=True)
class FoldFiles:
    """Live rows of these files (uuids) into as few unclustered files as their bound allows."""

    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FirstClustering:
    """Live rows of these files (uuids), which are all, into about so many clusters.

    files = (): more than one job may hold; only the centroids are found, from a sample, and the
    files are grouped by them one after the other.
    """

    clusters: int
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FoldClusters:
    """Each of these clusters and its rows in grouped deltas into a new file, split if too big."""

    clusters: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MergeClusters:
    """The rows of these clusters to the others; their numbers become vacant."""

    clusters: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MergeDeltas:
    """Live rows of these files (uuids, one is enough) into one delta, grouped anew."""

    files: tuple[str, ...]


Compaction = FoldFiles | FirstClustering | FoldClusters | MergeClusters | MergeDeltas | RunJob


def plan(manifest: Manifest, limits: CompactionLimits) -> Compaction | None:
    """The next job, or None when the namespace is at rest. Every job brings it nearer to rest."""
    if manifest.deleted or not manifest.files or any(file.inline for file in manifest.files):
        return None  # a tiny namespace lies in its manifest until a flush spills it
    job: Compaction | None = plan_runs(manifest, limits.id_runs, urgency=2.0)
    if job is not None:
        return job
    if not manifest.dimension:
        job = _plan_sparse(manifest, limits)
    elif not manifest.centroids:
        job = _plan_small(manifest, limits)
    else:
        job = _plan_clustered(manifest, limits)
    return job or plan_runs(manifest, limits.id_runs)


def may_need_compaction(manifest: Manifest, limits: CompactionLimits) -> bool:
    """A quick look without opening a bitmap: False only if `plan` has nothing to do."""
    if len(manifest.files) <= 1 and plan_runs(manifest, limits.id_runs) is None:
        live_bytes = manifest.record_count * manifest.dimension * 4
        worn = any(_many_dead(f.dead_count, f.rows, limits) for f in manifest.files)
        return worn or bool(manifest.centroids) or live_bytes > limits.split_bytes
    return True


def delta_debt(manifest: Manifest, limits: CompactionLimits) -> float:
    """Deltas over the bound, as a fraction of it; 0 at rest."""
    return max(0, len(_deltas(manifest)) - limits.deltas) / limits.deltas


def clusters_of(live_bytes: int, limits: CompactionLimits) -> int:
    """How many clusters hold so many bytes of vectors; 1 up to the size that is split."""
    return 1 if live_bytes <= limits.split_bytes else ceil(live_bytes / limits.cluster_bytes)


def sizes_of(dimension: int, limits: CompactionLimits) -> Sizes:
    """The bounds of a cluster in rows of `dimension` float32 values."""
    row_bytes = 4 * dimension
    return Sizes(
        most=max(1, limits.split_bytes // row_bytes),
        least=limits.cluster_bytes * 3 // 8 // row_bytes,
    )


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
    """First what is in no group, because each fold would miss some of it; then clusters that are
    too small, too big or much changed; then the number of deltas.
    """
    row_bytes = manifest.dimension * 4
    live_bytes = manifest.record_count * row_bytes
    # Half of what made it clusters: one file it was, and one it is again.
    if live_bytes <= min(limits.cluster_bytes, limits.split_bytes // 2):
        return FoldFiles(tuple(f.uuid for f in manifest.files))
    loose = next((f for f in manifest.files if _loose(f, row_bytes, limits)), None)
    if loose is not None:
        return MergeDeltas((loose.uuid,))
    load = _load(manifest)
    merge = _clusters_to_merge(load, row_bytes, limits)
    if merge:
        return MergeClusters(merge)
    fold = _clusters_to_fold(load, row_bytes, limits)
    if fold:
        return FoldClusters(fold)
    deltas = _deltas(manifest)
    if len(deltas) > limits.deltas:
        return _merge_deltas(deltas, manifest.dimension, limits)
    return None


def _loose(file: DataFile, row_bytes: int, limits: CompactionLimits) -> bool:
    """Every probe reads ungrouped rows, so many of them are not left like that."""
    if not file.is_delta:
        return file.cluster == UNGROUPED
    if not any(n == UNGROUPED for n, _, _ in groups_of(file)):
        return False
    return group_live(file)[UNGROUPED] * row_bytes * 4 > limits.cluster_bytes


def _first_clustering(manifest: Manifest, limits: CompactionLimits) -> FirstClustering:
    live_bytes = _live(manifest.files) * manifest.dimension * 4
    clusters = clusters_of(live_bytes, limits)
    if live_bytes > limits.job_bytes:
        return FirstClustering(clusters, ())
    return FirstClustering(clusters, tuple(file.uuid for file in manifest.files))


@dataclass(frozen=True, slots=True, eq=False)
class _Load:
    """Rows of each cluster number, int64 (clusters,): live ones of its files, dead ones of those,
    live ones in groups of deltas. used: bool (clusters,), False where the number is vacant.
    """

    settled: npt.NDArray[np.int64]
    dead: npt.NDArray[np.int64]
    added: npt.NDArray[np.int64]
    used: npt.NDArray[np.bool_]


def _load(manifest: Manifest) -> _Load:
    centroids = manifest.centroid_matrix()
    used = np.zeros(len(centroids), dtype=np.bool_)
    used[occupied(centroids)] = True
    settled, dead, added = (np.zeros(len(used), dtype=np.int64) for _ in range(3))
    for file in manifest.files:
        if file.is_delta:
            for number, rows in group_live(file).items():
                if number != UNGROUPED:
                    added[number] += rows
        elif file.cluster != UNGROUPED:
            settled[file.cluster] += file.live
            dead[file.cluster] += file.dead_count
    return _Load(settled, dead, added, used)


def _clusters_to_merge(load: _Load, row_bytes: int, limits: CompactionLimits) -> tuple[int, ...]:
    """The smallest first, at most half of all: their rows make the others bigger, and those may
    then be big enough.

    Trade-off: a small file costs a GET for few rows; merging it away writes its rows once more, and
    once more when they are folded. It ends: each merge leaves fewer clusters, and nothing but
    deletions makes one that small (see `Sizes`).
    """
    rows = load.settled + load.added
    small = np.flatnonzero(load.used & (rows * row_bytes * 4 < limits.cluster_bytes))
    small = small[np.argsort(rows[small], kind="stable")]
    bounded = np.cumsum(rows[small]) * row_bytes <= limits.job_bytes
    few = int(np.count_nonzero(load.used)) // 2
    return tuple(sorted(small[bounded][:few].tolist()))


def _clusters_to_fold(load: _Load, row_bytes: int, limits: CompactionLimits) -> tuple[int, ...]:
    """Worst first, as many as one job may hold; of the last one perhaps only a part.

    Trade-off: rows of deltas, and dead rows, that a probe reads for nothing, against rewriting the
    whole file for them; `fold_fraction` sets the price.
    """
    # A cluster that has few rows is not rewritten for each handful that joins it.
    floor = max(limits.cluster_bytes // row_bytes // 4, 1)
    # A third over, so that most splits come with the fold that is due anyway: growing by half
    # twice costs 3 rows written for each new one, a fold at the very bound made it 3.5.
    excess = (load.settled + load.added) * row_bytes * 3 / (limits.split_bytes * 4)
    changed = np.maximum(load.added, load.dead)
    pressure = changed / np.maximum(load.settled + load.dead, floor) / limits.fold_fraction
    urgency = np.maximum(excess, pressure)
    chosen: list[int] = []
    room = limits.job_bytes
    for number in np.argsort(-urgency, kind="stable").tolist():
        if urgency[number] <= 1.0:
            break
        room -= int(load.settled[number] + load.added[number]) * row_bytes
        if chosen and room < 0:
            break
        chosen.append(number)
    return tuple(chosen)


def _merge_deltas(
    deltas: Sequence[DataFile], dimension: int, limits: CompactionLimits
) -> MergeDeltas | FoldFiles | None:
    """The smallest ones: as many as make it the fewest rows written for each delta less.

    Trade-off: every query opens each delta, every merge writes rows again. Big deltas are left
    alone while small ones come: with 8 places, rows of the first 44 flushes of one size are written
    once more, those of the first 164 twice (Bentley and Saxe's binomial transform).
    """
    by_size = sorted(deltas, key=lambda f: (bool(f.groups) or not dimension, f.live, f.uuid))
    written = np.cumsum([file.live for file in by_size])
    price = written[1:] / np.arange(1, len(by_size))
    chosen = by_size[: len(price) + 1 - int(np.argmin(price[::-1]))]
    room = limits.job_bytes
    kept: list[str] = []
    for file in chosen:
        room -= file.live * max(dimension, 1) * 4
        if len(kept) >= 2 and room < 0:
            break
        kept.append(file.uuid)
    return MergeDeltas(tuple(kept)) if len(kept) >= 2 else None


def _deltas(manifest: Manifest) -> list[DataFile]:
    return [f for f in manifest.files if f.is_delta]


def _live(files: Iterable[DataFile]) -> int:
    return sum(f.live for f in files)


def _many_dead(dead: int, rows: int, limits: CompactionLimits) -> bool:
    return dead >= limits.dead_rows_min and dead > limits.dead_fraction * rows
