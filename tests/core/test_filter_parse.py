"""The filter language on the wire: what is accepted, what it becomes, what the refusals say."""

import json
import math

import pytest
from hypothesis import given

from core.errors import InvalidRequest
from core.filters.encode import to_json
from core.filters.model import And, Comparison, Condition, Not, Or, fields
from core.filters.parse import parse_filter
from core.limits import FILTER_CONDITIONS_MAX, FILTER_DEPTH_MAX, FILTER_IN_VALUES_MAX
from tests.core.filter_strategies import wire_filters


def equals(field: str, value: str | float | bool) -> Condition:
    return Condition(field, Comparison.EQ, (value,))


def test_a_bare_value_means_eq() -> None:
    assert parse_filter({"genre": "drama"}) == equals("genre", "drama")
    assert parse_filter({"ok": True}) == equals("ok", True)


def test_several_fields_and_several_operators_all_hold() -> None:
    parsed = parse_filter({"genre": "drama", "year": {"$gte": 2000, "$lt": 2010}})
    assert parsed == And(
        (
            equals("genre", "drama"),
            And(
                (
                    Condition("year", Comparison.GTE, (2000.0,)),
                    Condition("year", Comparison.LT, (2010.0,)),
                )
            ),
        )
    )


def test_combinators_nest() -> None:
    parsed = parse_filter({"$or": [{"a": 1}, {"$not": {"b": {"$in": ["x", 2]}}}]})
    inner = Condition("b", Comparison.IN, ("x", 2.0))
    assert parsed == Or((equals("a", 1.0), Not(inner)))
    assert fields(parsed) == {"a", "b"}


def test_not_below_a_field_negates_the_operators_below_it() -> None:
    parsed = parse_filter({"year": {"$not": {"$gt": 3}}})
    assert parsed == Not(Condition("year", Comparison.GT, (3.0,)))


def test_the_empty_filter_matches_everything_and_the_caller_decides() -> None:
    assert parse_filter({}) == And(())


def test_integers_become_float64() -> None:
    parsed = parse_filter({"n": 2**53 + 1})
    assert isinstance(parsed, Condition)
    assert parsed.operands == (float(2**53),)
    assert isinstance(parsed.operands[0], float)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ([], ["must be an object", "a list"]),
        (None, ["must be an object", "null"]),
        ("genre", ["must be an object", "genre"]),
        ({"genre": None}, ["$eq", "genre", "null"]),
        ({"genre": ["a", "b"]}, ["$eq", "genre", "a list"]),
        ({"genre": {"$eq": {"a": 1}}}, ["$eq", "genre", "an object"]),
        ({"genre": {}}, ["genre", "empty"]),
        ({"year": {"$gt": "2000"}}, ["$gt", "year", "a number", "2000"]),
        ({"year": {"$lte": True}}, ["$lte", "year", "a number", "true"]),
        ({"year": {"$eq": math.nan}}, ["$eq", "year", "finite"]),
        ({"year": {"$gt": -math.inf}}, ["$gt", "year", "finite"]),
        ({"year": 10**400}, ["$eq", "year", "finite"]),
        ({"genre": {"$in": "drama"}}, ["$in", "genre", "list"]),
        ({"genre": {"$nin": [["drama"]]}}, ["$nin", "genre", "list of strings"]),
        ({"genre": {"$exists": 1}}, ["$exists", "genre", "true or false"]),
        ({"genre": {"$regex": "d.*"}}, ["$regex", "genre"]),
        ({"genre": {"$not": "drama"}}, ["$not", "genre"]),
        ({"$nor": [{"a": 1}]}, ["$nor"]),
        ({"$and": {"a": 1}}, ["$and", "list", "an object"]),
        ({"$or": []}, ["$or", "non-empty"]),
        ({"$and": [{}]}, ["empty"]),
        ({"$not": [{"a": 1}]}, ["must be an object"]),
        ({"": 1}, ["non-empty string"]),
        ({1: 1}, ["non-empty string"]),
        ({"a": {2: 1}}, ["2", "operator"]),
    ],
)
def test_malformed_filters_are_refused_naming_what_is_wrong(
    wrong: object, named: list[str]
) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parse_filter(wrong)
    for word in named:
        assert word in str(refusal.value)


def test_a_huge_value_does_not_make_a_huge_message() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parse_filter({"f" * 10_000: {"$gt": "x" * 10_000}})
    assert len(str(refusal.value)) < 400


def nested(depth: int) -> object:
    node: object = {"a": 1}
    for _ in range(depth - 1):
        node = {"$not": node}
    return node


def test_depth_is_bounded() -> None:
    parse_filter(nested(FILTER_DEPTH_MAX))
    with pytest.raises(InvalidRequest, match="too deeply"):
        parse_filter(nested(FILTER_DEPTH_MAX + 1))
    with pytest.raises(InvalidRequest, match="too deeply"):
        parse_filter(nested(900))
    deep: object = {"$gt": 1}
    for _ in range(900):
        deep = {"$not": deep}
    with pytest.raises(InvalidRequest, match="too deeply"):
        parse_filter({"a": deep})


def test_conditions_are_bounded_over_the_whole_filter() -> None:
    half = [{"a": i} for i in range(FILTER_CONDITIONS_MAX // 2)]
    parse_filter({"$or": half, "$and": half})
    with pytest.raises(InvalidRequest, match="too many conditions"):
        parse_filter({"$or": half, "$and": half, "b": 1})


def test_in_lists_are_bounded() -> None:
    parse_filter({"a": {"$in": list(range(FILTER_IN_VALUES_MAX))}})
    with pytest.raises(InvalidRequest, match="10001 values"):
        parse_filter({"a": {"$in": list(range(FILTER_IN_VALUES_MAX + 1))}})


@given(wire_filters)
def test_a_parsed_filter_survives_the_way_through_the_log(wire: dict[str, object]) -> None:
    parsed = parse_filter(wire)
    assert parse_filter(json.loads(json.dumps(to_json(parsed)))) == parsed


def test_a_filter_at_the_depth_limit_is_accepted_again_after_the_log() -> None:
    """Multi-key objects grow a level when encoded; what was acknowledged must stay valid."""
    wire: dict[str, object] = {"a": {"$gt": 1, "$lt": 3}, "b": 1}
    for _ in range(FILTER_DEPTH_MAX):
        try:
            parsed = parse_filter(wire)
        except InvalidRequest:
            break
        assert parse_filter(to_json(parsed)) == parsed
        wire = {"c": {"$not": {"$exists": True}}, "$not": wire}
    else:
        pytest.fail("the depth limit was never reached")
