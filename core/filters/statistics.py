"""What a file's metadata may hold, so that a query can skip the file: false alarms allowed, lost
matches never.

Kept small, because they travel in the manifest: a bounded number of bytes a file, in which the
fields that most rows have come first.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec

from core.filters import bloom
from core.filters.model import And, Comparison, Condition, Filter, Not, Or, Scalar
from core.records import Metadata, MetadataValue
from core.turns import step_aside_in_thread

# 32 short strings cover enumerations (genre, language, tenant); beyond that a Bloom filter.
STRINGS_MAX = 32
STRING_CHARS_MAX = 64
FIELDS_MAX = 64
FIELD_CHARS_MAX = 128
# Encoded, of one file: 0.05 % of a file of 4 MB; 8 MB for the 4,000 clusters of 10M records.
BYTES_MAX = 2_048

# The key under which statistics say that they leave fields out: no metadata field has an empty
# name.
INCOMPLETE = ""

# Half a millisecond's work.
ROWS_AT_ONCE = 256

_encoder = msgspec.msgpack.Encoder()


class FieldStatistics(msgspec.Struct, frozen=True, omit_defaults=True):
    """One field over the rows of one file. Rows without it: the file's rows less `rows`.

    rows: rows that have the field. numbers: rows whose value is a number, all in [minimum,
    maximum]. strings: every string that occurs, alone or in a list, ascending; None when not known.
    booleans: the booleans that occur. lists: whether any value is a list.
    bloom: of every string and every number that occurs, see `core.filters.bloom`; b"" for none.
    """

    rows: int
    numbers: int = 0
    minimum: float = 0.0
    maximum: float = 0.0
    strings: tuple[str, ...] | None = ()
    booleans: tuple[bool, ...] = ()
    lists: bool = False
    bloom: bytes = b""


_ABSENT = FieldStatistics(rows=0)


def collect(rows: Sequence[Metadata]) -> dict[str, FieldStatistics]:
    """Statistics by field, at most `BYTES_MAX` encoded. If fields had to be left out, the key
    `INCOMPLETE` is there as well. About 0.5 us per field value.
    """
    gathered: dict[str, _Gathered] = {}
    for row, metadata in enumerate(rows):
        if row % ROWS_AT_ONCE == 0:
            step_aside_in_thread()
        for field, value in metadata.items():
            column = gathered.get(field)
            if column is None:
                column = gathered[field] = _Gathered()
            column.add(value)
    kept = [field for field in gathered if len(field) <= FIELD_CHARS_MAX]
    kept.sort(key=lambda field: (-gathered[field].rows, field))
    left_out = FieldStatistics(rows=len(rows), strings=None)
    statistics = _bounded([(field, gathered[field]) for field in kept[:FIELDS_MAX]], left_out)
    if len(statistics) < len(gathered):
        statistics[INCOMPLETE] = left_out
    return statistics


# Strings, Bloom filter: each says more than the one before.
_DETAILS = ((False, True), (True, False), (True, True))


def _bounded(
    fields: Sequence[tuple[str, "_Gathered"]], left_out: FieldStatistics
) -> dict[str, FieldStatistics]:
    """As many fields as fit, in that order, first without strings and Bloom filters; then these,
    the smallest ones first: a short enumeration prunes exactly, a large filter now and then.
    """
    left = BYTES_MAX - _size(INCOMPLETE, left_out)
    statistics: dict[str, FieldStatistics] = {}
    finer: list[tuple[int, int, str, FieldStatistics]] = []
    for field, column in fields:
        coarse = column.statistics(with_strings=False, with_bloom=False)
        size = _size(field, coarse)
        if size > left:
            continue
        left -= size
        statistics[field] = coarse
        for detail, with_strings, with_bloom in (
            (1, False, True),
            (2, True, False),
            (3, True, True),
        ):
            fine = column.statistics(with_strings=with_strings, with_bloom=with_bloom)
            finer.append((_size(field, fine), detail, field, fine))
    reached = dict.fromkeys(statistics, 0)
    for size, detail, field, fine in sorted(finer, key=lambda item: item[:3]):
        more = size - _size(field, statistics[field])
        if detail > reached[field] and more <= left and fine != statistics[field]:
            left -= more
            reached[field] = detail
            statistics[field] = fine
    return statistics


def _size(field: str, statistics: FieldStatistics) -> int:
    return len(_encoder.encode({field: statistics}))


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
    if field.strings is not None and not frozenset(field.strings).isdisjoint(operands):
        return True
    return any(_may_hold_one(operand, field) for operand in operands)


def _may_hold_one(operand: Scalar, field: FieldStatistics) -> bool:
    """The strings are compared already where they are known."""
    if isinstance(operand, bool):
        return operand in field.booleans
    if isinstance(operand, str):
        if field.strings is not None:
            return False
    elif not (field.numbers and field.minimum <= operand <= field.maximum):
        return False
    return not field.bloom or bloom.may_hold(field.bloom, operand)


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

    __slots__ = (
        "_built",
        "_numbers",
        "_strings",
        "booleans",
        "lists",
        "maximum",
        "minimum",
        "numbers",
        "rows",
    )

    def __init__(self) -> None:
        self.rows = 0
        self.numbers = 0
        self.minimum = 0.0
        self.maximum = 0.0
        self.booleans: set[bool] = set()
        self.lists = False
        # Different ones; None when there are more than a Bloom filter is good for.
        self._strings: set[str] | None = set()
        self._numbers: set[float] | None = set()
        self._built: bytes | None = None

    def add(self, value: MetadataValue) -> None:
        self.rows += 1
        if isinstance(value, str):
            self._strings = _with(self._strings, value)
        elif isinstance(value, bool):
            self.booleans.add(value)
        elif isinstance(value, list):
            self.lists = True
            for element in value:
                self._strings = _with(self._strings, element)
        elif math.isnan(value):
            # the write path refuses it; should one get here, it equals nothing: like an empty list
            self.lists = True
        else:
            if self.numbers == 0:
                self.minimum = self.maximum = value
            elif value < self.minimum:
                self.minimum = value
            elif value > self.maximum:
                self.maximum = value
            self.numbers += 1
            self._numbers = _with(self._numbers, value)

    def statistics(self, *, with_strings: bool, with_bloom: bool) -> FieldStatistics:
        strings = self._few_strings() if with_strings or not self._strings else None
        return FieldStatistics(
            rows=self.rows,
            numbers=self.numbers,
            minimum=self.minimum,
            maximum=self.maximum,
            strings=strings,
            booleans=tuple(sorted(self.booleans)),
            lists=self.lists,
            bloom=self._bloom(strings) if with_bloom else b"",
        )

    def _few_strings(self) -> tuple[str, ...] | None:
        found = self._strings
        if found is None or len(found) > STRINGS_MAX:
            return None
        return None if any(len(s) > STRING_CHARS_MAX for s in found) else tuple(sorted(found))

    def _bloom(self, strings: tuple[str, ...] | None) -> bytes:
        """None where it would say no more than the bounds and the list of strings do."""
        if self._strings is None or self._numbers is None:
            return b""
        if strings is not None and self.minimum == self.maximum:
            return b""
        if self._built is None:
            self._built = bloom.build([*self._strings, *self._numbers])
        return self._built


_T = TypeVar("_T", str, float)


def _with(values: set[_T] | None, value: _T) -> set[_T] | None:
    if values is not None:
        values.add(value)
        if len(values) > bloom.VALUES_MAX:
            return None
    return values
