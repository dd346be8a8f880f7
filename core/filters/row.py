"""Does one record's metadata match a filter? The truth that `columns` and `statistics` are measured
against.

Decisions, where Pinecone's documents are silent:
- A missing field satisfies `$ne` and `$nin` (as in MongoDB, whose language this is), so that `$ne`
  is exactly the negation of `$eq`; `$eq`, `$in` and the orderings are false on it.
- A type mismatch is no match and never an error. Booleans are not numbers: `true` does not equal 1.
- A list of strings satisfies `$eq` and `$in` if any element does, `$ne` and `$nin` if no element
  matches; the orderings, which are for numbers only, are false on it. An empty list is a field that
  exists and equals nothing.
- Numbers compare as float64.
"""

import operator
from collections.abc import Callable, Mapping

from core.filters.model import And, Comparison, Condition, Filter, Not, Or, Scalar
from core.records import MetadataValue

Matcher = Callable[[Mapping[str, MetadataValue]], bool]

_ORDERINGS: dict[Comparison, Callable[[float, float], bool]] = {
    Comparison.GT: operator.gt,
    Comparison.GTE: operator.ge,
    Comparison.LT: operator.lt,
    Comparison.LTE: operator.le,
}


def matches(f: Filter, metadata: Mapping[str, MetadataValue]) -> bool:
    """For many records compile once with `matcher`."""
    return matcher(f)(metadata)


def matcher(f: Filter) -> Matcher:
    """The filter as a function of one record's metadata; `$in` costs the same however long its list
    is.
    """
    match f:
        case Condition():
            return _condition(f)
        case Not(part=part):
            inner = matcher(part)
            return lambda metadata: not inner(metadata)
        case And(parts=parts):
            every = [matcher(part) for part in parts]
            return lambda metadata: all(part(metadata) for part in every)
        case Or(parts=parts):
            some = [matcher(part) for part in parts]
            return lambda metadata: any(part(metadata) for part in some)


def _condition(condition: Condition) -> Matcher:
    field = condition.field
    match condition.comparison:
        case Comparison.EXISTS:
            wanted = condition.operands[0]
            return lambda metadata: (field in metadata) is wanted
        case Comparison.EQ | Comparison.IN:
            return _contains(field, condition.operands)
        case Comparison.NE | Comparison.NIN:
            contains = _contains(field, condition.operands)
            return lambda metadata: not contains(metadata)
        case ordering:
            return _ordering(field, _ORDERINGS[ordering], condition.operands[0])


def _contains(field: str, operands: tuple[Scalar, ...]) -> Matcher:
    # Python says True == 1, so booleans have a set of their own; a string never equals a number.
    booleans = frozenset(o for o in operands if isinstance(o, bool))
    others = frozenset(o for o in operands if not isinstance(o, bool))

    def contains(metadata: Mapping[str, MetadataValue]) -> bool:
        value = metadata.get(field)
        if value is None:
            return False
        if isinstance(value, bool):
            return value in booleans
        if isinstance(value, list):
            return not others.isdisjoint(value)
        return value in others

    return contains


def _ordering(field: str, compare: Callable[[float, float], bool], operand: Scalar) -> Matcher:
    assert isinstance(operand, float), "the parser gives the orderings a float"
    bound = operand

    def holds(metadata: Mapping[str, MetadataValue]) -> bool:
        value = metadata.get(field)
        # `int` is no metadata type of ours, but a caller's literal 3 must not fail to be a number.
        return (
            isinstance(value, float | int) and not isinstance(value, bool) and compare(value, bound)
        )

    return holds
