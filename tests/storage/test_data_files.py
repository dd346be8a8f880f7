"""What is written to a cluster file or delta is read back to the last bit, in place."""

import gc
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from core.errors import CorruptData
from core.filters.parse import parse_filter
from core.filters.row import matches
from core.metric import Metric, row_norms
from core.records import Metadata, SparseValues
from storage.checksum import checksum, id_hash
from storage.cluster_file import write_cluster
from storage.delta_file import write_delta
from storage.encoded_file import EncodedFile, EncodedObject
from storage.layout import NamespaceSchema
from storage.rows import Rows
from tests.storage.samples import (
    DENSE,
    DIMENSION,
    SPARSE,
    assert_same_rows,
    open_here,
    sample_metadata,
    sample_rows,
    schema,
)


def write(kind: str, rows: Rows, of: NamespaceSchema) -> EncodedFile:
    return write_cluster(rows, of) if kind == "cluster" else write_delta(rows, of)


@pytest.mark.parametrize("kind", ["cluster", "delta"])
@pytest.mark.parametrize("count", [1, 2, 300])
@pytest.mark.parametrize(
    ("of", "sparse"),
    [
        (schema(Metric.COSINE), False),
        (schema(Metric.EUCLIDEAN), False),
        (schema(Metric.DOTPRODUCT), False),
        (schema(Metric.DOTPRODUCT), True),
        (SPARSE, True),
    ],
)
def test_rows_come_back_as_they_were(
    kind: str, count: int, of: NamespaceSchema, sparse: bool, tmp_path: Path
) -> None:
    rows = sample_rows(count, of.dimension, sparse=sparse)
    encoded = write(kind, rows, of)
    reader = open_here(encoded, of)
    assert reader.rows == count
    assert reader.is_delta == encoded.file.is_delta == (kind == "delta")
    assert reader.all_ids == rows.ids
    assert_same_rows(reader.take(np.arange(count)), rows)
    backward = np.arange(count)[::-1]
    assert_same_rows(reader.take(backward), rows.take(backward))
    assert_same_rows(reader.take([0]), rows.take(np.array([0])))
    assert len(reader.take([])) == 0


def test_a_manifest_entry_says_what_is_in_the_file() -> None:
    rows = sample_rows(100)
    encoded = write_cluster(rows, DENSE)
    file = encoded.file
    assert (file.rows, file.live, file.dead, file.cluster) == (100, 100, b"", -1)
    assert [o.ref for o in encoded.objects] == [file.vectors, file.columns]
    for encoded_object in encoded.objects:
        assert encoded_object.ref.size == len(encoded_object.data)
        assert encoded_object.ref.checksum == checksum(encoded_object.data)
    year = file.statistics["year"]
    assert (year.minimum, year.maximum) == (1991.1, 2088.1)


def test_a_sparse_index_has_no_annoy_object() -> None:
    assert write_cluster(sample_rows(5, None, sparse=True), SPARSE).file.vectors is None


def test_radius_is_the_farthest_row_from_the_centroid() -> None:
    rows = sample_rows(50)
    assert rows.vectors is not None
    centroid = rows.vectors.mean(axis=0)
    euclidean = write_cluster(rows, schema(Metric.EUCLIDEAN), cluster=3, centroid=centroid).file
    distances = np.linalg.norm(rows.vectors - centroid, axis=1)
    assert euclidean.cluster == 3
    assert euclidean.radius == pytest.approx(distances.max(), rel=1e-5)
    unit = rows.vectors / np.linalg.norm(rows.vectors, axis=1, keepdims=True)
    cosine = write_cluster(rows, DENSE, cluster=0, centroid=centroid).file
    assert cosine.radius == pytest.approx(np.linalg.norm(unit - centroid, axis=1).max(), rel=1e-5)


@pytest.mark.parametrize("kind", ["cluster", "delta"])
def test_vectors_are_read_in_place(kind: str) -> None:
    encoded = write(kind, sample_rows(40), DENSE)
    reader = open_here(encoded, DENSE)
    assert reader.vectors is not None
    assert not reader.vectors.flags.writeable
    data = np.frombuffer(encoded.objects[0].data, dtype=np.uint8)
    assert np.shares_memory(reader.vectors, data)


def test_trees_answer_from_a_copy_of_their_own() -> None:
    """Annoy maps what it loads for as long as it lives; that may be no file that has a name."""
    rows = sample_rows(60)
    reader = open_here(write_cluster(rows, schema(Metric.DOTPRODUCT)), schema(Metric.DOTPRODUCT))
    before = reader.heap_bytes
    assert rows.vectors is not None
    found = reader.annoy().get_nns_by_vector(rows.vectors[5].tolist(), 60, 10_000)
    assert found[0] == int((rows.vectors @ rows.vectors[5]).argmax())
    assert reader.heap_bytes > before + rows.vectors.nbytes


def test_taken_rows_outlive_the_reader() -> None:
    rows = sample_rows(30, sparse=True)
    of = schema(Metric.DOTPRODUCT)
    taken = open_here(write_cluster(rows, of), of).take(np.arange(30))
    gc.collect()
    assert_same_rows(taken, rows)


def test_columns_answer_filters_like_rows() -> None:
    rows = sample_rows(200)
    reader = open_here(write_cluster(rows, DENSE), DENSE)
    f = parse_filter({"$or": [{"genre": "comedy"}, {"year": {"$gt": 2100}}, {"tags": "t3"}]})
    assert reader.columns.mask(f).tolist() == [matches(f, m) for m in rows.metadata]
    assert reader.columns is reader.columns


@pytest.mark.parametrize("metric", list(Metric))
def test_norms_hashes_and_order(metric: Metric) -> None:
    rows = sample_rows(120)
    assert rows.vectors is not None
    reader = open_here(write_cluster(rows, schema(metric)), schema(metric))
    if metric is Metric.DOTPRODUCT:
        assert reader.norms is None
    else:
        assert reader.norms is not None
        np.testing.assert_allclose(reader.norms, row_norms(metric, rows.vectors), rtol=1e-6)
    assert reader.hashes.tolist() == [id_hash(i) for i in rows.ids]
    assert [rows.ids[row] for row in reader.by_id] == sorted(rows.ids)
    assert reader.heap_bytes >= 8 * 120


def test_lazy_parts_are_built_once_however_many_threads_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader = open_here(write_cluster(sample_rows(500), DENSE), DENSE)
    built = []
    real = reader._columns_file.all_metadata

    def count() -> list[dict[str, str | float | bool | list[str]]]:
        built.append(threading.get_ident())
        time.sleep(0.02)  # long enough for all the others to ask
        return real()

    monkeypatch.setattr(reader._columns_file, "all_metadata", count)
    barrier = threading.Barrier(8)

    def ask(_: int) -> object:
        barrier.wait()
        return reader.columns

    with ThreadPoolExecutor(8) as threads:
        found = set(map(id, threads.map(ask, range(8))))
    assert len(found) == len(built) == 1


def test_ids_of_any_script_and_odd_metadata() -> None:
    """Ids are ASCII by rule, but what is in the log must be storable, or a partition stops."""
    rows = sample_rows(4)
    odd = Rows(
        ids=["é", "日本", "a" * 512, ""],
        lsns=np.array([0, 1, 2**62, 3]),
        vectors=rows.vectors,
        sparse=[None] * 4,
        metadata=[
            {"": ""},
            {"k" * 500: -0.0, "big": 1.7976931348623157e308, "small": 5e-324},
            {"list": [], "nul": "\x00", "emoji": "🦜"},
            {"t": True, "f": False, "n": 0.0},
        ],
    )
    reader = open_here(write_delta(odd, DENSE), DENSE)
    assert_same_rows(reader.take(np.arange(4)), odd)
    assert reader.all_ids == odd.ids
    assert [type(v) for v in reader.metadata([3])[0].values()] == [bool, bool, float]
    assert np.signbit(np.float64(reader.metadata([1])[0]["k" * 500]))  # type: ignore[arg-type]


def test_rows_without_metadata_cost_next_to_nothing() -> None:
    rows = sample_rows(1000, 1)
    bare = Rows(rows.ids, rows.lsns, rows.vectors, rows.sparse, [{}] * 1000)
    one = schema(Metric.EUCLIDEAN, 1)
    encoded = write_delta(bare, one)
    assert encoded.file.columns.size < 1000 * (4 + 8 + 4 + 8 + 4) + 2000
    assert open_here(encoded, one).metadata([0, 999]) == [{}, {}]
    assert open_here(encoded, one).sparse is None


def test_sparse_scores_from_the_file() -> None:
    rows = sample_rows(50, None, sparse=True)
    reader = open_here(write_cluster(rows, SPARSE), SPARSE)
    query = rows.sparse[3]
    assert query is not None
    assert reader.sparse is not None
    scores = reader.sparse.scores(query)
    assert int(scores.argmax()) == 3
    assert scores[0] == 0.0
    assert scores[3] == pytest.approx(float((query.values.astype(np.float64) ** 2).sum()))


def test_no_rows_are_refused() -> None:
    empty = sample_rows(1).take(np.array([], dtype=np.int64))
    for kind in ("cluster", "delta"):
        with pytest.raises(ValueError, match="at least one row"):
            write(kind, empty, DENSE)


@pytest.mark.parametrize(
    "groups", [((0, 1),), ((0, 0), (1, 10)), ((0, 0), (1, 4), (2, 4)), ((0, 0), (1, 6), (2, 5))]
)
def test_groups_that_do_not_divide_the_rows_are_refused(
    groups: tuple[tuple[int, int], ...],
) -> None:
    with pytest.raises(ValueError, match="do not divide"):
        write_delta(sample_rows(10), DENSE, groups=groups)


def test_groups_go_into_the_manifest() -> None:
    groups = ((4, 0), (1, 3), (7, 9))
    assert write_delta(sample_rows(10), DENSE, groups=groups).file.groups == groups


@pytest.mark.parametrize(
    "other",
    [
        NamespaceSchema("index-1", "films", Metric.COSINE, DIMENSION),
        NamespaceSchema("index-2", "books", Metric.COSINE, DIMENSION),
        schema(Metric.EUCLIDEAN),
        schema(Metric.COSINE, DIMENSION + 1),
        SPARSE,
    ],
)
def test_another_namespaces_file_is_not_served(other: NamespaceSchema) -> None:
    encoded = write_delta(sample_rows(5), DENSE)
    with pytest.raises(CorruptData):
        open_here(encoded, other)


@pytest.mark.parametrize("damage", [b"", b"ARROW1", b"x" * 1000])
def test_what_is_no_columns_file_is_corrupt(damage: bytes) -> None:
    encoded = write_delta(sample_rows(5), DENSE)
    broken = EncodedFile((EncodedObject(encoded.file.columns, damage),), encoded.file)
    with pytest.raises(CorruptData, match="deltas/"):
        open_here(broken, DENSE)


def test_a_file_of_a_later_format_is_refused() -> None:
    encoded = write_delta(sample_rows(5), DENSE)
    batch = pa.ipc.open_file(encoded.objects[0].data).get_batch(0)
    header = {**batch.schema.metadata, b"firn.format": b"2"}
    sink = pa.BufferOutputStream()
    changed = batch.replace_schema_metadata(header)
    with pa.ipc.new_file(sink, changed.schema) as writer:
        writer.write_batch(changed)
    data = sink.getvalue().to_pybytes()
    later = EncodedFile((EncodedObject(encoded.file.columns, data),), encoded.file)
    with pytest.raises(CorruptData, match="has format 2; this build reads 1"):
        open_here(later, DENSE)


def test_a_row_count_unlike_the_manifests_is_corrupt() -> None:
    encoded = write_delta(sample_rows(5), DENSE)
    wrong = EncodedFile(encoded.objects, msgspec.structs.replace(encoded.file, rows=6))
    with pytest.raises(CorruptData, match="has 5 rows, the manifest says 6"):
        open_here(wrong, DENSE)


def test_any_arrow_reader_can_read_it() -> None:
    """The format is open: no FirnDB code is needed to get one's data out."""
    rows = sample_rows(6, sparse=True)
    of = schema(Metric.DOTPRODUCT)
    table = pa.ipc.open_file(write_delta(rows, of).objects[0].data).read_all()
    assert table.column("id").to_pylist() == rows.ids
    assert rows.vectors is not None
    assert table.column("vector").to_pylist() == rows.vectors.tolist()
    third = rows.sparse[3]
    assert third is not None
    assert table.column("sparse_indices").to_pylist()[3] == third.indices.tolist()
    decoded = [msgspec.msgpack.decode(m) if m else {} for m in table.column("metadata").to_pylist()]
    assert decoded == [sample_metadata(row) for row in range(6)]


def test_sparse_values_are_views_of_the_file() -> None:
    of = schema(Metric.DOTPRODUCT)
    reader = open_here(write_delta(sample_rows(6, sparse=True), of), of)
    first, second = reader.sparse_values([0, 1])
    assert first is None
    assert isinstance(second, SparseValues)
    assert reader.sparse is not None
    assert np.shares_memory(second.values, reader.sparse.values)


WIDE = schema(Metric.COSINE, 64)


def hot_rows(count: int) -> Rows:
    rows = sample_rows(count, 64)
    metadata: list[Metadata] = [
        {"genre": f"g{row % 10}", "user": f"user-{row}", "tags": [f"t{row % 3}"]}
        for row in range(count)
    ]
    return Rows(rows.ids, rows.lsns, rows.vectors, rows.sparse, metadata)


@pytest.mark.parametrize("kind", ["cluster", "delta"])
@pytest.mark.parametrize(
    "wire",
    [
        {"genre": "g3"},
        {"genre": {"$ne": "g3"}, "tags": {"$in": ["t1", "t9"]}},
        {"genre": "g3", "user": "user-13"},
        {"$or": [{"genre": "g3"}, {"user": {"$in": ["user-14", "user-23"]}}]},
        {"$not": {"$and": [{"genre": "g3"}, {"user": {"$ne": "user-13"}}]}},
        {"absent": {"$exists": False}},
    ],
)
def test_matching_says_the_same_with_and_without_bitmaps(
    kind: str, wire: dict[str, object]
) -> None:
    rows = hot_rows(400)
    f = parse_filter(wire)
    truth = np.array([matches(f, m) for m in rows.metadata])
    reader = open_here(write(kind, rows, WIDE), WIDE)
    among = np.arange(400) % 3 != 0
    asked = among.copy()
    for _ in range(3):  # with few rows decoded, with more, with all
        assert reader.matching(f).tolist() == truth.tolist()
        assert reader.matching(f, among).tolist() == (truth & among).tolist()
    assert among.tolist() == asked.tolist()


def test_a_filter_of_hot_fields_decodes_no_metadata() -> None:
    reader = open_here(write_cluster(hot_rows(1_000), WIDE), WIDE)
    assert reader.matching(parse_filter({"genre": "g3", "tags": "t1"})).sum() == 33
    assert reader.decoded_rows == 0
    one = parse_filter({"genre": "g3", "user": "user-13"})
    assert np.flatnonzero(reader.matching(one)).tolist() == [13]
    assert reader.decoded_rows == 100
    few = np.zeros(1_000, dtype=np.bool_)
    few[[13, 23, 24]] = True
    assert np.flatnonzero(reader.matching(one, few)).tolist() == [13]
    assert reader.decoded_rows == 102
    heap = reader.heap_bytes
    for _ in range(5):
        reader.matching(one)
    assert reader.decoded_rows < 2_000, "then the whole file is decoded, once"
    assert reader.heap_bytes > heap + 1_000 * 90


def test_bitmaps_are_bounded_by_the_files_bytes_and_not_in_deltas() -> None:
    def inverted(encoded: EncodedFile) -> int:
        data = next(o.data for o in encoded.objects if o.ref.name.endswith(".arrow"))
        found = pa.ipc.open_file(data).get_batch(0).to_pydict().get("inverted", [b""])
        assert all(value == b"" for value in found[1:])
        return len(found[0])

    rows = hot_rows(2_000)
    assert 0 < inverted(write_cluster(rows, WIDE)) <= 2_000 * (4 * 64 + 60) / 20
    assert inverted(write_delta(rows, WIDE)) == 0
    assert inverted(write_cluster(sample_rows(1), DENSE)) == 0
