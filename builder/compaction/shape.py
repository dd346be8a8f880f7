"""What a namespace's files are like, for people who look: sizes, what is not folded, what is due.

Pure, from the manifest alone.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from builder.policy import CompactionLimits, plan
from storage.groups import UNGROUPED, group_live
from storage.manifest import Manifest

# Upper ends, inclusive, of the histogram of clusters by bytes of their vectors; one more above.
CLUSTER_BYTES = (1 << 18, 1 << 19, 1 << 20, 1 << 21, 3 << 20, 1 << 22, 6 << 20, 1 << 23)


@dataclass(frozen=True, slots=True)
class Shape:
    """clusters: counts by size, one for each of `CLUSTER_BYTES` and one above; deltas of one
    cluster's rows count as its. unfolded_bytes: of live rows in deltas; unfolded_share: the most of
    one cluster's rows that are there. dead_bytes: of dead rows. debt_bytes: both, while compaction
    has a job to do; 0 at rest.
    """

    clusters: tuple[int, ...]
    deltas: int
    dead_rows: int
    unfolded_bytes: int
    unfolded_share: float
    dead_bytes: int
    debt_bytes: int

    @property
    def cluster_count(self) -> int:
        return sum(self.clusters)


def shape_of(manifest: Manifest, limits: CompactionLimits) -> Shape:
    """Some milliseconds for a million records: off the event loop."""
    rows: dict[int, int] = {}
    unfolded: dict[int, int] = {}
    unfolded_bytes = dead_rows = dead_bytes = 0.0
    deltas = [file for file in manifest.files if file.is_delta]
    for file in manifest.files:
        stored = file.columns.size + (0 if file.vectors is None else file.vectors.size)
        dead_rows += file.dead_count
        dead_bytes += stored * file.dead_count / max(1, file.rows)
        if file.is_delta:
            unfolded_bytes += stored * file.live / max(1, file.rows)
        for cluster, live in group_live(file).items():
            rows[cluster] = rows.get(cluster, 0) + live
            if file.is_delta:
                unfolded[cluster] = unfolded.get(cluster, 0) + live
    rows.pop(UNGROUPED, None)
    shares = [unfolded.get(cluster, 0) / live for cluster, live in rows.items() if live]
    due = plan(manifest, limits) is not None
    return Shape(
        clusters=histogram(live * manifest.dimension * 4 for live in rows.values()),
        deltas=len(deltas),
        dead_rows=int(dead_rows),
        unfolded_bytes=int(unfolded_bytes),
        unfolded_share=max(shares, default=0.0),
        dead_bytes=int(dead_bytes),
        debt_bytes=int(unfolded_bytes + dead_bytes) if due else 0,
    )


def histogram(sizes: Iterable[int]) -> tuple[int, ...]:
    """How many are within each bound of `CLUSTER_BYTES`, and above the last."""
    counts = [0] * (len(CLUSTER_BYTES) + 1)
    for size in sizes:
        counts[bisect_left(CLUSTER_BYTES, size)] += 1
    return tuple(counts)


def histogram_text(counts: Sequence[int]) -> str:
    """`3 up to 1 MiB, 12 up to 4 MiB`: only what is there; "" for no clusters."""
    named = [f"up to {_size(bound)}" for bound in CLUSTER_BYTES]
    named.append(f"above {_size(CLUSTER_BYTES[-1])}")
    return ", ".join(f"{n} {name}" for n, name in zip(counts, named, strict=True) if n)


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count >> 10} KiB"
