"""A million vectors that are as hard to search as the few thousand real ones they come from.

Row n < 6,000 is a real embedding. Each later one starts at a real row x, goes a random part (0 to
1/2) of the way to one of the 16 nearest neighbours of x, adds Gaussian noise of `NOISE` times the
distance to that neighbour, and is scaled to unit norm. So it lies where text lies, as far from its
neighbours as real rows are from theirs; without the noise a million rows would be 6,000 heaps.

Checked against 20,000 real rows of the same corpora: 6,000 of them enlarged to 20,000, with 450
real queries (`python -m bench.enlarge --real FILE --queries FILE`), gives

                                          real 20,000       enlarged
    rows probed for recall@10 of 0.95
      at 256 rows a cluster                     5,262             6,217
      at 1,024 rows a cluster                   8,163             9,078
    similarity to the nearest row             .50 .63 .86       .59 .69 .77   (p10, p50, p90)
    similarity of a query to its tenth        .32 .42 .54       .28 .37 .49

a little harder than real ones: no near duplicates, and queries that are no nearer to them.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.dataset import F32, query_vectors, true_neighbours, vectors
from bench.probing import Cells, rows_needed
from builder.compaction.cluster import cluster
from core.metric import Metric

NEIGHBOURS = 16
NOISE = 0.85
# Rows of one block, made at once from a generator of its own: 12 MB at 384 dimensions.
BLOCK = 8192

I64 = npt.NDArray[np.int64]


class Enlarged:
    """Rows by number, without end; the same seed gives the same rows, in whatever order."""

    def __init__(self, base: F32, seed: int = 1) -> None:
        """`base`: float32 (n, d), unit norm."""
        self.base = base
        self._seed = seed
        self._near = _neighbours(base)

    def block(self, number: int) -> F32:
        """float32 (BLOCK, d), unit norm: rows number * BLOCK to (number + 1) * BLOCK."""
        rng = np.random.default_rng((self._seed, number))
        rows = rng.integers(0, len(self.base), BLOCK)
        start = self.base[rows]
        towards = self.base[self._near[rows, rng.integers(0, NEIGHBOURS, BLOCK)]] - start
        distance = _lengths(towards)
        part = rng.uniform(0.0, 0.5, (BLOCK, 1)).astype(np.float32)
        noise = rng.standard_normal(start.shape, dtype=np.float32)
        noise *= np.float32(NOISE / np.sqrt(start.shape[1])) * distance
        made = start + part * towards + noise
        made /= _lengths(made)
        first = number * BLOCK
        if first < len(self.base):
            real = self.base[first : first + BLOCK]
            made[: len(real)] = real
        return np.ascontiguousarray(made, dtype=np.float32)

    def rows(self, first: int, count: int) -> Iterator[tuple[int, F32]]:
        """(number of its first row, rows) of each block's part of [first, first + count)."""
        at, end = first, first + count
        while at < end:
            number = at // BLOCK
            upto = min(end, (number + 1) * BLOCK)
            yield at, self.block(number)[at - number * BLOCK : upto - number * BLOCK]
            at = upto


def _lengths(rows: F32) -> F32:
    squares: F32 = np.einsum("ij,ij->i", rows, rows)[:, None]
    return np.sqrt(squares)


def _neighbours(base: F32) -> npt.NDArray[np.int32]:
    """(n, NEIGHBOURS): the nearest other rows of each."""
    found = np.empty((len(base), NEIGHBOURS), dtype=np.int32)
    for first in range(0, len(base), 1000):
        scores = base[first : first + 1000] @ base.T
        scores[np.arange(len(scores)), np.arange(first, first + len(scores))] = -2.0
        found[first : first + 1000] = np.argpartition(-scores, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    return found


def describe(name: str, data: F32, queries: F32) -> None:
    """Print how hard the data is for these queries."""
    truth = true_neighbours(data, queries, 10)
    for rows in (256, 1024):
        made = cluster(data, Metric.COSINE, max(1, len(data) // rows), 2 * rows)
        where = np.empty(len(data), dtype=np.int64)
        for number, members in enumerate(made.members):
            where[members] = number
        sizes = np.array([len(members) for members in made.members], dtype=np.int64)
        cells = Cells(made.centroids, sizes, 0)
        needed = rows_needed(cells, queries, where[truth])
        print(f"{name}: {rows} rows a cluster: {int(np.quantile(needed, 0.95))} rows for 0.95")
    sample = data[np.random.default_rng(0).choice(len(data), 1000, replace=False)]
    nearest = np.sort(sample @ data.T, axis=1)[:, -2]
    tenth = np.sort(queries @ data.T, axis=1)[:, -10]
    for what, values in (("nearest row", nearest), ("a query's tenth", tenth)):
        print(f"{name}: similarity to {what}: {np.quantile(values, [0.1, 0.5, 0.9]).round(2)}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare enlarged with real embeddings.")
    parser.add_argument("--real", type=Path, help="more real embeddings, .npy (n, 384)")
    parser.add_argument("--queries", type=Path, help="queries for them, .npy (m, 384)")
    options = parser.parse_args()
    real, queries = vectors(), query_vectors()
    if options.real is not None:
        real = np.load(options.real).astype(np.float32)
    if options.queries is not None:
        queries = np.load(options.queries).astype(np.float32)
    asked = queries[len(queries) // 4 :]
    few = real[:6000]
    describe(f"{len(real)} real", real, asked)
    parts = [rows for _, rows in Enlarged(few).rows(0, len(real))]
    describe(f"{len(few)} enlarged to {len(real)}", np.concatenate(parts), asked)


if __name__ == "__main__":
    main()
