"""Exact search over the rows of one place (a file, a segment in memory): fast float32 ranking
chooses candidates with room for rounding, float64 scores decide among them. So an answer does not
depend on where its rows are stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.metric import F32, F64, Metric, exact_scores, ranking
from core.records import SparseValues, Vector
from core.sparse import SparseColumns

Mask = npt.NDArray[np.bool_]
RowNumbers = npt.NDArray[np.int64]

# Below this share of selected rows, gathering them beats scanning all (measured at 4k and 16k x
# 384: equal near 30 %).
GATHER_BELOW = 0.2

# float32 sums of d products err by about sqrt(d) units of the last place (2**-24) of the vectors'
# lengths; four times that covers what was ever seen, and costs a handful of extra candidates.
_ROUNDING = 4 * 2.0**-24


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """What is searched for. Dense index: `vector`, and `sparse` may add to it. Sparse index:
    `sparse` alone.
    """

    metric: Metric
    vector: Vector | None
    sparse: SparseValues | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """n rows that lie together.

    vectors float32 (n, d), norms as `ranking` takes them (None for dotproduct), longest: the
    largest L2 norm of a row; all unused in a sparse index. sparse: None where no row has any.
    """

    vectors: F32 | None
    norms: F32 | None
    longest: float
    sparse: SparseColumns | None


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """rows int64 (n,); goodness float64 (n,), higher is better, for choosing only; slack: its
    largest error.
    """

    rows: RowNumbers
    goodness: F64
    slack: float

    def best(self, k: int) -> "Candidates":
        """Those that may be among the k best; more than k where rounding could hide the order."""
        if len(self.rows) <= k:
            return self
        keep = self.goodness >= cutoff(self.goodness, k, self.slack)
        return Candidates(self.rows[keep], self.goodness[keep], self.slack)


def cutoff(goodness: F64, k: int, slack: float) -> float:
    """The goodness that a row needs to be possibly one of the k best; -inf if there are no more
    than k.
    """
    n = len(goodness)
    if k >= n:
        return -np.inf
    border = float(np.partition(goodness, n - k)[n - k])
    # two errors: the border row may be overrated by as much as another one is underrated
    return border - 2 * slack if np.isfinite(border) and np.isfinite(slack) else -np.inf


def scan(target: Target, place: Place, mask: Mask | None) -> Candidates:
    """Goodness of every row that `mask` selects (None: all).

    In a sparse index a row that shares no term with the target, or whose products cancel out, is no
    match and left out.
    """
    if target.vector is None:
        assert target.sparse is not None
        if place.sparse is None:
            return _none()
        scores = place.sparse.scores(target.sparse)
        chosen = scores != 0.0 if mask is None else (scores != 0.0) & mask
        rows = np.flatnonzero(chosen)
        return Candidates(rows, scores[rows], 0.0)
    rows, goodness = _dense(target.metric, target.vector, place, mask)
    if target.sparse is not None and place.sparse is not None:
        goodness = goodness + place.sparse.scores(target.sparse)[rows]
    return Candidates(rows, goodness, _slack(target.metric, target.vector, place.longest))


def exact(target: Target, place: Place, rows: RowNumbers) -> F64:
    """float64 (len(rows),): the scores as reported (euclidean: lower is better)."""
    added = None
    if target.sparse is not None:
        sparse = place.sparse
        added = np.zeros(len(rows)) if sparse is None else sparse.scores(target.sparse)[rows]
    if target.vector is None:
        assert added is not None
        return added
    assert place.vectors is not None
    scores = _in_chunks(target.metric, place.vectors, target.vector, rows)
    return scores if added is None else scores + added


def _in_chunks(metric: Metric, vectors: F32, query: Vector, rows: RowNumbers) -> F64:
    """4096 rows x 1536 in float64 are 50 MB; more would leave the caches for nothing."""
    parts = [
        exact_scores(metric, vectors[rows[start : start + 4096]], query)
        for start in range(0, len(rows), 4096)
    ]
    return np.concatenate(parts) if parts else np.empty(0)


def _none() -> Candidates:
    return Candidates(np.empty(0, dtype=np.int64), np.empty(0), 0.0)


def _dense(
    metric: Metric, query: Vector, place: Place, mask: Mask | None
) -> tuple[RowNumbers, F64]:
    vectors, norms = place.vectors, place.norms
    assert vectors is not None
    total = len(vectors)
    rows = np.arange(total) if mask is None else np.flatnonzero(mask)
    if len(rows) == 0:
        return rows, np.empty(0)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        if len(rows) < GATHER_BELOW * total:
            own = None if norms is None else norms[rows]
            scores = ranking(metric, vectors[rows], query, own)
        else:
            scores = ranking(metric, vectors, query, norms)
            scores = scores if mask is None else scores[rows]
    goodness = scores.astype(np.float64)
    # a product that overflowed float32 may still be the best in float64: it stays a candidate
    goodness[np.isnan(goodness)] = np.inf
    return rows, goodness


def _slack(metric: Metric, query: Vector, longest: float) -> float:
    unit = _ROUNDING * float(np.sqrt(len(query)))
    if metric is Metric.COSINE:
        return unit
    length = float(np.linalg.norm(query.astype(np.float64)))
    return unit * (longest * length if metric is Metric.DOTPRODUCT else (longest + length) ** 2)


def best_first(metric: Metric, scores: Sequence[float], ids: Sequence[str]) -> list[int]:
    """Positions by score, best first, equal scores by id."""
    sign = -1.0 if metric.higher_is_better else 1.0
    return sorted(range(len(ids)), key=lambda at: (sign * scores[at], ids[at]))
