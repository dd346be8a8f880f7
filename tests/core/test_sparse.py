"""Sparse scores: right, and the same to the last bit wherever a record is stored."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from core.records import SparseValues
from core.sparse import SparseColumns, sparse_score

_values = st.floats(-(2.0**100), 2.0**100, width=32).filter(lambda v: v != 0)


def sparse(terms: dict[int, float]) -> SparseValues:
    indices = np.array(sorted(terms), dtype=np.uint32)
    return SparseValues(indices, np.array([terms[int(i)] for i in indices], dtype=np.float32))


vectors = st.dictionaries(
    st.sampled_from([0, 1, 2, 7, 100, 2**31, 2**32 - 1]), _values, min_size=1, max_size=7
).map(sparse)


def by_hand(left: SparseValues, right: SparseValues) -> float:
    other = dict(zip(right.indices.tolist(), right.values.tolist(), strict=True))
    total = 0.0
    for index, value in zip(left.indices.tolist(), left.values.tolist(), strict=True):
        if index in other:
            total += value * other[index]
    return total


@given(st.lists(st.none() | vectors, max_size=8), vectors)
def test_scores_are_the_dot_products(rows: list[SparseValues | None], query: SparseValues) -> None:
    scores = SparseColumns.build(rows).scores(query)
    assert scores.dtype == np.float64
    assert scores.tolist() == [0.0 if row is None else by_hand(row, query) for row in rows]
    for row, score in zip(rows, scores.tolist(), strict=True):
        if row is not None:
            assert sparse_score(row, query) == sparse_score(query, row) == score


def test_a_record_scores_the_same_alone_and_among_thousands() -> None:
    rng = np.random.default_rng(5)

    def random(terms: int) -> SparseValues:
        indices = np.sort(rng.choice(500, terms, replace=False)).astype(np.uint32)
        return SparseValues(indices, rng.standard_normal(terms).astype(np.float32))

    rows = [random(60) for _ in range(2000)]
    query = random(200)
    scores = SparseColumns.build(rows).scores(query)
    again = SparseColumns.build(rows[::-1]).scores(query)[::-1]
    assert scores.tobytes() == again.tobytes()
    assert [sparse_score(row, query) for row in rows] == scores.tolist()


def test_rows_come_back_as_they_went_in() -> None:
    first = sparse({3: 1.0, 9: -2.0})
    columns = SparseColumns.build([None, first])
    assert columns.row(0) is None
    back = columns.row(1)
    assert back is not None
    assert back.indices.tolist() == [3, 9]
    assert back.values.tolist() == [1.0, -2.0]
    assert len(columns) == 2


def test_no_rows_and_no_shared_terms() -> None:
    assert SparseColumns.build([]).scores(sparse({1: 1.0})).tolist() == []
    assert SparseColumns.build([None]).scores(sparse({1: 1.0})).tolist() == [0.0]
    assert SparseColumns.build([sparse({2: 1.0})]).scores(sparse({1: 1.0})).tolist() == [0.0]
