"""Statistics prune whole files: a match lost here is lost for good, and nobody would notice."""

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.filters import bloom, statistics
from core.filters.model import Filter
from core.filters.parse import parse_filter
from core.filters.row import matches
from core.filters.statistics import (
    BYTES_MAX,
    INCOMPLETE,
    STRINGS_MAX,
    FieldStatistics,
    collect,
    may_match,
)
from core.records import Metadata, MetadataValue
from tests.core.filter_strategies import metadata, wire_filters

EXAMPLES = [2_000, pytest.param(20_000, marks=[pytest.mark.long, pytest.mark.timeout(1800)])]
FILTERS = wire_filters.filter(bool)  # an empty one is allowed only at the top
EVERY_FLOAT = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.one_of(
    st.text(max_size=3), st.booleans(), EVERY_FLOAT, st.lists(st.text(max_size=3), max_size=3)
)


def transported(rows: list[Metadata]) -> dict[str, FieldStatistics]:
    """As they come out of a manifest."""
    packed = msgspec.msgpack.encode(collect(rows))
    return msgspec.msgpack.decode(packed, type=dict[str, FieldStatistics])


def assert_nothing_lost(rows: list[Metadata], f: Filter) -> bool:
    """Whether the file was pruned."""
    kept = may_match(f, transported(rows), len(rows))
    assert kept or not any(matches(f, row) for row in rows)
    return not kept


@st.composite
def crowded_rows(draw: st.DrawFn) -> list[Metadata]:
    """More strings and numbers than are listed one by one, so that Bloom filters answer."""
    rows = draw(st.lists(metadata, max_size=6))
    for field in draw(st.sets(st.sampled_from(["genre", "year", "ok"]), min_size=1)):
        kind = draw(st.sampled_from(["strings", "numbers", "lists", "mixed"]))
        many = [_crowd(kind, number) for number in range(STRINGS_MAX + draw(st.integers(1, 9)))]
        rows += [{field: value} for value in many]
    return rows


def _crowd(kind: str, number: int) -> MetadataValue:
    if kind == "numbers" or (kind == "mixed" and number % 2):
        return number - 20 + 0.5 * (number % 3)
    return [f"s{number}", ""] if kind == "lists" else f"s{number}"


def _filters_about(rows: list[Metadata]) -> st.SearchStrategy[dict[str, object]]:
    """Filters with a value that is there, or nearly so."""
    held = [(field, value) for row in rows for field, value in row.items()]

    def about(field: str, value: MetadataValue) -> st.SearchStrategy[dict[str, object]]:
        operand = value[0] if isinstance(value, list) and value else value
        if isinstance(operand, list):
            return st.just({field: {"$exists": True}})
        several = st.lists(st.one_of(st.just(operand), st.text(max_size=2), st.booleans()))
        return st.one_of(
            st.just({field: operand}),
            st.just({field: {"$ne": operand}}),
            several.map(lambda o: {field: {"$in": o}}),
            several.map(lambda o: {field: {"$nin": o}}),
        )

    return st.sampled_from(held).flatmap(lambda pair: about(*pair)) if held else FILTERS


@pytest.mark.parametrize("examples", EXAMPLES)
def test_no_filter_and_data_lose_a_match(examples: int, record_property: object) -> None:
    """The issue's line: hypothesis finds no pruned file that held a match. Nested filters of every
    operator, mixed types in one field, lists, missing fields, empty strings, -0.0, 1e308.
    """
    pruned = 0

    @settings(max_examples=examples, deadline=None, database=None)
    @given(st.one_of(st.lists(metadata, max_size=8), crowded_rows()), st.data())
    def check(rows: list[Metadata], data: st.DataObject) -> None:
        nonlocal pruned
        wire = data.draw(
            st.one_of(
                wire_filters,
                _filters_about(rows),
                st.lists(st.one_of(FILTERS, _filters_about(rows)), min_size=2, max_size=3).map(
                    lambda parts: {"$or": parts}
                ),
                _filters_about(rows).map(lambda part: {"$not": part}),
            )
        )
        pruned += assert_nothing_lost(rows, parse_filter(wire))

    check()
    assert pruned > examples / 20, "filters that never prune prove nothing"
    if callable(record_property):
        record_property("examples", examples)
        record_property("pruned", pruned)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=2), VALUES, max_size=3), max_size=40), st.data())
def test_any_text_and_any_float(rows: list[Metadata], data: st.DataObject) -> None:
    held = [(f, v) for row in rows for f, v in row.items() if f and not f.startswith("$")]
    if not held:
        return
    field, value = data.draw(st.sampled_from(held))
    for operand in value if isinstance(value, list) else [value]:
        for wire in ({field: operand}, {"$not": {field: {"$ne": operand}}}):
            f = parse_filter(wire)
            assert any(matches(f, row) for row in rows)
            assert not assert_nothing_lost(rows, f)


@pytest.mark.parametrize("count", [1, 33, 300, 1_024])
def test_a_bloom_filter_has_no_false_negatives_and_few_false_positives(count: int) -> None:
    values: list[str | float] = [f"user-{n}" if n % 2 else n * 1.5 for n in range(count)]
    built = bloom.build(values)
    assert 0 < len(built) <= bloom.BYTES_MAX
    assert all(bloom.may_hold(built, value) for value in values)
    wrong = sum(bloom.may_hold(built, f"nobody-{n}") for n in range(2_000))
    assert wrong < 0.25 * 2_000
    assert count > 341 or wrong < 0.03 * 2_000


def test_a_bloom_filter_keeps_types_apart_and_zeros_together() -> None:
    built = bloom.build([-0.0, "1"])
    assert bloom.may_hold(built, 0.0)
    assert bloom.may_hold(built, "1")
    assert not bloom.may_hold(built, 1.0)
    assert bloom.build(range(bloom.VALUES_MAX + 1)) == b""
    assert bloom.build([]) == b""


def test_the_bits_are_those_of_the_format() -> None:
    """Filters are stored: another hash would lose matches in every file written before."""
    assert bloom.build(["drama", 2020.0]).hex() == "008000004a040201"


def test_many_strings_prune_by_their_bloom_filter() -> None:
    rows: list[Metadata] = [{"user": f"u{n}"} for n in range(300)]
    stats = collect(rows)
    assert stats["user"].strings is None
    absent = [f"u{n}" for n in range(300, 1_300)]
    pruned = sum(not may_match(parse_filter({"user": name}), stats, 300) for name in absent)
    assert pruned > 900
    assert may_match(parse_filter({"user": {"$in": ["x", "u77"]}}), stats, 300)
    assert may_match(parse_filter({"user": {"$ne": "u1"}}), stats, 300)
    assert not may_match(parse_filter({"user": {"$exists": False}}), stats, 300)


def test_numbers_between_the_bounds_prune_by_their_bloom_filter() -> None:
    stats = collect([{"user": 10.0 * n} for n in range(100)])
    pruned = sum(not may_match(parse_filter({"user": 10 * n + 5}), stats, 100) for n in range(99))
    assert pruned > 90


def test_too_many_or_no_strings_known() -> None:
    many: list[Metadata] = [{"id": f"{n}"} for n in range(bloom.VALUES_MAX + 1)]
    stats = collect(many)
    assert (stats["id"].strings, stats["id"].bloom) == (None, b"")
    assert may_match(parse_filter({"id": "nobody"}), stats, len(many))
    long = collect([{"text": ["short", "x" * 500]}])
    assert long["text"].strings is None
    assert not may_match(parse_filter({"text": "other"}), long, 1)
    assert may_match(parse_filter({"text": "x" * 500}), long, 1)


def test_an_undefined_number_is_no_bound() -> None:
    """The write path refuses NaN; were one stored all the same, its neighbours must be found."""
    first: Metadata = {"n": math.nan}
    other: Metadata = {"n": 5.0}
    for rows in ([first, other], [other, first]):
        stats = collect(rows)
        for wire in ({"n": 5}, {"n": {"$gt": 4}}, {"n": {"$ne": 5}}, {"$not": {"n": {"$in": [5]}}}):
            assert may_match(parse_filter(wire), stats, 2), wire


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.integers(1, 120), st.integers(1, 60))
def test_statistics_are_bounded_whatever_the_fields(fields: int, name: int, value: int) -> None:
    """They travel in the manifest, once per file."""
    rows: list[Metadata] = [
        {
            "all": True,
            **{f"{n}{'k' * name}": f"{r}{'v' * value}" for n in range(fields) if (r + n) % 3},
        }
        for r in range(40)
    ]
    stats = collect(rows)
    assert len(msgspec.msgpack.encode(stats)) <= BYTES_MAX + 8
    assert stats["all"].booleans == (True,)
    assert (INCOMPLETE in stats) == (len(stats.keys() - {INCOMPLETE}) < fields + 1)
    for field in rows[1]:
        assert may_match(parse_filter({field: rows[1][field]}), stats, len(rows))
    assert not may_match(parse_filter({"all": False}), stats, len(rows))


def test_fields_of_many_rows_and_short_lists_come_first() -> None:
    """A field that the statistics left out may not be taken for one that no row has."""
    rows: list[Metadata] = [
        {f"f{n}": 1.0, "genre": f"g{n % 5}", "user": f"u{n}"} for n in range(200)
    ]
    stats = collect(rows)
    assert stats["genre"].strings == tuple(f"g{n}" for n in range(5))
    assert "user" in stats
    assert INCOMPLETE in stats
    for n in range(200):
        assert may_match(parse_filter({f"f{n}": 1}), stats, len(rows))
    assert not may_match(parse_filter({"genre": "g5"}), stats, len(rows))
    assert INCOMPLETE in collect([{"k" * 1000: 1.0}])


def test_statistics_of_earlier_commits_are_read_as_before() -> None:
    old = msgspec.msgpack.encode(
        {"genre": {"rows": 3, "strings": ["a", "b"]}, "many": {"rows": 3, "strings": None}}
    )
    stats = msgspec.msgpack.decode(old, type=dict[str, FieldStatistics])
    assert not may_match(parse_filter({"genre": "c"}), stats, 3)
    assert may_match(parse_filter({"many": "c"}), stats, 3)


def test_where_there_is_no_room_for_a_bloom_filter_nothing_is_pruned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(statistics, "BYTES_MAX", 120)
    stats = collect([{"user": f"u{n}"} for n in range(300)])
    assert stats["user"].bloom == b""
    assert may_match(parse_filter({"user": "nobody"}), stats, 300)
