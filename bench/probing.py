"""How good a clustering is, apart from how files are read: rows that have to be probed for recall.

A query probes whole cells, those of the best centroids first, after what belongs to no cell.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.dataset import F32

I64 = npt.NDArray[np.int64]
NO_CELL = -1


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """centroids: float32 (k, d), vacant ones NaN; rows: int64 (k,), live rows of each cell; loose:
    rows that belong to none and are always read.
    """

    centroids: F32
    rows: I64
    loose: int


def rows_needed(cells: Cells, queries: F32, found_in: I64) -> I64:
    """For each true neighbour, how many rows are probed when it has been seen.

    found_in: int64 (queries, k), the cell of each, `NO_CELL` for none. Unit norms, by cosine.
    """
    with np.errstate(invalid="ignore"):
        scores = np.nan_to_num(queries @ cells.centroids.T, nan=-np.inf)
    order = np.argsort(-scores, axis=1, kind="stable")
    probed = np.empty(order.shape, dtype=np.int64)
    np.put_along_axis(probed, order, np.cumsum(cells.rows[order], axis=1), axis=1)
    needed = np.take_along_axis(probed, np.maximum(found_in, 0), axis=1)
    return np.where(found_in == NO_CELL, 0, needed) + cells.loose


def recall_at(needed: I64, rows: int) -> float:
    """The share of true neighbours seen by a query that probes at most so many rows."""
    return float(np.mean(needed <= rows))
