"""Balanced k-means: which rows make up a cluster. CPU only; call it off the event loop.

k-means++ seeds and a few Lloyd rounds on a sample, one pass over all rows, then what is tiny is
dissolved and what is too big is cut in two until it fits. The same input gives the same clusters.
Cosine is clustered on the sphere; dotproduct and euclidean by L2 distance. A centroid of NaN is
vacant: it stands for no cluster.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.metric import F32, Metric

Rows = npt.NDArray[np.int64]

# 10 rounds: on real embeddings the later ones move < 1 % of the rows.
ROUNDS_MAX = 10
MOVED_MIN = 0.005
# 40 rows a centroid are enough to place it (the usual advice is 30-256) where there are many; few
# are cheap to place well. Bounds time and memory, as does the cap: 65,536 x 384 are 100 MB.
SAMPLE_PER_CLUSTER = 40
SAMPLE_MIN = 1 << 11
SAMPLE_MAX = 1 << 16
# Rows compared at a time: 4096 x 1000 centroids of float32 scores are 16 MB.
BLOCK = 4096
# A cut leaves each side at least this share, so that cutting ends after log(n) levels.
CUT_MIN = 0.25
SEED = 17


@dataclass(frozen=True, slots=True, eq=False)
class Clustering:
    """centroids: float32 (k, d), unit norm for cosine; members: k arrays of row numbers, ascending,
    none empty, each row in exactly one.
    """

    centroids: F32
    members: tuple[Rows, ...]


def cluster(
    vectors: F32, metric: Metric, clusters: int, rows_max: int, rows_min: int = 1
) -> Clustering:
    """About `clusters` (>= 1) clusters of at most `rows_max` (>= 1) rows of float32 (n, d), n >= 1.

    There are more clusters where the data is so uneven that some had to be cut, and fewer where
    some would have had less than `rows_min` rows (at most a quarter of `rows_max`, or cutting may
    go below it).
    """
    rng = np.random.default_rng(SEED)
    with np.errstate(all="ignore"):  # huge components overflow: poor clusters, but whole ones
        if clusters > 1:
            centroids = _trained(vectors, metric, clusters, rng)
            members = _dissolved(vectors, metric, centroids, rows_min)
        else:
            members = [np.arange(len(vectors), dtype=np.int64)]
        small: list[Rows] = []
        while members:
            rows = members.pop()
            if len(rows) <= rows_max:
                small.append(rows)
            else:
                members.extend(_cut(vectors, metric, rows))
        small.sort(key=lambda rows: int(rows[0]))
        centers = np.stack([center(vectors[rows], metric) for rows in small])
    return Clustering(centers, tuple(small))


def train(sample: F32, metric: Metric, clusters: int) -> F32:
    """About `clusters` centroids, float32 (k, d), of a sample of at least one row."""
    with np.errstate(all="ignore"):
        return _trained(sample, metric, clusters, np.random.default_rng(SEED))


def nearest(vectors: F32, centroids: F32, metric: Metric) -> npt.NDArray[np.int32]:
    """int32 (n,): for each row the centroid that it belongs to, of which at least one is not
    vacant.
    """
    result = np.empty(len(vectors), dtype=np.int32)
    numbers = occupied(centroids)
    centroids = centroids[numbers] if len(numbers) < len(centroids) else centroids
    with np.errstate(all="ignore"):
        for start in range(0, len(vectors), BLOCK):
            block = vectors[start : start + BLOCK]
            best = np.argmax(goodness(block, centroids, metric), axis=1)
            result[start : start + BLOCK] = numbers[best]
    return result


def occupied(centroids: F32) -> Rows:
    """int64: the numbers of the centroids that are not vacant, ascending."""
    return np.flatnonzero(~np.isnan(centroids).any(axis=1))


def goodness(vectors: F32, centroids: F32, metric: Metric) -> F32:
    """float32 (n, clusters): the higher, the nearer. Comparable within a row."""
    scores: F32 = vectors @ centroids.T - _offsets(centroids, metric)
    return scores


def _offsets(centroids: F32, metric: Metric) -> F32 | np.float32:
    """argmin |v - c|^2 is argmax v.c - |c|^2 / 2; on the sphere all |c| are the same."""
    if metric is Metric.COSINE:
        return np.float32(0.0)
    halves: F32 = np.einsum("ij,ij->i", centroids, centroids) * np.float32(0.5)
    return halves


def center(vectors: F32, metric: Metric) -> F32:
    """The centre of some rows, at least one: float32 (d,), unit norm for cosine."""
    if metric is Metric.COSINE:
        vectors = unit(vectors)
    middle: F32 = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    if metric is Metric.COSINE:
        length = float(np.linalg.norm(middle))
        # Opposite rows may cancel out; any of them is as good a centre as another.
        middle = middle / np.float32(length) if length > 1e-12 else vectors[0].copy()
    return middle


def unit(vectors: F32) -> F32:
    """The rows scaled to length 1; zero rows stay zero."""
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    lengths[lengths == 0.0] = 1.0
    scaled: F32 = (vectors / lengths[:, None]).astype(np.float32)
    return scaled


def _trained(vectors: F32, metric: Metric, clusters: int, rng: np.random.Generator) -> F32:
    """float32 (clusters, d) from a sample of the rows."""
    wanted = max(SAMPLE_MIN, min(clusters * SAMPLE_PER_CLUSTER, SAMPLE_MAX), clusters)
    size = min(len(vectors), wanted)
    sample = vectors[np.sort(rng.choice(len(vectors), size, replace=False))]
    if metric is Metric.COSINE:
        sample = unit(sample)
    centroids = _seeds(sample, min(clusters, size), rng)
    before = np.full(size, -1, dtype=np.int32)
    for _ in range(ROUNDS_MAX):
        assigned = nearest(sample, centroids, metric)
        if np.count_nonzero(assigned != before) <= MOVED_MIN * size:
            break
        before = assigned
        order = np.argsort(assigned, kind="stable")
        bounds = np.searchsorted(assigned[order], np.arange(len(centroids) + 1))
        for number in range(len(centroids)):
            rows = order[bounds[number] : bounds[number + 1]]
            # A centroid that lost all its rows starts anew at a random one.
            seed = sample[rows] if len(rows) else sample[rng.integers(size)][None]
            centroids[number] = center(seed, metric)
    return centroids


def _seeds(sample: F32, clusters: int, rng: np.random.Generator) -> F32:
    """k-means++ (Arthur and Vassilvitskii 2007): rows drawn by squared distance to the chosen."""
    seeds = np.empty((clusters, sample.shape[1]), dtype=np.float32)
    seeds[0] = sample[rng.integers(len(sample))]
    squares = np.einsum("ij,ij->i", sample, sample)
    distances = np.full(len(sample), np.inf)
    for number in range(1, clusters):
        last = seeds[number - 1]
        towards = squares - 2 * (sample @ last) + np.float32(last @ last)
        distances = np.minimum(distances, np.maximum(towards.astype(np.float64), 0.0))
        total = distances.sum()
        if np.isfinite(total) and total > 0.0:
            drawn = np.searchsorted(np.cumsum(distances), rng.random() * total)
            row = min(int(drawn), len(sample) - 1)
        else:  # all rows are alike, or beyond float32
            row = int(rng.integers(len(sample)))
        seeds[number] = sample[row]
    return seeds


def _dissolved(vectors: F32, metric: Metric, centroids: F32, rows_min: int) -> list[Rows]:
    """Members of each centroid; those with fewer than `rows_min` rows give them to the others."""
    assigned = nearest(vectors, centroids, metric)
    sizes = np.bincount(assigned, minlength=len(centroids))
    keep = sizes >= min(max(rows_min, 1), int(sizes.max()))
    if not keep.all():
        moved = np.flatnonzero(~keep[assigned])
        kept = np.flatnonzero(keep)
        assigned[moved] = kept[nearest(vectors[moved], centroids[kept], metric)]
    order = np.argsort(assigned, kind="stable").astype(np.int64)
    bounds = np.searchsorted(assigned[order], np.arange(len(centroids) + 1))
    parts = [order[bounds[c] : bounds[c + 1]] for c in range(len(centroids))]
    return [part for part in parts if len(part)]


def _cut(vectors: F32, metric: Metric, rows: Rows) -> tuple[Rows, Rows]:
    """2-means, then a cut across the line between both centres, near where they meet."""
    part = vectors[rows]
    centers = _trained(part, metric, 2, np.random.default_rng(SEED))
    along = np.nan_to_num((part @ (centers[1] - centers[0])).astype(np.float64))
    order = np.argsort(along, kind="stable")
    first = int(np.count_nonzero(nearest(part, centers, metric) == 0))
    least = max(1, int(len(rows) * CUT_MIN))
    first = min(max(first, least), len(rows) - least)
    return np.sort(rows[order[:first]]), np.sort(rows[order[first:]])
