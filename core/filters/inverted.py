"""Bitmaps of the rows that hold each value of a file's hot fields: filters without the metadata.

Encoded as a msgpack map (`_Index`), its bitmaps as portable roaring ones. A field is in it with all
of its values or not at all, so that its answers are exact: those of `row`.
"""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
from pyroaring import BitMap

from core.filters.model import And, Comparison, Condition, Filter, Not, Or, Scalar
from core.records import Metadata, MetadataValue

# Different values of one field; enumerations, tags, years, small tenants' names.
VALUES_MAX = 256
FIELDS_MAX = 256
# The outer map, and what msgpack puts around a name and a field.
_EMPTY_BYTES = 32
_NAME_BYTES = 5

_ORDERINGS: dict[Comparison, Callable[[float, float], bool]] = {
    Comparison.GT: lambda value, bound: value > bound,
    Comparison.GTE: lambda value, bound: value >= bound,
    Comparison.LT: lambda value, bound: value < bound,
    Comparison.LTE: lambda value, bound: value <= bound,
}
_NO_ROWS = memoryview(b"")
_V = TypeVar("_V", str, float)


class _Field(msgspec.Struct, frozen=True, omit_defaults=True):
    """Rows that have the field; rows by value. A list's row is among those of each element."""

    present: memoryview
    strings: dict[str, memoryview] = {}
    numbers: tuple[tuple[float, memoryview], ...] = ()
    true: memoryview = _NO_ROWS
    false: memoryview = _NO_ROWS


class _Index(msgspec.Struct, frozen=True, omit_defaults=True):
    """By field name, each a `_Field`. others: whether rows have fields that are not in it."""

    fields: dict[str, msgspec.Raw]
    others: bool = False


_ABSENT = _Field(present=_NO_ROWS)
# A string, its entry in the table and the view of its bitmap.
_HEAP_BYTES_PER_VALUE = 350

_encoder = msgspec.msgpack.Encoder()
_index_decoder = msgspec.msgpack.Decoder(_Index)
_field_decoder = msgspec.msgpack.Decoder(_Field)


def encode(rows: Sequence[Metadata], bytes_max: int) -> bytes:
    """The bitmaps of as many fields as fit, the cheapest for the rows they tell apart first; no
    bytes for none. About 0.3 us per field value.
    """
    gathered: dict[str, _Gathered] = {}
    overflown = False
    for row, metadata in enumerate(rows):
        for field, value in metadata.items():
            column = gathered.get(field)
            if column is None:
                if len(gathered) >= FIELDS_MAX:
                    overflown = True
                    continue
                column = gathered[field] = _Gathered()
            column.add(row, value)
    encoded = {
        name: (_encoder.encode(column.field()), len(column.present))
        for name, column in gathered.items()
        if column.values <= VALUES_MAX
    }
    kept: dict[str, msgspec.Raw] = {}
    left = bytes_max - _EMPTY_BYTES
    for name in sorted(encoded, key=lambda name: len(encoded[name][0]) / encoded[name][1]):
        size = _NAME_BYTES + len(name.encode()) + len(encoded[name][0])
        if size <= left:
            left -= size
            kept[name] = msgspec.Raw(encoded[name][0])
    others = len(kept) < len(gathered) or overflown
    return _encoder.encode(_Index(kept, others)) if kept else b""


class Inverted:
    """The index of n rows. Safe to share among threads; fields are decoded when asked for."""

    def __init__(self, data: bytes | memoryview, rows: int) -> None:
        """`data` as `encode` gave it; it stays alive as long as this does."""
        index = _index_decoder.decode(data)
        self._raw = index.fields
        self._others = index.others
        self._all = BitMap(range(rows))
        self._fields: dict[str, _Field] = {}

    @property
    def fields(self) -> frozenset[str]:
        return frozenset(self._raw)

    @property
    def heap_bytes(self) -> int:
        """Estimated; without the bitmaps, which are views of the data."""
        known = list(self._fields.values())
        values = sum(len(field.strings) + len(field.numbers) + 2 for field in known)
        return _HEAP_BYTES_PER_VALUE * (values + len(self._raw))

    def bounds(self, f: Filter) -> tuple[BitMap, BitMap]:
        """The rows that match for sure, and those that may: the same where every field that counts
        is here. Only the difference needs the metadata. Not to be changed.
        """
        match f:
            case Condition(field=name):
                field = self._field(name)
                if field is None:
                    return BitMap(), self._all
                exact = self._matching(f, field)
                return exact, exact
            case Not(part=part):
                sure, possible = self.bounds(part)
                return self._all - possible, self._all - sure
            case And(parts=parts):
                each = [self.bounds(part) for part in parts]
                sure = _all_of(self._all, [bounds[0] for bounds in each])
                return sure, _all_of(self._all, [bounds[1] for bounds in each])
            case Or(parts=parts):
                each = [self.bounds(part) for part in parts]
                return _any_of([b[0] for b in each]), _any_of([b[1] for b in each])

    def _field(self, name: str) -> _Field | None:
        """None: nothing is known of it."""
        found = self._fields.get(name)
        if found is None:
            raw = self._raw.get(name)
            if raw is None:
                return None if self._others else _ABSENT
            found = self._fields[name] = _field_decoder.decode(raw)
        return found

    def _matching(self, condition: Condition, field: _Field) -> BitMap:
        operands = condition.operands
        match condition.comparison:
            case Comparison.EXISTS:
                present = _bitmap(field.present)
                return present if operands[0] is True else self._all - present
            case Comparison.EQ | Comparison.IN:
                return _holding(operands, field)
            case Comparison.NE | Comparison.NIN:
                return self._all - _holding(operands, field)
            case ordering:
                bound = operands[0]
                assert isinstance(bound, float), "the parser gives the orderings a float"
                holds = _ORDERINGS[ordering]
                return _any_of([_bitmap(b) for value, b in field.numbers if holds(value, bound)])


def _holding(operands: tuple[Scalar, ...], field: _Field) -> BitMap:
    """Rows whose value, or one element of whose list, is among the operands."""
    found: list[memoryview] = []
    for boolean, bits in ((True, field.true), (False, field.false)):
        if any(o is boolean for o in operands):
            found.append(bits)
    found += [field.strings[o] for o in operands if isinstance(o, str) and o in field.strings]
    if field.numbers:
        numbers = {o for o in operands if isinstance(o, float)}
        found += [bits for value, bits in field.numbers if value in numbers]
    return _any_of([_bitmap(bits) for bits in found])


def _bitmap(bits: memoryview) -> BitMap:
    # it takes any buffer, its type stubs do not say so
    return BitMap.deserialize(bits) if bits else BitMap()  # type: ignore[arg-type]


def _any_of(parts: list[BitMap]) -> BitMap:
    return parts[0] if len(parts) == 1 else BitMap.union(BitMap(), *parts)


def _all_of(every: BitMap, parts: list[BitMap]) -> BitMap:
    return parts[0] if len(parts) == 1 else BitMap.intersection(every, *parts)


class _Gathered:
    """One field while the rows go by."""

    __slots__ = ("booleans", "numbers", "present", "strings", "values")

    def __init__(self) -> None:
        self.present: list[int] = []
        self.values = 0
        self.strings: dict[str, list[int]] = {}
        self.numbers: dict[float, list[int]] = {}
        self.booleans: tuple[list[int], list[int]] = ([], [])

    def add(self, row: int, value: MetadataValue) -> None:
        self.present.append(row)
        if self.values > VALUES_MAX:
            return
        if isinstance(value, str):
            self._add(self.strings, value, row)
        elif isinstance(value, bool):
            self.booleans[value].append(row)
        elif isinstance(value, list):
            for element in value:
                self._add(self.strings, element, row)
        elif not math.isnan(value):  # the write path refuses it; it would match no condition
            self._add(self.numbers, value, row)

    def _add(self, rows: dict[_V, list[int]], value: _V, row: int) -> None:
        found = rows.get(value)
        if found is not None:
            found.append(row)
            return
        self.values += 1
        if self.values > VALUES_MAX:  # left out: its rows are not needed any more
            self.strings, self.numbers = {}, {}
        else:
            rows[value] = [row]

    def field(self) -> _Field:
        return _Field(
            present=_bits(self.present),
            strings={value: _bits(rows) for value, rows in self.strings.items()},
            numbers=tuple((value, _bits(rows)) for value, rows in sorted(self.numbers.items())),
            true=_bits(self.booleans[True]),
            false=_bits(self.booleans[False]),
        )


def _bits(rows: list[int]) -> memoryview:
    if not rows:
        return _NO_ROWS
    bitmap = BitMap(rows)
    bitmap.run_optimize()
    return memoryview(bitmap.serialize())
