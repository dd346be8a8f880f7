"""Bitmaps answer filters instead of the metadata, so they say nothing that it does not."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from core.filters.inverted import FIELDS_MAX, VALUES_MAX, Inverted, encode
from core.filters.model import fields
from core.filters.parse import parse_filter
from core.filters.row import matches
from core.records import Metadata
from tests.core.filter_strategies import metadata, wire_filters
from tests.core.test_filter_rows import CONDITIONS, ROWS

LARGE = 1 << 20


def of(rows: list[Metadata], bytes_max: int = LARGE) -> Inverted:
    return Inverted(memoryview(encode(rows, bytes_max)), len(rows))


def test_every_operator_and_type_is_answered_as_row_by_row() -> None:
    inverted = of(ROWS)
    for condition in CONDITIONS:
        for wire in (condition, {"$not": condition}):
            f = parse_filter(wire)
            sure, possible = inverted.bounds(f)
            truth = BitMap(row for row, m in enumerate(ROWS) if matches(f, m))
            assert sure == possible == truth, wire


@pytest.mark.parametrize("examples", [300, pytest.param(20_000, marks=pytest.mark.long)])
def test_bitmaps_say_the_same_as_rows(examples: int) -> None:
    """Whatever fits: what is certain matches, what is not possible does not, and nothing is open
    where all of the filter's fields are there.
    """
    exact = 0

    @settings(max_examples=examples, deadline=None, database=None)
    @given(st.lists(metadata, min_size=1, max_size=12), wire_filters, st.integers(60, 700))
    def check(rows: list[Metadata], wire: dict[str, object], bytes_max: int) -> None:
        nonlocal exact
        data = encode(rows, bytes_max)
        assert len(data) <= bytes_max
        if not data:
            return
        inverted = Inverted(data, len(rows))
        f = parse_filter(wire)
        sure, possible = inverted.bounds(f)
        truth = BitMap(row for row, m in enumerate(rows) if matches(f, m))
        assert sure <= truth <= possible
        if fields(f) <= inverted.fields:
            assert sure == possible
            exact += 1

    check()
    assert exact > examples / 20


def test_parts_that_are_not_there_leave_only_some_rows_open() -> None:
    rows: list[Metadata] = [
        {"genre": f"g{row % 10}", "user": f"u{row}", "year": float(row % 4)} for row in range(1_000)
    ]
    inverted = of(rows)
    assert inverted.fields == {"genre", "year"}
    sure, possible = inverted.bounds(parse_filter({"genre": "g3", "user": "u13"}))
    assert (len(sure), len(possible)) == (0, 100)
    either = {"$or": [{"genre": {"$nin": ["g3", "g4"]}}, {"user": "u13"}]}
    sure, possible = inverted.bounds(parse_filter(either))
    assert (len(sure), len(possible)) == (800, 1_000)
    sure, possible = inverted.bounds(parse_filter({"$not": {"genre": "g3", "user": "u13"}}))
    assert (len(sure), len(possible)) == (900, 1_000)


def test_a_field_that_no_row_has_is_known_only_if_all_fields_are_there() -> None:
    few: list[Metadata] = [{"a": 1.0}, {}]
    sure, possible = of(few).bounds(parse_filter({"absent": {"$ne": "x"}}))
    assert sure == possible == BitMap([0, 1])
    crowd: list[Metadata] = [{"a": "b", "user": f"u{n}"} for n in range(VALUES_MAX + 1)]
    sure, possible = of(crowd).bounds(parse_filter({"absent": 1}))
    assert (len(sure), len(possible)) == (0, VALUES_MAX + 1)
    assert of(crowd).fields == {"a"}


def test_bounds_hold_whatever_the_fields() -> None:
    rows: list[Metadata] = [{f"f{n}": f"v{n}", "all": True} for n in range(3 * FIELDS_MAX)]
    assert len(of(rows).fields) <= FIELDS_MAX
    assert "all" in of(rows).fields
    small = encode(rows, 500)
    assert 0 < len(small) <= 500
    assert "all" in Inverted(small, len(rows)).fields, "the cheapest field for its rows comes first"
    assert encode([{"k": "v"}], 10) == b""
    assert encode([{}, {}], LARGE) == b""


def test_fields_are_decoded_when_asked_for() -> None:
    rows: list[Metadata] = [{"a": f"{n % 200}", "b": f"{n % 250}"} for n in range(1_000)]
    inverted = of(rows)
    before = inverted.heap_bytes
    inverted.bounds(parse_filter({"a": "7"}))
    assert inverted.heap_bytes > before + 200 * 100


def test_what_is_stored_can_be_read_without_firndb() -> None:
    rows: list[Metadata] = [{"t": ["x", "y", "x"]}, {"t": "x", "n": -0.0}, {"t": [], "ok": False}]
    decoded = msgspec.msgpack.decode(encode(rows, LARGE))

    def rows_of(bits: bytes) -> list[int]:
        return list(BitMap.deserialize(bits))

    t, n, ok = (decoded["fields"][name] for name in ("t", "n", "ok"))
    assert "others" not in decoded
    assert rows_of(t["present"]) == [0, 1, 2]
    assert {s: rows_of(bits) for s, bits in t["strings"].items()} == {"x": [0, 1], "y": [0]}
    assert [(value, rows_of(bits)) for value, bits in n["numbers"]] == [(0.0, [1])]
    assert rows_of(ok["false"]) == [2]
    assert "true" not in ok
