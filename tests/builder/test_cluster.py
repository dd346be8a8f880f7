"""Clusters must hold every row once and stay under their size, however nasty the data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.compaction.cluster import cluster, nearest
from core.metric import F32, Metric


def blobs(rows: int, dimension: int, centers: int, seed: int = 3) -> tuple[F32, F32]:
    rng = np.random.default_rng(seed)
    middle = rng.normal(size=(centers, dimension)).astype(np.float32) * 10
    noise = rng.normal(size=(rows, dimension)).astype(np.float32)
    return middle, middle[np.arange(rows) % centers] + noise


@given(
    rows=st.integers(1, 300),
    dimension=st.integers(1, 8),
    clusters=st.integers(1, 12),
    rows_max=st.integers(1, 80),
    metric=st.sampled_from(list(Metric)),
    kind=st.sampled_from(["normal", "equal", "huge", "two values"]),
    seed=st.integers(0, 5),
)
@settings(max_examples=80, deadline=None)
def test_every_row_is_in_one_cluster_that_fits(
    rows: int, dimension: int, clusters: int, rows_max: int, metric: Metric, kind: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(rows, dimension)).astype(np.float32)
    if kind == "equal":
        vectors[:] = vectors[0]
    elif kind == "huge":
        vectors *= np.float32(1e30)
    elif kind == "two values":
        vectors = np.where(np.arange(rows)[:, None] % 2 == 0, vectors[:1], -vectors[:1])
    result = cluster(np.ascontiguousarray(vectors), metric, clusters, rows_max)
    assert sorted(np.concatenate(result.members).tolist()) == list(range(rows))
    assert all(1 <= len(m) <= rows_max for m in result.members)
    assert result.centroids.shape == (len(result.members), dimension)
    assert result.centroids.dtype == np.float32
    assert np.isfinite(result.centroids).all()


@pytest.mark.parametrize("metric", list(Metric))
def test_blobs_that_are_far_apart_are_found(metric: Metric) -> None:
    """1,000 rows around 5 centres, noise a tenth of the distance: no cluster mixes two of them."""
    _, vectors = blobs(1000, 16, 5)
    result = cluster(vectors, metric, 10, 400)
    for members in result.members:
        assert len(set((members % 5).tolist())) == 1


def test_the_same_rows_give_the_same_clusters() -> None:
    _, vectors = blobs(500, 8, 7)
    one, two = (cluster(vectors, Metric.EUCLIDEAN, 6, 200) for _ in range(2))
    assert np.array_equal(one.centroids, two.centroids)
    assert all(np.array_equal(a, b) for a, b in zip(one.members, two.members, strict=True))


def test_cosine_centroids_have_unit_norm() -> None:
    _, vectors = blobs(200, 8, 3)
    result = cluster(vectors, Metric.COSINE, 3, 100)
    assert np.allclose(np.linalg.norm(result.centroids, axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("metric", list(Metric))
def test_nearest_agrees_with_brute_force(metric: Metric) -> None:
    """Over more rows than one block; cosine ignores lengths."""
    centers, vectors = blobs(5000, 8, 6)
    if metric is Metric.COSINE:
        centers = centers / np.linalg.norm(centers, axis=1, keepdims=True)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        expected = np.argmax(unit @ centers.T, axis=1)
    else:
        expected = np.argmin(((vectors[:, None] - centers[None]) ** 2).sum(axis=2), axis=1)
    assert np.array_equal(nearest(vectors, centers, metric), expected)
