"""An Annoy file as a container of vectors: built in bulk, read by numpy in place, and by Annoy.

Annoy 1.17.3's nodes are private to it: a header, then the vector as float32. Item i is node i, so
the first n nodes are the n rows, and the vectors are exactly what was written (Annoy normalises
nothing). `assert_annoy_layout` proves it at start-up; the version is pinned.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from annoy import AnnoyIndex

from core.errors import ConfigError, CorruptData
from core.metric import F32, Metric

# Few trees: up to 20k rows a scan beats them, so they are +5 % bytes for an optional way to search.
TREES = 5
SEED = 20_240_229  # any; fixed so that the same rows give the same file

_AnnoyName = Literal["angular", "dot", "euclidean"]
_ANNOY_NAME: dict[Metric, _AnnoyName] = {
    Metric.COSINE: "angular",
    Metric.DOTPRODUCT: "dot",
    Metric.EUCLIDEAN: "euclidean",
}
# 4-byte words before the vector. angular: n_descendants, squared norm, unused; euclidean:
# n_descendants, a, children[2]; dot: n_descendants, children[2], dot_factor.
_HEADER_WORDS = {Metric.COSINE: 3, Metric.DOTPRODUCT: 4, Metric.EUCLIDEAN: 4}


def build_annoy(vectors: F32, metric: Metric) -> bytes:
    """The file of float32 (n, d) vectors, n >= 1.

    CPU-bound (2,500 x 384: 8 ms), most of it without the GIL: off the event loop.
    """
    return _build(vectors, metric, _load_in_bulk)


def annoy_vectors(data: npt.NDArray[np.uint8], rows: int, dimension: int, metric: Metric) -> F32:
    """float32 (rows, dimension): a strided view of the file's bytes, read-only if they are."""
    words = _HEADER_WORDS[metric] + dimension
    if len(data) % (4 * words) or len(data) < 4 * words * rows:
        raise CorruptData(
            f"an Annoy file of {len(data)} bytes cannot hold {rows} rows of dimension {dimension}"
        )
    return data.view("<f4").reshape(-1, words)[:rows, _HEADER_WORDS[metric] :]


def open_annoy(path: Path, dimension: int, metric: Metric) -> AnnoyIndex:
    """Maps the file (13-72 us, measured). The index keeps the mapping and a file descriptor until
    it is dropped.
    """
    index = AnnoyIndex(dimension, _ANNOY_NAME[metric])
    index.load(str(path))
    return index


def assert_annoy_layout() -> None:
    """`ConfigError` unless this Annoy lays its nodes out as this module reads and writes them.
    Milliseconds.
    """
    vectors = np.random.default_rng(SEED).standard_normal((40, 7), dtype=np.float32)
    for metric in Metric:
        plain = _build(vectors, metric, _load_by_add_item)
        view = annoy_vectors(np.frombuffer(plain, dtype=np.uint8), 40, 7, metric)
        bulk = build_annoy(vectors, metric)
        same = np.array_equal(view, vectors) and len(bulk) == len(plain)
        # angular stores the squared norm, whose last bit depends on the order of its sum
        if not same or (metric is not Metric.COSINE and bulk != plain):
            raise ConfigError(
                f"the installed annoy lays out its {_ANNOY_NAME[metric]} files differently; "
                "install annoy==1.17.3"
            )


@contextmanager
def scratch_file() -> Iterator[Path]:
    """An empty file for Annoy, which knows only paths; gone at the end. Mappings of it stay valid.

    In memory on Linux: a full disk under a mapped file would kill the process (SIGBUS).
    """
    if sys.platform == "linux":
        descriptor = os.memfd_create("firndb-annoy", os.MFD_CLOEXEC)
        try:
            yield Path(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile(prefix="firndb-annoy-") as file:
            yield Path(file.name)


_Load = Callable[[AnnoyIndex, Path, F32, Metric], None]


def _build(vectors: F32, metric: Metric, load: _Load) -> bytes:
    rows, dimension = vectors.shape
    if rows == 0:
        raise ValueError("an Annoy file needs at least one row")
    index = AnnoyIndex(dimension, _ANNOY_NAME[metric])
    index.set_seed(SEED)
    with scratch_file() as path:
        index.on_disk_build(str(path))
        load(index, path, vectors, metric)
        index.build(TREES, n_jobs=1)  # more threads may change the bytes
        index.unload()
        return path.read_bytes()


def _load_in_bulk(index: AnnoyIndex, path: Path, vectors: F32, metric: Metric) -> None:
    """Writes the nodes into Annoy's own mapped file.

    2,500 x 384 with the build: 8 instead of 46 ms of CPU.
    """
    rows, dimension = vectors.shape
    index.add_item(rows - 1, [0.0] * dimension)  # makes room for all nodes below it as well
    header = _HEADER_WORDS[metric]
    nodes = np.memmap(path, dtype="<f4", mode="r+", shape=(rows, header + dimension))
    nodes[:, header:] = vectors
    nodes.view("<i4")[:, 0] = 1  # n_descendants: a leaf that is there
    if metric is Metric.COSINE:
        nodes[:, 1] = np.einsum("ij,ij->i", vectors, vectors)


def _load_by_add_item(index: AnnoyIndex, path: Path, vectors: F32, metric: Metric) -> None:
    """The public way, at 7 us and more a row: the yardstick for the other one."""
    for row, vector in enumerate(vectors.tolist()):
        index.add_item(row, vector)
