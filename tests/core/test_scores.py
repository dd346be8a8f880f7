"""Scores as Pinecone reports them, fast rankings that agree, and the choice of the best."""

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.metric import Metric, exact_scores, ranking, row_norms
from core.top_k import top_k, top_rows


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (Metric.COSINE, [1.0, 0.0, -1.0]),
        (Metric.DOTPRODUCT, [2.0, 0.0, -6.0]),
        (Metric.EUCLIDEAN, [1.0, 5.0, 25.0]),
    ],
)
def test_exact_scores(metric: Metric, expected: list[float]) -> None:
    vectors = np.array([[1, 0], [0, 1], [-3, 0]], dtype=np.float32)
    query = np.array([2, 0], dtype=np.float32)
    assert exact_scores(metric, vectors, query).tolist() == expected


@pytest.mark.parametrize(
    ("metric", "scale"),
    # products of 1e-30 are below float32: only a cosine can still tell such vectors apart
    [(Metric.COSINE, 1e-30), *((metric, s) for metric in Metric for s in (1e-4, 1.0, 1e12))],
)
def test_the_fast_ranking_finds_the_exact_best_at_every_scale(metric: Metric, scale: float) -> None:
    """1e-30 squared is zero in float32: a cosine by such lengths would be a division by zero."""
    rng = np.random.default_rng(1)
    vectors = (rng.standard_normal((200, 8)) * scale).astype(np.float32)
    query = (rng.standard_normal(8) * scale).astype(np.float32)
    exact = exact_scores(metric, vectors, query)
    best = int(np.argmax(exact) if metric.higher_is_better else np.argmin(exact))
    assert int(np.argmax(ranking(metric, vectors, query))) == best
    given_norms = ranking(metric, vectors, query, row_norms(metric, vectors))
    assert int(np.argmax(given_norms)) == best


def test_exact_scores_do_not_depend_on_where_a_row_lies() -> None:
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((64, 33)).astype(np.float32)
    query = rng.standard_normal(33).astype(np.float32)
    for metric in Metric:
        together = exact_scores(metric, vectors, query)
        alone = np.concatenate([exact_scores(metric, v[None, :], query) for v in vectors])
        assert together.tobytes() == alone.tobytes()


def test_overflowing_rankings_do_not_come_first() -> None:
    vectors = np.array([[3e38, -3e38], [1, 1], [2, 2]], dtype=np.float32)
    query = np.array([3e38, 3e38], dtype=np.float32)
    scores = ranking(Metric.DOTPRODUCT, vectors, query)
    assert top_rows(scores, 2).tolist()[0] != 0


_scores = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0, 3.0]), max_size=30)


@given(_scores, st.integers(0, 35))
def test_top_rows_are_the_highest_with_ties_by_row(scores: list[float], k: int) -> None:
    chosen = top_rows(np.array(scores, dtype=np.float32), k)
    assert chosen.dtype == np.int64
    assert chosen.tolist() == sorted(range(len(scores)), key=lambda r: (-scores[r], r))[:k]


@given(_scores, st.integers(0, 35), st.booleans(), st.randoms())
def test_the_answer_does_not_depend_on_the_order_of_rows(
    scores: list[float], k: int, higher: bool, random: Random
) -> None:
    ids = [f"id{i}" for i in range(len(scores))]
    random.shuffle(ids)
    chosen = top_k(np.array(scores, dtype=np.float64), ids, k, higher_is_better=higher)
    sign = -1 if higher else 1
    expected = sorted(zip(scores, ids, strict=True), key=lambda pair: (sign * pair[0], pair[1]))
    assert [(scores[row], ids[row]) for row in chosen.tolist()] == expected[:k]


def test_among_equal_scores_the_lowest_ids_are_chosen() -> None:
    ids = ["d", "b", "e", "a", "c"]
    assert top_k(np.zeros(5), ids, 3).tolist() == [3, 1, 4]
    assert top_k(np.array([0.0, 0, 9, 0, 0]), ids, 3).tolist() == [2, 3, 1]


def test_nan_ranks_last() -> None:
    scores = np.array([np.nan, 1.0, -np.inf, 2.0], dtype=np.float32)
    assert top_rows(scores, 2).tolist() == [3, 1]
