"""Rows, files and manifests for the tests of the storage package."""

from collections.abc import Sequence

import msgspec
import numpy as np
import pyarrow as pa
from pyroaring import BitMap

from core.metric import Metric
from core.object_store import ObjectStore
from core.records import Metadata, SparseValues
from storage.encoded_file import EncodedFile, put_objects
from storage.file_cache import FileCache
from storage.file_reader import FileReader
from storage.layout import NamespaceSchema
from storage.manifest import DataFile, Manifest
from storage.rows import Rows

DIMENSION = 12
DENSE = NamespaceSchema("index-1", "books", Metric.COSINE, DIMENSION)
SPARSE = NamespaceSchema("index-1", "words", Metric.DOTPRODUCT, None)


def schema(metric: Metric, dimension: int | None = DIMENSION) -> NamespaceSchema:
    return NamespaceSchema("index-1", "books", metric, dimension)


def sample_sparse(random: np.random.Generator) -> SparseValues:
    count = int(random.integers(1, 20))
    indices = np.sort(random.choice(100_000, size=count, replace=False)).astype(np.uint32)
    return SparseValues(indices, random.standard_normal(count, dtype=np.float32))


def sample_metadata(row: int) -> Metadata:
    if row % 3 == 0:
        return {}
    return {
        "genre": ["drama", "comedy", "日本語 \x00"][row % 3],
        "year": 1990.0 + row + 0.1,
        "seen": row % 2 == 0,
        "tags": [f"t{row % 5}", "", "ü"],
    }


def sample_rows(
    count: int, dimension: int | None = DIMENSION, *, sparse: bool = False, seed: int = 0
) -> Rows:
    """Ids `r0`, `r1`, …; every other row has sparse values if `sparse`."""
    random = np.random.default_rng(seed)
    vectors = None
    if dimension is not None:
        vectors = random.standard_normal((count, dimension), dtype=np.float32) * 3
    return Rows(
        ids=[f"r{row}" for row in range(count)],
        lsns=np.arange(count, dtype=np.int64) * 7 + 3,
        vectors=vectors,
        sparse=[sample_sparse(random) if sparse and row % 2 else None for row in range(count)],
        metadata=[sample_metadata(row) for row in range(count)],
    )


def open_here(encoded: EncodedFile, of: NamespaceSchema) -> FileReader:
    """The reader of a file just written, without any store or cache."""
    data = {o.ref.name: pa.py_buffer(o.data) for o in encoded.objects}
    file = encoded.file
    vectors = None if file.vectors is None else data[file.vectors.name]
    return FileReader(file, of.prefix, of.metric, of.dimension, data[file.columns.name], vectors)


def with_dead(file: DataFile, rows: Sequence[int]) -> DataFile:
    return msgspec.structs.replace(file, dead=BitMap(rows).serialize(), dead_count=len(set(rows)))


def sample_manifest(
    version: int = 1,
    *,
    of: NamespaceSchema = DENSE,
    files: Sequence[DataFile] = (),
    owner_epoch: int = 1,
    commit_uuid: str = "",
) -> Manifest:
    return Manifest(
        index_id=of.index_id,
        namespace=of.namespace,
        log_id="log",
        log_epoch=1,
        version=version,
        generation=0,
        owner_epoch=owner_epoch,
        commit_uuid=commit_uuid or f"commit-{version}-{owner_epoch}",
        indexed_lsn=version * 10,
        record_count=sum(file.live for file in files),
        dimension=of.dimension or 0,
        metric=of.metric.value,
        files=tuple(files),
    )


async def put_file(store: ObjectStore, of: NamespaceSchema, encoded: EncodedFile) -> DataFile:
    await put_objects(store, of.prefix, encoded.objects)
    return encoded.file


async def opened(cache: FileCache, of: NamespaceSchema, file: DataFile) -> FileReader:
    return await cache.open(of.prefix, file, of.metric, of.dimension)


def assert_same_rows(got: Rows, wanted: Rows) -> None:
    """To the last bit."""
    assert list(got.ids) == list(wanted.ids)
    assert got.lsns.tolist() == wanted.lsns.tolist()
    assert list(got.metadata) == list(wanted.metadata)
    if wanted.vectors is None:
        assert got.vectors is None
    else:
        assert got.vectors is not None
        assert got.vectors.tobytes() == wanted.vectors.tobytes()
    for mine, theirs in zip(got.sparse, wanted.sparse, strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None and theirs is not None:
            assert mine.indices.tobytes() == theirs.indices.tobytes()
            assert mine.values.tobytes() == theirs.values.tobytes()
