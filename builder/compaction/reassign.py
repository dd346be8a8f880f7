"""Which rows belong to another cluster than the one they are in, and what a cluster is split into.

After SPFresh's LIRE protocol (Xu et al., SOSP 2023): only rows that can violate "in the cluster of
the nearest centroid" are moved, and nothing else is rewritten. CPU only: off the event loop.
"""

from dataclasses import dataclass

import numpy as np

from builder.compaction.cluster import BLOCK, Rows, center, cluster, goodness, occupied, unit
from core.metric import F32, Metric

# Rows are compared with the centroids nearest to their own one: on real embeddings the nearest
# centroid of a row is among the 16 next ones of its cluster's in 99 % of all cases.
NEAR = 64
# A row moves only to a centroid that is nearer by more than float32's rounding: equal rows that a
# split has cut apart stay where they are.
_ROUNDING = 4e-6


@dataclass(frozen=True, slots=True)
class Sizes:
    """Rows of a cluster. most: more are split. least: what neither a split nor moving rows goes
    below, so that they never make a cluster that is small enough to be merged.
    """

    most: int
    least: int


@dataclass(frozen=True, slots=True, eq=False)
class Divided:
    """What becomes of n rows of one cluster: every row is in one of `members` or in `strays`.

    centroids: float32 (pieces, d), the biggest piece first; members: row numbers of each, none
    empty. strays: rows that are nearer to another cluster's centroid.
    """

    centroids: F32
    members: tuple[Rows, ...]
    strays: Rows


def divide(
    vectors: F32, centroids: F32, number: int, metric: Metric, sizes: Sizes, pieces: int
) -> Divided:
    """float32 (n, d) rows of cluster `number`, n >= 1, its strays taken out and the rest split into
    about `pieces` if it is over `sizes.most` rows. Vacant centroids are NaN.
    """
    points = unit(vectors) if metric is Metric.COSINE else vectors
    others = centroids[neighbours(centroids, number, NEAR)]
    own = centroids[number]
    with np.errstate(all="ignore"):
        strayed = _strays(points, np.zeros(len(points), dtype=np.int64), own[None], others, metric)
        strayed = _spared(strayed, np.zeros(len(points), dtype=np.int64), sizes.least)
        home = np.flatnonzero(strayed <= 0.0)
        if len(home) <= sizes.most:
            middle = center(vectors[home], metric) if len(home) else own
            return Divided(middle[None], (home,), np.flatnonzero(strayed > 0.0))
        made = cluster(vectors[home], metric, max(2, pieces), sizes.most, sizes.least)
        # Only rows that the old centroid was nearer to can be nearer to a third one now.
        piece = np.full(len(points), -1, dtype=np.int64)
        for at, members in enumerate(made.members):
            piece[home[members]] = at
        left = _gains(points[home], piece[home], made.centroids, own[None], metric) > 0.0
        checked = home[left]
        gains = np.zeros(len(points), dtype=np.float32)
        gains[checked] = _strays(points[checked], piece[checked], made.centroids, others, metric)
        gains[piece < 0] = 0.0
        gains = _spared(gains, piece, sizes.least)
    piece[gains > 0.0] = -1
    kept = [np.flatnonzero(piece == at) for at in range(len(made.members))]
    order = sorted(range(len(kept)), key=lambda at: (-len(kept[at]), at))
    return Divided(
        made.centroids[order],
        tuple(kept[at] for at in order),
        np.flatnonzero(piece < 0),
    )


def movers(vectors: F32, own: F32, new: F32, metric: Metric, least: int) -> Rows:
    """Rows of float32 (n, d), in the cluster of centroid `own` (d,), that are nearer to one of
    `new` (m, d); at least `least` rows stay.
    """
    points = unit(vectors) if metric is Metric.COSINE else vectors
    place = np.zeros(len(points), dtype=np.int64)
    with np.errstate(all="ignore"):
        gains = _spared(_strays(points, place, own[None], new, metric), place, least)
    return np.flatnonzero(gains > 0.0)


def neighbours(centroids: F32, number: int, count: int) -> Rows:
    """Numbers of the `count` centroids that are nearest to that of `number`, nearest first."""
    others = occupied(centroids)
    others = others[others != number]
    with np.errstate(all="ignore"):
        distances = np.linalg.norm(
            centroids[others].astype(np.float64) - centroids[number].astype(np.float64), axis=1
        )
    order = np.argsort(np.nan_to_num(distances, nan=np.inf), kind="stable")
    nearest: Rows = others[order[:count]]
    return nearest


def _strays(points: F32, piece: Rows, own: F32, others: F32, metric: Metric) -> F32:
    """How much nearer each row's best one of `others` is than its own centroid, 0 where it is not:
    float32 (n,).
    """
    if not len(others) or not len(points):
        return np.zeros(len(points), dtype=np.float32)
    gains = _gains(points, piece, own, others, metric)
    return np.where(gains > 0.0, gains, np.float32(0.0))  # NaN is no gain


def _gains(points: F32, piece: Rows, own: F32, others: F32, metric: Metric) -> F32:
    result = np.empty(len(points), dtype=np.float32)
    longest = np.float32(np.sqrt(np.einsum("ij,ij->i", others, others).max(initial=0.0)))
    for start in range(0, len(points), BLOCK):
        block, at = points[start : start + BLOCK], piece[start : start + BLOCK]
        best = goodness(block, others, metric).max(axis=1)
        mine = np.take_along_axis(goodness(block, own, metric), at[:, None], axis=1)[:, 0]
        lengths = np.sqrt(np.einsum("ij,ij->i", block, block))
        margin = np.float32(_ROUNDING) * lengths * (longest + np.float32(1e-12))
        result[start : start + BLOCK] = best - mine - margin
    return result


def _spared(gains: F32, piece: Rows, least: int) -> F32:
    """`gains` with the smallest ones of each piece set to 0 until `least` of its rows stay."""
    for at in np.unique(piece[piece >= 0]).tolist():
        rows = np.flatnonzero(piece == at)
        going = rows[gains[rows] > 0.0]
        spare = len(going) - max(0, len(rows) - least)
        if spare > 0:
            gains[going[np.argsort(gains[going], kind="stable")[:spare]]] = 0.0
    return gains
