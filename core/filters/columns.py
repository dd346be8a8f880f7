"""A file's metadata in columns, so that a filter is a handful of numpy operations: the same truth
as `row`.

A field's values are kept by type (numbers, booleans, strings, elements of lists), each as row
numbers beside values. A field that few rows have costs only those rows, however many different
fields a file has.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.filters.model import And, Comparison, Condition, Filter, Not, Or, Scalar
from core.records import Metadata

Mask = npt.NDArray[np.bool_]
_Rows = npt.NDArray[np.int32]

_ORDERINGS: dict[Comparison, Callable[[npt.NDArray[np.float64], float], Mask]] = {
    Comparison.GT: lambda values, bound: values > bound,
    Comparison.GTE: lambda values, bound: values >= bound,
    Comparison.LT: lambda values, bound: values < bound,
    Comparison.LTE: lambda values, bound: values <= bound,
}


@dataclass(frozen=True, slots=True, eq=False)
class _Field:
    """One field. Each `*_rows` is ascending and lies beside its values; `element_rows` repeats a
    row per element.

    `codes` maps each string that occurs, alone or in a list, to the number that stands for it.
    """

    present: _Rows
    number_rows: _Rows
    numbers: npt.NDArray[np.float64]
    boolean_rows: _Rows
    booleans: Mask
    string_rows: _Rows
    strings: npt.NDArray[np.int32]
    element_rows: _Rows
    elements: npt.NDArray[np.int32]
    codes: dict[str, int]


class MetadataColumns:
    """The metadata of n rows, immutable once built; safe to share among threads."""

    def __init__(self, rows: int, fields: dict[str, _Field]) -> None:
        self._rows = rows
        self._fields = fields

    def __len__(self) -> int:
        return self._rows

    @classmethod
    def build(cls, rows: Sequence[Metadata]) -> "MetadataColumns":
        """About 0.4 us per field value: not on the event loop."""
        gathered: dict[str, _Gathered] = {}
        for row, metadata in enumerate(rows):
            for field, value in metadata.items():
                column = gathered.get(field)
                if column is None:
                    column = gathered[field] = _Gathered()
                if isinstance(value, str):
                    column.string_rows.append(row)
                    column.strings.append(column.code(value))
                elif isinstance(value, bool):
                    column.boolean_rows.append(row)
                    column.booleans.append(value)
                elif isinstance(value, list):
                    column.list_rows.append(row)
                    column.element_rows.extend([row] * len(value))
                    column.elements.extend([column.code(element) for element in value])
                else:
                    column.number_rows.append(row)
                    column.numbers.append(value)
        return cls(len(rows), {field: column.field() for field, column in gathered.items()})

    def mask(self, f: Filter) -> Mask:
        """bool (n,): which rows match; the caller's own array."""
        match f:
            case Condition():
                return self._condition(f)
            case Not(part=part):
                inner = self.mask(part)
                return np.logical_not(inner, out=inner)
            case And(parts=parts):
                result = np.ones(self._rows, dtype=np.bool_)
                for part in parts:
                    result &= self.mask(part)
                return result
            case Or(parts=parts):
                result = np.zeros(self._rows, dtype=np.bool_)
                for part in parts:
                    result |= self.mask(part)
                return result

    def _condition(self, condition: Condition) -> Mask:
        field = self._fields.get(condition.field)
        result = np.zeros(self._rows, dtype=np.bool_)
        comparison = condition.comparison
        match comparison:
            case Comparison.EXISTS:
                if field is not None:
                    result[field.present] = True
                if condition.operands[0] is False:
                    np.logical_not(result, out=result)
            case Comparison.EQ | Comparison.IN | Comparison.NE | Comparison.NIN:
                if field is not None:
                    _mark(result, field, condition.operands)
                if comparison in (Comparison.NE, Comparison.NIN):
                    np.logical_not(result, out=result)
            case _:
                bound = condition.operands[0]
                assert isinstance(bound, float), "the parser gives the orderings a float"
                if field is not None:
                    holds = _ORDERINGS[comparison](field.numbers, bound)
                    result[field.number_rows[holds]] = True
        return result


def _mark(result: Mask, field: _Field, operands: tuple[Scalar, ...]) -> None:
    """Set the rows whose value, or one element of whose list, is among the operands."""
    numbers = [o for o in operands if isinstance(o, float)]
    if numbers and field.numbers.size:
        hits = field.numbers == numbers[0] if len(numbers) == 1 else np.isin(field.numbers, numbers)
        result[field.number_rows[hits]] = True
    for boolean in {o for o in operands if isinstance(o, bool)}:
        result[field.boolean_rows[field.booleans == boolean]] = True
    codes = [field.codes[o] for o in operands if isinstance(o, str) and o in field.codes]
    if not codes:
        return
    wanted = np.zeros(len(field.codes), dtype=np.bool_)
    wanted[codes] = True
    result[field.string_rows[wanted[field.strings]]] = True
    result[field.element_rows[wanted[field.elements]]] = True


class _Gathered:
    """One field while the rows go by; plain lists, because appending to them is what costs."""

    __slots__ = (
        "boolean_rows",
        "booleans",
        "codes",
        "element_rows",
        "elements",
        "list_rows",
        "number_rows",
        "numbers",
        "string_rows",
        "strings",
    )

    def __init__(self) -> None:
        self.number_rows: list[int] = []
        self.numbers: list[float] = []
        self.boolean_rows: list[int] = []
        self.booleans: list[bool] = []
        self.string_rows: list[int] = []
        self.strings: list[int] = []
        self.list_rows: list[int] = []
        self.element_rows: list[int] = []
        self.elements: list[int] = []
        self.codes: dict[str, int] = {}

    def code(self, string: str) -> int:
        return self.codes.setdefault(string, len(self.codes))

    def field(self) -> _Field:
        present = self.number_rows + self.boolean_rows + self.string_rows + self.list_rows
        return _Field(
            present=np.array(present, dtype=np.int32),
            number_rows=np.array(self.number_rows, dtype=np.int32),
            numbers=np.array(self.numbers, dtype=np.float64),
            boolean_rows=np.array(self.boolean_rows, dtype=np.int32),
            booleans=np.array(self.booleans, dtype=np.bool_),
            string_rows=np.array(self.string_rows, dtype=np.int32),
            strings=np.array(self.strings, dtype=np.int32),
            element_rows=np.array(self.element_rows, dtype=np.int32),
            elements=np.array(self.elements, dtype=np.int32),
            codes=self.codes,
        )
