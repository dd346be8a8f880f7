"""From the wire form of a filter (decoded JSON or msgpack) to the tree of `core.filters.model`.

`{"genre": "drama"}` means `$eq`; several fields of an object, and several operators on a field, all
hold (AND). `$and`, `$or` and `$not` combine filters; `$not` may also stand on a field and negates
the operators below it.
"""

import math

from core.errors import InvalidRequest
from core.filters.model import And, Comparison, Condition, Filter, Not, Or, Scalar
from core.limits import FILTER_CONDITIONS_MAX, FILTER_DEPTH_MAX, FILTER_IN_VALUES_MAX

# The tree's depth is what is limited. Objects with several keys and field-level `$not` are one
# object deep on the wire and two nodes deep in the tree, one-element `$and` the other way round; so
# the wire gets room of its own, and what was accepted once is accepted again when it comes back
# from `encode.to_json`.
_WIRE_DEPTH_MAX = 2 * FILTER_DEPTH_MAX

_COMPARISONS = {comparison.value: comparison for comparison in Comparison}
_ORDERINGS = frozenset((Comparison.GT, Comparison.GTE, Comparison.LT, Comparison.LTE))
_LISTS = frozenset((Comparison.IN, Comparison.NIN))
_SHOWN_CHARS = 60


def parse_filter(obj: object) -> Filter:
    """`{}` gives `And(())`, which matches everything; callers decide whether that is allowed.

    Raises `InvalidRequest` naming the field and the operator, also for what is too deep or too
    large.
    """
    parser = _Parser()
    node = And(()) if obj == {} and isinstance(obj, dict) else parser.filter(obj, 1)
    _check_depth(_depth(node), FILTER_DEPTH_MAX)
    return node


class _Parser:
    """Counts conditions over the whole filter while it descends."""

    def __init__(self) -> None:
        self._conditions = 0

    def filter(self, obj: object, depth: int) -> Filter:
        _check_depth(depth, _WIRE_DEPTH_MAX)
        if not isinstance(obj, dict):
            raise InvalidRequest(f"A filter must be an object, got {_shown(obj)} instead.")
        if not obj:
            raise InvalidRequest("An empty filter object is allowed only at the top level.")
        return _all([self._member(key, value, depth) for key, value in obj.items()])

    def _member(self, key: object, value: object, depth: int) -> Filter:
        if not isinstance(key, str) or key == "":
            raise InvalidRequest(f"A filter's field must be a non-empty string, got {_shown(key)}.")
        match key:
            case "$and":
                return _all(self._list(key, value, depth))
            case "$or":
                parts = self._list(key, value, depth)
                return parts[0] if len(parts) == 1 else Or(tuple(parts))
            case "$not":
                return Not(self.filter(value, depth + 1))
        if key.startswith("$"):
            raise InvalidRequest(
                f"{_shown(key)} is not a valid operator where a field is expected; "
                "use $and, $or, $not or a field name that does not start with $."
            )
        if isinstance(value, dict):
            return self._operators(key, value, depth)
        return self._condition(key, Comparison.EQ, value)

    def _list(self, operator: str, value: object, depth: int) -> list[Filter]:
        if not isinstance(value, list) or not value:
            raise InvalidRequest(
                f"The {operator} operator must be followed by a non-empty list of filters, "
                f"got {_shown(value)} instead."
            )
        return [self.filter(part, depth + 1) for part in value]

    def _operators(self, field: str, operators: dict[object, object], depth: int) -> Filter:
        _check_depth(depth, _WIRE_DEPTH_MAX)
        if not operators:
            raise InvalidRequest(
                f"Field {_shown(field)} has an empty condition; use an operator such as $eq."
            )
        parts: list[Filter] = []
        for name, operand in operators.items():
            if name == "$not":
                if not isinstance(operand, dict):
                    raise InvalidRequest(
                        f"The $not operator of field {_shown(field)} must be followed by an object "
                        f"of operators, got {_shown(operand)} instead."
                    )
                parts.append(Not(self._operators(field, operand, depth + 1)))
                continue
            comparison = _COMPARISONS.get(name) if isinstance(name, str) else None
            if comparison is None:
                known = ", ".join([*_COMPARISONS, "$not"])
                raise InvalidRequest(
                    f"{_shown(name)} is not a valid operator for field {_shown(field)}; "
                    f"use one of {known}."
                )
            parts.append(self._condition(field, comparison, operand))
        return _all(parts)

    def _condition(self, field: str, comparison: Comparison, operand: object) -> Condition:
        self._conditions += 1
        if self._conditions > FILTER_CONDITIONS_MAX:
            raise InvalidRequest(
                f"The filter has too many conditions; the limit is {FILTER_CONDITIONS_MAX}."
            )
        if comparison in _LISTS:
            return Condition(field, comparison, _list_operands(field, comparison, operand))
        if comparison is Comparison.EXISTS:
            if not isinstance(operand, bool):
                raise _bad_operand(field, comparison, "true or false", operand)
            return Condition(field, comparison, (operand,))
        if comparison in _ORDERINGS:
            if isinstance(operand, bool) or not isinstance(operand, int | float):
                raise _bad_operand(field, comparison, "a number", operand)
            return Condition(field, comparison, (_number(field, comparison, operand),))
        return Condition(field, comparison, (_scalar(field, comparison, operand),))


def _list_operands(field: str, comparison: Comparison, operand: object) -> tuple[Scalar, ...]:
    if not isinstance(operand, list):
        raise _bad_operand(field, comparison, "a list of strings or numbers", operand)
    if len(operand) > FILTER_IN_VALUES_MAX:
        raise InvalidRequest(
            f"The {comparison.value} operator of field {_shown(field)} has {len(operand)} values; "
            f"the limit is {FILTER_IN_VALUES_MAX}."
        )
    return tuple([_scalar(field, comparison, value) for value in operand])


def _scalar(field: str, comparison: Comparison, value: object) -> Scalar:
    if isinstance(value, str | bool):
        return value
    if isinstance(value, int | float):
        return _number(field, comparison, value)
    expected = (
        "a list of strings or numbers" if comparison in _LISTS else "a string, boolean or a number"
    )
    raise _bad_operand(field, comparison, expected, value)


def _number(field: str, comparison: Comparison, value: float) -> float:
    """The operand as float64; an integer beyond its range is no number that a record could hold."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _bad_operand(field, comparison, "a finite number", value)
    return number


def _bad_operand(
    field: str, comparison: Comparison, expected: str, operand: object
) -> InvalidRequest:
    return InvalidRequest(
        f"The {comparison.value} operator of field {_shown(field)} must be followed by {expected}, "
        f"got {_shown(operand)} instead."
    )


def _all(parts: list[Filter]) -> Filter:
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _check_depth(depth: int, depth_max: int) -> None:
    if depth > depth_max:
        raise InvalidRequest(f"The filter is nested too deeply; the limit is {FILTER_DEPTH_MAX}.")


def _depth(node: Filter) -> int:
    """Nodes on the longest way down. The parser's own bound keeps this recursion small."""
    match node:
        case Condition():
            return 1
        case Not(part=part):
            return 1 + _depth(part)
        case And(parts=parts) | Or(parts=parts):
            return 1 + max((_depth(part) for part in parts), default=0)


def _shown(value: object) -> str:
    """A few characters of what was sent, for an error text."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) > 1 << 64:
        return "a huge number"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"
