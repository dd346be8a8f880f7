"""Sparse scores: dot products of sparse vectors, exact to the last bit wherever a row is stored.

A product of two float32 is exact in float64, and a row's products are added one after the other in
ascending order of their index (`bincount` adds so), so a record scores the same in a cluster file,
a delta or the freshness layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from core.metric import F64
from core.records import SparseValues


def sparse_score(left: SparseValues, right: SparseValues) -> float:
    """The dot product of two sparse vectors."""
    _, at_left, at_right = np.intersect1d(
        left.indices, right.indices, assume_unique=True, return_indices=True
    )
    products = left.values[at_left].astype(np.float64) * right.values[at_right]
    return float(_sums(np.zeros(len(products), dtype=np.int64), products, 1)[0])


@dataclass(frozen=True, slots=True, eq=False)
class _Postings:
    """The same values by term: rows and values of term t are at [starts[t], starts[t + 1])."""

    terms: npt.NDArray[np.uint32]
    starts: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int32]
    values: npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class SparseColumns:
    """The sparse values of n rows as CSR; immutable, safe to share among threads.

    indptr int64 (n + 1,), indices uint32 (nnz,) strictly ascending in each row, values float32
    (nnz,). A row without sparse values is an empty one: sparse values are never empty.
    """

    indptr: npt.NDArray[np.int64]
    indices: npt.NDArray[np.uint32]
    values: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @classmethod
    def build(cls, rows: Sequence[SparseValues | None]) -> "SparseColumns":
        there = [row for row in rows if row is not None]
        indptr = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([0 if row is None else len(row.indices) for row in rows], out=indptr[1:])
        if not there:
            return cls(indptr, np.empty(0, dtype=np.uint32), np.empty(0, dtype=np.float32))
        return cls(
            indptr,
            np.concatenate([row.indices for row in there]),
            np.concatenate([row.values for row in there]),
        )

    def row(self, row: int) -> SparseValues | None:
        """Views into the columns."""
        start, end = int(self.indptr[row]), int(self.indptr[row + 1])
        return (
            SparseValues(self.indices[start:end], self.values[start:end]) if end > start else None
        )

    def scores(self, query: SparseValues) -> F64:
        """float64 (n,): each row's dot product with the query, 0.0 where nothing is shared.

        Reads only the query's terms; the first call sorts the columns by term (some 100 ns per
        value).
        """
        postings = self._postings
        _, found, asked = np.intersect1d(
            postings.terms, query.indices, assume_unique=True, return_indices=True
        )
        starts = postings.starts[found]
        counts = postings.starts[found + 1] - starts
        ends = np.cumsum(counts)
        # [starts[t], starts[t] + counts[t]) of every term one after the other, without a Python
        # loop
        places = np.arange(ends[-1] if len(ends) else 0) + np.repeat(
            starts - (ends - counts), counts
        )
        weights = np.repeat(query.values[asked].astype(np.float64), counts)
        return _sums(postings.rows[places], postings.values[places] * weights, len(self))

    @cached_property
    def _postings(self) -> _Postings:
        order = np.argsort(self.indices)
        terms, first = np.unique(self.indices[order], return_index=True)
        rows = np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.indptr))
        return _Postings(
            terms=terms,
            starts=np.append(first, len(order)).astype(np.int64),
            rows=rows[order],
            values=self.values[order],
        )


def _sums(rows: npt.NDArray[np.integer], products: F64, size: int) -> F64:
    """float64 (size,): the products added up by row, in their order."""
    return np.bincount(rows, weights=products, minlength=size).astype(np.float64, copy=False)
