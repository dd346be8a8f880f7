"""The best k of many scores, in a stated order, without sorting them all."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float32] | npt.NDArray[np.float64]
RowNumbers = npt.NDArray[np.int64]


def top_rows(scores: Scores, k: int) -> RowNumbers:
    """int64 (min(k, n),): rows of the k highest scores, best first, equal scores by ascending row.

    For candidates, from `metric.ranking`. NaN (a score that overflowed) ranks below everything.
    """
    above, at_border, room = _split(_ordered(scores), k)
    rows = np.concatenate([above, at_border[:room]])
    rows.sort()
    return rows[np.argsort(-_ordered(scores)[rows], kind="stable")]


def top_k(
    scores: Scores, ids: Sequence[str], k: int, *, higher_is_better: bool = True
) -> RowNumbers:
    """int64 (min(k, n),): rows of the k best exact scores, best first, equal scores by ascending
    id.

    The order does not depend on where rows are stored, so the same records give the same answer
    after any compaction. `ids` is looked up only for rows that are in the answer or tie at its
    border.
    """
    goodness = _ordered(scores if higher_is_better else -scores)
    above, at_border, room = _split(goodness, k)
    border = at_border.tolist()
    if len(border) > room:
        border.sort(key=ids.__getitem__)
        del border[room:]
    chosen = above.tolist() + border
    chosen.sort(key=lambda row: (-goodness[row], ids[row]))
    return np.array(chosen, dtype=np.int64)


def _ordered(scores: Scores) -> Scores:
    missing = np.isnan(scores)
    return np.where(missing, -np.inf, scores) if missing.any() else scores


def _split(goodness: Scores, k: int) -> tuple[RowNumbers, RowNumbers, int]:
    """(rows above the k-th best value, rows equal to it, how many of the latter are wanted)."""
    n = len(goodness)
    if k <= 0 or n == 0:
        nothing = np.empty(0, dtype=np.int64)
        return nothing, nothing, 0
    if k >= n:
        return np.arange(n, dtype=np.int64), np.empty(0, dtype=np.int64), 0
    border = np.partition(goodness, n - k)[n - k]
    above = np.flatnonzero(goodness > border)
    return above, np.flatnonzero(goodness == border), k - len(above)
