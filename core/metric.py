"""The three metrics and their scores as Pinecone reports them.

cosine: in [-1, 1], higher is better. dotproduct: raw, higher is better. euclidean: squared L2 distance, lower is
better. Sparse scores are dot products and are added to a dense dotproduct score (hybrid).
"""

from enum import StrEnum

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


class Metric(StrEnum):
    COSINE = "cosine"
    DOTPRODUCT = "dotproduct"
    EUCLIDEAN = "euclidean"

    @property
    def higher_is_better(self) -> bool:
        return self is not Metric.EUCLIDEAN


def ranking(metric: Metric, vectors: F32, query: F32, norms: F32 | None = None) -> F32:
    """Fast float32 scores for choosing candidates, *higher is always better* (euclidean is negated).

    vectors (n, d) may be strided (a view into an Annoy file; `V @ q` does not copy it, `np.dot` would);
    query (d,); norms (n,) L2 norms, or for euclidean squared L2 norms, computed if absent.
    The last bits depend on the row's place in memory: answers use `exact_scores`.
    """
    products = vectors @ query
    if metric is Metric.DOTPRODUCT:
        return products
    if metric is Metric.COSINE:
        lengths = norms if norms is not None else row_norms(metric, vectors)
        return products / (lengths * np.float32(np.linalg.norm(query)))
    squares = norms if norms is not None else row_norms(metric, vectors)
    return 2 * products - squares - np.float32(query @ query)


def row_norms(metric: Metric, vectors: F32) -> F32:
    """(n,) what `ranking` takes as `norms`: L2 norms for cosine, squared L2 norms for euclidean."""
    squares = np.einsum("ij,ij->i", vectors, vectors)
    return np.sqrt(squares) if metric is Metric.COSINE else squares


def exact_scores(metric: Metric, vectors: F32, query: F32) -> F64:
    """(n,) float64 scores as reported, the same to the last bit wherever a row is stored.

    The sum runs in float64 along each row alone, so neither the row's neighbours nor its alignment count.
    """
    rows = np.ascontiguousarray(vectors, dtype=np.float64)
    target = query.astype(np.float64)
    if metric is Metric.EUCLIDEAN:
        difference = rows - target
        return (difference * difference).sum(axis=1)
    products = (rows * target).sum(axis=1)
    if metric is Metric.DOTPRODUCT:
        return products
    lengths = np.sqrt((rows * rows).sum(axis=1)) * np.sqrt((target * target).sum())
    return np.clip(products / lengths, -1.0, 1.0)
