"""Vectors live once, in Annoy's file, and numpy reads them there: a silent change of layout would
corrupt all data.
"""

from pathlib import Path

import numpy as np
import pytest

from core.errors import ConfigError, CorruptData
from core.metric import F32, Metric
from storage import annoy_file
from storage.annoy_file import annoy_vectors, assert_annoy_layout, build_annoy, open_annoy

METRICS = list(Metric)
SIZES = [(1, 3), (2, 1), (7, 5), (1000, 64)]


def some_vectors(rows: int, dimension: int) -> F32:
    random = np.random.default_rng(rows)
    return random.standard_normal((rows, dimension), dtype=np.float32) * 10


def as_array(data: bytes) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return np.frombuffer(data, dtype=np.uint8)


def test_the_installed_annoy_has_the_layout_that_is_read() -> None:
    assert_annoy_layout()


def test_another_layout_is_noticed_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {**annoy_file._HEADER_WORDS, Metric.COSINE: 4, Metric.EUCLIDEAN: 3}
    monkeypatch.setattr(annoy_file, "_HEADER_WORDS", wrong)
    with pytest.raises((ConfigError, CorruptData)):
        assert_annoy_layout()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("rows", "dimension"), SIZES)
def test_numpy_and_annoy_read_the_vectors_that_were_written(
    metric: Metric, rows: int, dimension: int, tmp_path: Path
) -> None:
    vectors = some_vectors(rows, dimension)
    data = build_annoy(vectors, metric)
    view = annoy_vectors(as_array(data), rows, dimension, metric)
    assert view.tobytes() == vectors.tobytes()
    path = tmp_path / "file.ann"
    path.write_bytes(data)
    index = open_annoy(path, dimension, metric)
    assert index.get_n_items() == rows
    for row in range(0, rows, 100):
        assert index.get_item_vector(row) == vectors[row].tolist()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("rows", "dimension"), SIZES)
def test_bulk_load_makes_the_file_that_add_item_makes(
    metric: Metric, rows: int, dimension: int
) -> None:
    """Byte for byte, but for the last bits of the squared norm that angular keeps per item."""
    vectors = some_vectors(rows, dimension)
    plain = annoy_file._build(vectors, metric, annoy_file._load_by_add_item)
    bulk = build_annoy(vectors, metric)
    assert len(bulk) == len(plain)
    words = dimension + annoy_file._HEADER_WORDS[metric]
    different = np.frombuffer(bulk, "<u4") != np.frombuffer(plain, "<u4")
    places = np.argwhere(different.reshape(-1, words))
    if metric is not Metric.COSINE:
        assert not len(places)
        return
    assert set(places[:, 1]) <= {1}
    assert set(places[:, 0]) <= set(range(rows))
    norms = [np.frombuffer(d, "<f4").reshape(-1, words)[:rows, 1] for d in (bulk, plain)]
    np.testing.assert_allclose(norms[0], norms[1], rtol=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_bulk_load_answers_like_add_item(metric: Metric, tmp_path: Path) -> None:
    vectors, queries = some_vectors(3000, 24), some_vectors(100, 24)
    answers = []
    for name, load in (
        ("plain", annoy_file._load_by_add_item),
        ("bulk", annoy_file._load_in_bulk),
    ):
        path = tmp_path / name
        path.write_bytes(annoy_file._build(vectors, metric, load))
        index = open_annoy(path, 24, metric)
        answers.append([index.get_nns_by_vector(q, 10) for q in queries.tolist()])
    assert answers[0] == answers[1]


@pytest.mark.parametrize("metric", METRICS)
def test_trees_find_neighbours(metric: Metric, tmp_path: Path) -> None:
    """The trees are built over the bulk-loaded nodes, not over the zeros that were there first."""
    vectors = some_vectors(2000, 16)
    path = tmp_path / "file.ann"
    path.write_bytes(build_annoy(vectors, metric))
    index = open_annoy(path, 16, metric)
    assert index.get_n_trees() == annoy_file.TREES
    if metric is Metric.DOTPRODUCT:
        found = [index.get_nns_by_vector(v.tolist(), 1, 4000)[0] for v in vectors[:50]]
        assert found == (vectors[:50] @ vectors.T).argmax(axis=1).tolist()
    else:
        found = [index.get_nns_by_vector(v.tolist(), 1)[0] for v in vectors[:50]]
        assert found == list(range(50))


@pytest.mark.parametrize("metric", METRICS)
def test_the_same_rows_give_the_same_bytes(metric: Metric) -> None:
    vectors = some_vectors(500, 8)
    assert build_annoy(vectors, metric) == build_annoy(vectors.copy(), metric)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("value", [3e38, 1e-40, 1.0])
def test_hostile_values_neither_hang_nor_change(metric: Metric, value: float) -> None:
    """Norms that overflow, that vanish, and rows that are all the same: nothing to split by."""
    vectors = np.full((1500, 4), value, dtype=np.float32)
    view = annoy_vectors(as_array(build_annoy(vectors, metric)), 1500, 4, metric)
    assert view.tobytes() == vectors.tobytes()


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        build_annoy(np.empty((0, 4), dtype=np.float32), Metric.COSINE)


def test_a_file_of_the_wrong_size_is_corrupt() -> None:
    data = as_array(build_annoy(some_vectors(10, 4), Metric.COSINE))
    with pytest.raises(CorruptData):
        annoy_vectors(data[:-1], 10, 4, Metric.COSINE)
    with pytest.raises(CorruptData):
        annoy_vectors(data, 10_000, 4, Metric.COSINE)


def test_a_view_is_no_copy() -> None:
    data = as_array(build_annoy(some_vectors(10, 4), Metric.DOTPRODUCT))
    view = annoy_vectors(data, 10, 4, Metric.DOTPRODUCT)
    assert np.shares_memory(view, data)
    assert not view.flags.writeable
