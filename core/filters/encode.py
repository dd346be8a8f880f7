"""From a filter's tree back to its wire form, for the log and for requests between processes."""

from core.filters.model import And, Comparison, Condition, Filter, Not, Or

_LISTS = frozenset((Comparison.IN, Comparison.NIN))


def to_json(f: Filter) -> dict[str, object]:
    """Plain dicts, lists and scalars. `parse_filter(to_json(f)) == f` for everything that the
    parser gave.
    """
    match f:
        case Condition(field=field, comparison=comparison, operands=operands):
            operand = list(operands) if comparison in _LISTS else operands[0]
            return {field: {comparison.value: operand}}
        case Not(part=part):
            return {"$not": to_json(part)}
        case And(parts=()):
            return {}
        case And(parts=parts):
            return {"$and": [to_json(part) for part in parts]}
        case Or(parts=parts):
            return {"$or": [to_json(part) for part in parts]}
