"""The three metrics and their scores as Pinecone reports them.

cosine: in [-1, 1], higher is better. dotproduct: raw, higher is better. euclidean: squared L2
distance, lower is better. Sparse scores are dot products and are added to a dense dotproduct score
(hybrid).
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
    """Fast float32 scores for choosing candidates, *higher is always better* (euclidean is
    negated).

    vectors (n, d) may be strided (a view into an Annoy file; `V @ q` does not copy it, `np.dot`
    would); query (d,); norms (n,) from `row_norms`, computed if absent. The last bits depend on
    the row's place in memory: answers use `exact_scores`. Components around 1e19 and above can
    overflow the squares and products of float32, which gives infinities and NaN.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if metric is Metric.DOTPRODUCT:
            products: F32 = np.matmul(vectors, query)
            return products
        lengths = norms if norms is not None else row_norms(metric, vectors)
        if metric is Metric.COSINE:
            # a query of unit length, so that tiny ones do not vanish in the products
            length = np.linalg.norm(query.astype(np.float64)) or 1.0
            cosines: F32 = np.matmul(vectors, (query / length).astype(np.float32)) / lengths
            return cosines
        distances: F32 = 2 * np.matmul(vectors, query) - lengths - np.float32(query @ query)
        return distances


def row_norms(metric: Metric, vectors: F32) -> F32:
    """(n,) what `ranking` takes as `norms`: L2 norms for cosine, squared L2 norms for euclidean.

    Summed in float64: in float32 the square of 1e-23 is zero, and such a vector is no zero vector.
    """
    squares = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    norms = np.sqrt(squares) if metric is Metric.COSINE else squares
    clipped: F32 = np.minimum(norms, np.finfo(np.float32).max).astype(np.float32)
    return clipped


def exact_scores(metric: Metric, vectors: F32, query: F32) -> F64:
    """(n,) float64 scores as reported, the same to the last bit wherever a row is stored.

    The sum runs in float64 along each row alone, so neither the row's neighbours nor its alignment
    count. The cosine with an all-zero query (records are never all zero) is 0.
    """
    rows = np.ascontiguousarray(vectors, dtype=np.float64)
    target = query.astype(np.float64)
    if metric is Metric.EUCLIDEAN:
        difference = rows - target
        distances: F64 = (difference * difference).sum(axis=1)
        return distances
    products: F64 = (rows * target).sum(axis=1)
    if metric is Metric.DOTPRODUCT:
        return products
    lengths = np.sqrt((rows * rows).sum(axis=1)) * np.sqrt((target * target).sum())
    cosines: F64 = np.clip(products / np.where(lengths == 0, 1.0, lengths), -1.0, 1.0)
    return cosines
