"""place: a file's rows as the scan takes them, and where its rows are by id hash."""

from weakref import WeakKeyDictionary

import numpy as np

from core.metric import Metric
from core.scan import Place, RowNumbers
from freshness.protocol import Hashes
from storage.file_reader import FileReader

# What queries need of a file beyond its reader: built once, in a thread, and gone with the reader.
_longest: WeakKeyDictionary[FileReader, float] = WeakKeyDictionary()
_by_hash: WeakKeyDictionary[FileReader, tuple[Hashes, RowNumbers]] = WeakKeyDictionary()


def place_of(reader: FileReader, *, with_sparse: bool) -> Place:
    """Off the event loop: the first call reads every vector."""
    longest = _longest.get(reader)
    if longest is None:
        longest = _longest[reader] = _longest_row(reader)
    return Place(
        vectors=reader.vectors,
        norms=reader.norms,
        longest=longest,
        sparse=reader.sparse if with_sparse else None,
    )


def rows_with(reader: FileReader, hashes: Hashes) -> RowNumbers:
    """The rows whose id has one of these hashes; `hashes` are unique. Costs |hashes| * log(rows)
    after the first call.
    """
    if len(hashes) == 0:
        return np.empty(0, dtype=np.int64)
    found = _by_hash.get(reader)
    if found is None:
        order = np.argsort(reader.hashes, kind="stable")
        found = _by_hash[reader] = (reader.hashes[order], order)
    ascending, order = found
    first = np.searchsorted(ascending, hashes, side="left")
    counts = np.searchsorted(ascending, hashes, side="right") - first
    before = np.cumsum(counts) - counts
    places = np.arange(counts.sum()) + np.repeat(first - before, counts)
    rows: RowNumbers = order[places]
    return rows


def _longest_row(reader: FileReader) -> float:
    vectors, norms = reader.vectors, reader.norms
    if vectors is None or reader.rows == 0:
        return 0.0
    match reader.metric:
        case Metric.COSINE:
            return float(norms.max()) if norms is not None else 0.0
        case Metric.EUCLIDEAN:
            return float(np.sqrt(norms.max())) if norms is not None else 0.0
        case Metric.DOTPRODUCT:
            with np.errstate(over="ignore"):
                return float(np.sqrt(np.einsum("ij,ij->i", vectors, vectors).max()))
