"""Ordering the rows of a delta by nearest centroid, so that a range of it serves one cluster."""

import numpy as np
import numpy.typing as npt

from builder.compaction.cluster import nearest
from core.metric import F32, Metric

Groups = tuple[tuple[int, int], ...]


def group_order(
    vectors: F32, centroids: F32, metric: Metric
) -> tuple[npt.NDArray[np.int64], Groups]:
    """The order that puts rows of one cluster together, and (cluster, first row) of each group.

    vectors: float32 (n, d); centroids: float32 (clusters, d), at least one of each.
    """
    assigned = nearest(vectors, centroids, metric)
    order = np.argsort(assigned, kind="stable").astype(np.int64)
    clusters, first = np.unique(assigned[order], return_index=True)
    return order, tuple(zip(clusters.tolist(), first.tolist(), strict=True))
