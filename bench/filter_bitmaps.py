"""Filtered queries over cold cluster files, with and without their bitmaps, side by side.

`python -m bench.filter_bitmaps [--files 8] [--rows 2500]`. Cold: new readers for each turn, whose
metadata nobody has decoded yet. Printed for each filter: its time per file on each side (the median
of the turns, which alternate), the rows whose metadata was decoded and the heap of the readers
afterwards.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import pyarrow as pa

from core.filters.model import Filter
from core.filters.parse import parse_filter
from core.metric import Metric
from core.records import Metadata
from storage.cluster_file import write_cluster
from storage.encoded_file import EncodedFile
from storage.file_reader import FileReader
from storage.layout import NamespaceSchema
from storage.rows import Rows

DIMENSION = 384
OF = NamespaceSchema("bench", "bench", Metric.COSINE, DIMENSION)
FILTERS: dict[str, dict[str, object]] = {
    "genre = g3 (10 %)": {"genre": "g3"},
    "genre = g3 and year >= 2015 (2 %)": {"genre": "g3", "year": {"$gte": 2015}},
    "not genre in 3 of 10, tag (35 %)": {"genre": {"$nin": ["g1", "g2", "g3"]}, "tags": "t1"},
    "genre = g3 and one user": {"genre": "g3", "user": "u13"},
    "one user (bitmaps do not help)": {"user": "u13"},
}


@dataclass(frozen=True, slots=True)
class Side:
    """Of one filter: milliseconds, decoded rows and heap bytes, each per file; rows selected."""

    ms: float
    decoded: float
    heap: float
    selected: int


def rows_of(count: int, random: np.random.Generator) -> Rows:
    def metadata(row: int) -> Metadata:
        return {
            "genre": f"g{random.integers(10)}",
            "year": float(random.integers(2000, 2020)),
            "tags": [f"t{tag}" for tag in random.integers(5, size=2)],
            "user": f"u{row}",
            "title": f"a title of some length, number {row}",
        }

    return Rows(
        ids=[f"record-{row}" for row in range(count)],
        lsns=np.arange(count, dtype=np.int64),
        vectors=random.standard_normal((count, DIMENSION), dtype=np.float32),
        sparse=[None] * count,
        metadata=[metadata(row) for row in range(count)],
    )


def open_file(encoded: EncodedFile, *, bitmaps: bool) -> FileReader:
    vectors, columns = (pa.py_buffer(o.data) for o in encoded.objects)
    reader = FileReader(encoded.file, OF.prefix, OF.metric, OF.dimension, columns, vectors)
    if not bitmaps:
        reader._columns_file.inverted = None
    return reader


def turn(files: Sequence[EncodedFile], f: Filter, *, bitmaps: bool) -> Side:
    readers = [open_file(encoded, bitmaps=bitmaps) for encoded in files]
    started = time.perf_counter()
    selected = sum(int(np.count_nonzero(reader.matching(f))) for reader in readers)
    took = time.perf_counter() - started
    return Side(
        ms=1000 * took / len(files),
        decoded=sum(reader.decoded_rows for reader in readers) / len(files),
        heap=sum(reader.heap_bytes for reader in readers) / len(files),
        selected=selected,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=8)
    parser.add_argument("--rows", type=int, default=2_500)
    parser.add_argument("--turns", type=int, default=15)
    asked = parser.parse_args()
    random = np.random.default_rng(0)
    files = [write_cluster(rows_of(asked.rows, random), OF) for _ in range(asked.files)]
    inverted = [open_file(encoded, bitmaps=True)._columns_file.inverted or b"" for encoded in files]
    size = sum(o.ref.size for encoded in files for o in encoded.objects)
    share = 100 * sum(map(len, inverted)) / size
    print(f"{asked.files} files of {asked.rows} x {DIMENSION}, bitmaps are {share:.2f} % of them\n")
    print("| filter | selected | without: ms, rows decoded, heap | with: ms, rows, heap | ratio |")
    print("|---|---|---|---|---|")
    for name, wire in FILTERS.items():
        f = parse_filter(wire)
        pairs = [
            (turn(files, f, bitmaps=False), turn(files, f, bitmaps=True))
            for _ in range(asked.turns)
        ]
        without, with_bitmaps = pairs[-1]
        assert without.selected == with_bitmaps.selected
        slow, fast = median(a.ms for a, _ in pairs), median(b.ms for _, b in pairs)
        print(
            f"| {name} | {without.selected} "
            f"| {slow:.2f}, {without.decoded:.0f}, {without.heap / 1000:.0f} KB "
            f"| {fast:.3f}, {with_bitmaps.decoded:.0f}, {with_bitmaps.heap / 1000:.1f} KB "
            f"| {slow / fast:.0f}x |"
        )


if __name__ == "__main__":
    main()
