"""What a file's metadata may hold, so that a query can skip the file: false alarms allowed, lost
matches never.

Kept small, because they travel in the manifest: a bounded number of fields, and strings only where
they are few.
"""

from collections.abc import Mapping, Sequence

import msgspec

from core.filters.model import And, Comparison, Condition, Filter, Not, Or, Scalar
from core.records import Metadata, MetadataValue

# 32 short strings cover enumerations (genre, language, tenant) at <= 2 KB a field; beyond that,
# unknown.
STRINGS_MAX = 32
STRING_CHARS_MAX = 64
FIELDS_MAX = 64
FIELD_CHARS_MAX = 128

# The key under which statistics say that they leave fields out: no metadata field has an empty
# name.
INCOMPLETE = ""


class FieldStatistics(msgspec.Struct, frozen=True, omit_defaults=True):
    """One field over the rows of one file.

    rows: rows that have the field. numbers: rows whose value is a number, all in [minimum,
    maximum]. strings: every string that occurs, alone or in a list, ascending; None when not known.
    booleans: the booleans that occur. lists: whether any value is a list.
    """

    rows: int
    numbers: int = 0
    minimum: float = 0.0
    maximum: float = 0.0
    strings: tuple[str, ...] | None = ()
    booleans: tuple[bool, ...] = ()
    lists: bool = False


_ABSENT = FieldStatistics(rows=0)


def collect(rows: Sequence[Metadata]) -> dict[str, FieldStatistics]:
    """Statistics by field. If fields had to be left out, the key `INCOMPLETE` is there as well."""
    gathered: dict[str, _Gathered] = {}
    for metadata in rows:
        for field, value in metadata.items():
            column = gathered.get(field)
            if column is None:
                column = gathered[field] = _Gathered()
            column.add(value)
    kept = [field for field in gathered if len(field) <= FIELD_CHARS_MAX]
    if len(kept) > FIELDS_MAX:
        kept.sort(key=lambda field: (-gathered[field].rows, field))
        del kept[FIELDS_MAX:]
    statistics = {field: gathered[field].statistics() for field in kept}
    if len(kept) < len(gathered):
        statistics[INCOMPLETE] = FieldStatistics(rows=len(rows), strings=None)
    return statistics


def may_match(f: Filter, stats: Mapping[str, FieldStatistics], rows: int) -> bool:
    """False only if none of the rows that `stats` was collected from can match.

    `rows` is the number of all those rows, dead ones included: with the live count `$ne` and
    `$exists` would prune files whose live rows lack a field.
    """
    match f:
        case Condition(field=field):
            known = _known(field, stats)
            return known is None or _may(f, known, rows)
        case Not(part=part):
            return not _must_match(part, stats, rows)
        case And(parts=parts):
            return all(may_match(part, stats, rows) for part in parts)
        case Or(parts=parts):
            return any(may_match(part, stats, rows) for part in parts)


def _must_match(f: Filter, stats: Mapping[str, FieldStatistics], rows: int) -> bool:
    """True only if every row matches."""
    match f:
        case Condition(field=field):
            known = _known(field, stats)
            return known is not None and _must(f, known, rows)
        case Not(part=part):
            return not may_match(part, stats, rows)
        case And(parts=parts):
            return all(_must_match(part, stats, rows) for part in parts)
        case Or(parts=parts):
            return any(_must_match(part, stats, rows) for part in parts)


def _known(field: str, stats: Mapping[str, FieldStatistics]) -> FieldStatistics | None:
    """None: nothing is known of the field."""
    found = stats.get(field)
    if found is not None:
        return found
    return None if INCOMPLETE in stats else _ABSENT


def _may(condition: Condition, field: FieldStatistics, rows: int) -> bool:
    operands = condition.operands
    match condition.comparison:
        case Comparison.EXISTS:
            return field.rows > 0 if operands[0] is True else field.rows < rows
        case Comparison.EQ | Comparison.IN:
            return _may_hold(operands, field)
        case Comparison.NE | Comparison.NIN:
            return not _holds_only(operands, field, rows)
        case ordering:
            bound = _bound(condition)
            return (
                field.numbers > 0
                and {
                    Comparison.GT: field.maximum > bound,
                    Comparison.GTE: field.maximum >= bound,
                    Comparison.LT: field.minimum < bound,
                    Comparison.LTE: field.minimum <= bound,
                }[ordering]
            )


def _must(condition: Condition, field: FieldStatistics, rows: int) -> bool:
    operands = condition.operands
    match condition.comparison:
        case Comparison.EXISTS:
            return field.rows == rows if operands[0] is True else field.rows == 0
        case Comparison.EQ | Comparison.IN:
            return _holds_only(operands, field, rows)
        case Comparison.NE | Comparison.NIN:
            return not _may_hold(operands, field)
        case ordering:
            bound = _bound(condition)
            return (
                field.numbers == rows
                and {
                    Comparison.GT: field.minimum > bound,
                    Comparison.GTE: field.minimum >= bound,
                    Comparison.LT: field.maximum < bound,
                    Comparison.LTE: field.maximum <= bound,
                }[ordering]
            )


def _bound(condition: Condition) -> float:
    bound = condition.operands[0]
    assert isinstance(bound, float), "the parser gives the orderings a float"
    return bound


def _may_hold(operands: tuple[Scalar, ...], field: FieldStatistics) -> bool:
    """False only if no row holds any of the operands; `$in` may have 10,000 of them."""
    if field.strings is None:
        if any(isinstance(o, str) for o in operands):
            return True
    elif not frozenset(field.strings).isdisjoint(operands):
        return True
    if field.numbers and any(
        isinstance(o, float) and field.minimum <= o <= field.maximum for o in operands
    ):
        return True
    return any(isinstance(o, bool) and o in field.booleans for o in operands)


def _holds_only(operands: tuple[Scalar, ...], field: FieldStatistics, rows: int) -> bool:
    """True only if every row has the field and its value is one of the operands.

    A list counts as not provable: an element outside the operands says nothing about the others.
    """
    if field.rows != rows or field.lists or field.strings is None:
        return False
    if field.numbers and field.minimum != field.maximum:
        return False
    booleans = {o for o in operands if isinstance(o, bool)}
    others = {o for o in operands if not isinstance(o, bool)}
    return (
        all(b in booleans for b in field.booleans)
        and all(s in others for s in field.strings)
        and (field.numbers == 0 or field.minimum in others)
    )


class _Gathered:
    """One field while the rows go by."""

    __slots__ = ("booleans", "lists", "maximum", "minimum", "numbers", "rows", "strings")

    def __init__(self) -> None:
        self.rows = 0
        self.numbers = 0
        self.minimum = 0.0
        self.maximum = 0.0
        self.strings: set[str] | None = set()
        self.booleans: set[bool] = set()
        self.lists = False

    def add(self, value: MetadataValue) -> None:
        self.rows += 1
        if isinstance(value, str):
            self._add_string(value)
        elif isinstance(value, bool):
            self.booleans.add(value)
        elif isinstance(value, list):
            self.lists = True
            for element in value:
                self._add_string(element)
        else:
            if self.numbers == 0:
                self.minimum = self.maximum = value
            elif value < self.minimum:
                self.minimum = value
            elif value > self.maximum:
                self.maximum = value
            self.numbers += 1

    def _add_string(self, value: str) -> None:
        if self.strings is None or value in self.strings:
            return
        if len(self.strings) >= STRINGS_MAX or len(value) > STRING_CHARS_MAX:
            self.strings = None
        else:
            self.strings.add(value)

    def statistics(self) -> FieldStatistics:
        return FieldStatistics(
            rows=self.rows,
            numbers=self.numbers,
            minimum=self.minimum,
            maximum=self.maximum,
            strings=None if self.strings is None else tuple(sorted(self.strings)),
            booleans=tuple(sorted(self.booleans)),
            lists=self.lists,
        )
