"""The parsed form of a filter: a small immutable tree, built by `parse.parse_filter` only."""

from dataclasses import dataclass
from enum import StrEnum

Scalar = str | float | bool


class Comparison(StrEnum):
    EQ = "$eq"
    NE = "$ne"
    GT = "$gt"
    GTE = "$gte"
    LT = "$lt"
    LTE = "$lte"
    IN = "$in"
    NIN = "$nin"
    EXISTS = "$exists"


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison of one field. `operands` has one value, or for `$in`/`$nin` the list's."""

    field: str
    comparison: Comparison
    operands: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class And:
    """All hold; true if empty."""

    parts: "tuple[Filter, ...]"


@dataclass(frozen=True, slots=True)
class Or:
    """At least one holds; false if empty."""

    parts: "tuple[Filter, ...]"


@dataclass(frozen=True, slots=True)
class Not:
    part: "Filter"


Filter = Condition | And | Or | Not


def fields(node: Filter) -> frozenset[str]:
    """Every metadata field that the filter looks at."""
    match node:
        case Condition(field=name):
            return frozenset((name,))
        case Not(part=part):
            return fields(part)
        case And(parts=parts) | Or(parts=parts):
            return frozenset().union(*(fields(p) for p in parts))
