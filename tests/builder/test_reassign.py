"""Rows move only to nearer centroids, each stays in one place, no cluster is made too small."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.compaction.cluster import nearest, unit
from builder.compaction.reassign import Sizes, divide, movers, neighbours
from core.metric import F32, Metric


def distances(vectors: F32, centroids: F32, metric: Metric) -> F32:
    """L2, on the sphere for cosine."""
    points = unit(vectors) if metric is Metric.COSINE else vectors
    result: F32 = np.linalg.norm(points[:, None] - centroids[None], axis=2)
    return result


@given(
    rows=st.integers(1, 200),
    others=st.integers(0, 6),
    vacant=st.integers(0, 2),
    most=st.integers(8, 120),
    metric=st.sampled_from(list(Metric)),
    kind=st.sampled_from(["normal", "equal", "huge", "two values"]),
    seed=st.integers(0, 5),
)
@settings(max_examples=80, deadline=None)
def test_a_divided_cluster(
    rows: int, others: int, vacant: int, most: int, metric: Metric, kind: str, seed: int
) -> None:
    """At stake: a row that is lost or written twice, and clusters that merging and splitting pass
    to and fro.
    """
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(rows, 4)).astype(np.float32)
    if kind == "equal":
        vectors[:] = vectors[0]
    elif kind == "huge":
        vectors *= np.float32(1e30)
    elif kind == "two values":
        vectors = np.where(np.arange(rows)[:, None] % 2 == 0, vectors[:1], -vectors[:1])
    vectors = np.ascontiguousarray(vectors)
    centroids = rng.normal(size=(1 + others + vacant, 4)).astype(np.float32)
    if metric is Metric.COSINE:
        centroids = unit(centroids)
    centroids[1 + others :] = np.nan
    sizes = Sizes(most=most, least=most // 4)
    made = divide(vectors, centroids, 0, metric, sizes, 2)
    assert sorted(np.concatenate([*made.members, made.strays]).tolist()) == list(range(rows))
    assert made.centroids.shape == (len(made.members), 4)
    assert np.isfinite(made.centroids).all()
    assert all(len(members) <= most for members in made.members)
    assert all(len(members) >= min(rows, sizes.least) for members in made.members)
    assert len(made.members[0]) == max(map(len, made.members))
    if len(made.strays) and kind != "huge":
        there = distances(vectors[made.strays], centroids[1 : 1 + others], metric).min(axis=1)
        own = distances(vectors[made.strays], np.stack([centroids[0]]), metric)[:, 0]
        pieces = distances(vectors[made.strays], made.centroids, metric).max(axis=1)
        assert (there <= np.maximum(own, pieces) * 1.001).all()


def test_rows_go_where_they_are_nearest() -> None:
    """Enough rows stay everywhere, so every row that is nearer elsewhere goes."""
    rng = np.random.default_rng(1)
    centroids = rng.normal(size=(5, 8)).astype(np.float32) * 3
    vectors = (centroids[np.arange(500) % 5] + rng.normal(size=(500, 8))).astype(np.float32)
    made = divide(vectors, centroids, 2, Metric.EUCLIDEAN, Sizes(most=1000, least=10), 1)
    assigned = nearest(vectors, centroids, Metric.EUCLIDEAN)
    assert made.members[0].tolist() == np.flatnonzero(assigned == 2).tolist()
    assert np.allclose(made.centroids[0], vectors[made.members[0]].mean(axis=0), atol=1e-5)


def test_rows_around_a_split_cluster_move_to_the_nearer_piece() -> None:
    """(0, 0) was split into pieces at -4 and 4; of the neighbour at 10, rows below 7 are nearer to
    the second piece; at most as many go as leave 30.
    """
    neighbour = np.zeros((100, 2), dtype=np.float32)
    neighbour[:, 0] = np.linspace(5.0, 14.9, 100)
    own = np.array([10.0, 0.0], dtype=np.float32)
    pieces = np.array([[-4.0, 0.0], [4.0, 0.0]], dtype=np.float32)
    moved = movers(neighbour, own, pieces, Metric.EUCLIDEAN, least=30)
    assert (neighbour[moved, 0] < 7.0).all()
    assert len(moved) == 20
    few = movers(neighbour, own, pieces, Metric.EUCLIDEAN, least=95)
    assert few.tolist() == [0, 1, 2, 3, 4], "those that gain most"


def test_equal_rows_stay_where_a_split_has_put_them() -> None:
    """Otherwise they would follow each other around for ever."""
    vectors = np.ones((60, 4), dtype=np.float32)
    centroids = np.ones((2, 4), dtype=np.float32)
    made = divide(vectors, centroids, 1, Metric.EUCLIDEAN, Sizes(most=40, least=7), 2)
    assert len(made.strays) == 0
    assert max(map(len, made.members)) <= 40


def test_neighbours_are_the_nearest_that_are_not_vacant() -> None:
    centroids = np.array([[0.0], [9.0], [np.nan], [2.0], [-1.0]], dtype=np.float32)
    assert neighbours(centroids, 0, 2).tolist() == [4, 3]
    assert neighbours(centroids, 3, 9).tolist() == [0, 4, 1]
