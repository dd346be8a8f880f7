"""What a filter says of one record, of columns, and of a file's statistics: one truth, three
speeds.
"""

from itertools import combinations, combinations_with_replacement

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.filters.columns import MetadataColumns
from core.filters.parse import parse_filter
from core.filters.row import matches
from core.filters.statistics import (
    FieldStatistics,
    collect,
    may_match,
)
from core.records import Metadata, MetadataValue
from tests.core.filter_strategies import metadata, wire_filters


def holds(wire: object, record: Metadata) -> bool:
    return matches(parse_filter(wire), record)


@pytest.mark.parametrize(
    ("wire", "value", "expected"),
    [
        ({"$eq": "drama"}, "drama", True),
        ({"$eq": "drama"}, "Drama", False),
        ({"$eq": 2020}, 2020.0, True),
        ({"$eq": 0}, -0.0, True),
        ({"$eq": ""}, "", True),
        ({"$ne": "drama"}, "comedy", True),
        ({"$gt": 1}, 1.0, False),
        ({"$gte": 1}, 1.0, True),
        ({"$lt": 1}, 0.5, True),
        ({"$lte": 1}, 1.5, False),
        ({"$in": ["a", 2]}, 2.0, True),
        ({"$in": []}, 2.0, False),
        ({"$nin": []}, 2.0, True),
        ({"$nin": ["a", 2]}, "a", False),
        ({"$exists": True}, False, True),
        ({"$exists": False}, "", False),
    ],
)
def test_operators(wire: object, value: MetadataValue, expected: bool) -> None:
    assert holds({"f": wire}, {"f": value}) is expected


def test_a_missing_field_satisfies_only_the_negations() -> None:
    for wire in ({"$ne": 1}, {"$nin": ["a"]}, {"$exists": False}):
        assert holds({"f": wire}, {"other": 1.0})
    for wire in ({"$eq": 1}, {"$in": ["a"]}, {"$gt": 0}, {"$lt": 9}, {"$exists": True}):
        assert not holds({"f": wire}, {"other": 1.0})


def test_booleans_are_not_numbers_and_numbers_are_not_strings() -> None:
    assert not holds({"f": True}, {"f": 1.0})
    assert not holds({"f": 1}, {"f": True})
    assert not holds({"f": {"$in": [1, 0]}}, {"f": False})
    assert not holds({"f": {"$gt": 0}}, {"f": True})
    assert not holds({"f": {"$gt": 0}}, {"f": "5"})
    assert not holds({"f": "1"}, {"f": 1.0})
    assert holds({"f": {"$ne": 1}}, {"f": True})


def test_a_list_matches_by_any_of_its_elements() -> None:
    tags: Metadata = {"tags": ["red", "blue"]}
    assert holds({"tags": "red"}, tags)
    assert holds({"tags": {"$in": ["green", "blue"]}}, tags)
    assert not holds({"tags": {"$ne": "red"}}, tags)
    assert holds({"tags": {"$nin": ["green"]}}, tags)
    assert not holds({"tags": {"$gt": 0}}, tags)


def test_an_empty_list_exists_and_equals_nothing() -> None:
    empty: Metadata = {"tags": []}
    assert holds({"tags": {"$exists": True}}, empty)
    assert not holds({"tags": ""}, empty)
    assert holds({"tags": {"$ne": "red"}}, empty)


def test_combinators() -> None:
    record: Metadata = {"a": 1.0, "b": "x"}
    assert holds({"$and": [{"a": 1}, {"b": "x"}]}, record)
    assert holds({"$or": [{"a": 2}, {"b": "x"}]}, record)
    assert not holds({"$not": {"a": 1}}, record)
    assert holds({"a": {"$not": {"$gt": 5}}}, record)
    assert holds({}, {})


VALUES: list[MetadataValue] = ["", "a", "b", "x" * 80, "1", -1.5, -0.0, 0.0, 1.0, 2.0, 2.0**53]
VALUES += [True, False, [], ["a"], ["a", "b"], ["b", "x" * 80]]
ROWS: list[Metadata] = [{}, *({"f": value} for value in VALUES)]
OPERANDS: list[str | float | bool] = ["", "a", "b", "zz", "1", -1.5, 0, 1, 2**53 + 1, True, False]
CONDITIONS = [
    {"f": condition}
    for condition in (
        {"$exists": True},
        {"$exists": False},
        *({name: o} for name in ("$eq", "$ne") for o in OPERANDS),
        *({name: o} for name in ("$gt", "$gte", "$lt", "$lte") for o in (-2, -1.5, 0, 1, 2, 9)),
        *({name: [o, p]} for name in ("$in", "$nin") for o, p in combinations(OPERANDS, 2)),
        *({name: []} for name in ("$in", "$nin")),
    )
]


def test_columns_say_the_same_as_rows_for_every_operator_and_type() -> None:
    columns = MetadataColumns.build(ROWS)
    for wire in CONDITIONS:
        f = parse_filter(wire)
        assert columns.mask(f).tolist() == [matches(f, row) for row in ROWS], wire


def test_statistics_never_lose_a_match_for_every_operator_and_pair_of_values() -> None:
    filters = [parse_filter(w) for c in CONDITIONS for w in (c, {"$not": c})]
    truth = [[matches(f, row) for row in ROWS] for f in filters]
    for i, j in combinations_with_replacement(range(len(ROWS)), 2):
        stats = collect([ROWS[i], ROWS[j]])
        for f, matching in zip(filters, truth, strict=True):
            if matching[i] or matching[j]:
                assert may_match(f, stats, 2), (f, ROWS[i], ROWS[j])


@settings(max_examples=300)
@given(st.lists(metadata, max_size=12), wire_filters)
def test_columns_say_the_same_as_rows(rows: list[Metadata], wire: dict[str, object]) -> None:
    f = parse_filter(wire)
    mask = MetadataColumns.build(rows).mask(f)
    assert mask.dtype == np.bool_
    assert mask.tolist() == [matches(f, row) for row in rows]


def test_a_mask_is_the_callers_own() -> None:
    columns = MetadataColumns.build([{"a": 1.0}, {}])
    columns.mask(parse_filter({"a": 1}))[:] = True
    assert columns.mask(parse_filter({"a": 1})).tolist() == [True, False]
    assert len(columns) == 2


def test_ten_thousand_different_fields_do_not_multiply_by_the_rows() -> None:
    """One field per row, as keys made from user ids do: 10,000 x 10,000 cells would be 100 MB and
    more.
    """
    rows: list[Metadata] = [{f"user-{i}": 1.0} for i in range(10_000)]
    columns = MetadataColumns.build(rows)
    held = sum(
        getattr(field, name).nbytes
        for field in columns._fields.values()
        for name in ("present", "number_rows", "numbers", "string_rows", "element_rows")
    )
    assert held < 1_000_000
    assert columns.mask(parse_filter({"user-77": 1})).nonzero()[0].tolist() == [77]


@settings(max_examples=300)
@given(st.lists(metadata, max_size=8), wire_filters)
def test_statistics_never_lose_a_match(rows: list[Metadata], wire: dict[str, object]) -> None:
    f = parse_filter(wire)
    packed = msgspec.msgpack.encode(collect(rows))
    stats = msgspec.msgpack.decode(packed, type=dict[str, FieldStatistics])
    if any(matches(f, row) for row in rows):
        assert may_match(f, stats, len(rows))


@pytest.mark.parametrize(
    "wire",
    [
        {"genre": "horror"},
        {"genre": {"$in": ["horror", 7]}},
        {"year": {"$gt": 2020}},
        {"year": {"$lt": 2000}},
        {"year": 1999},
        {"year": {"$exists": False}},
        {"ok": False},
        {"ok": 1},
        {"ok": {"$ne": True}},
        {"genre": {"$nin": ["drama", "comedy"]}},
        {"absent": 1},
        {"absent": {"$exists": True}},
        {"$not": {"ok": True}},
        {"$not": {"$or": [{"absent": 1}, {"year": {"$gte": 2000}}]}},
        {"$and": [{"genre": "drama"}, {"year": 1}]},
        {"$or": [{"genre": "horror"}, {"year": 1}]},
    ],
)
def test_statistics_prune_what_cannot_match(wire: object) -> None:
    rows: list[Metadata] = [
        {"genre": "drama", "year": 2000.0, "ok": True},
        {"genre": "comedy", "year": 2020.0, "ok": True},
    ]
    assert not may_match(parse_filter(wire), collect(rows), len(rows))
