"""What an index must hold and answer: a dict of records, brute force, and nothing of the engine
but the meaning of a filter (`core.filters.row`, tested by itself).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from core.filters.model import Filter
from core.filters.row import matches
from core.metric import Metric
from core.operations import (
    CreateNamespace,
    DeleteAll,
    DeleteByFilter,
    DeleteIds,
    DeleteNamespace,
    Operation,
    UpdateByFilter,
    UpdateById,
    Upsert,
)
from core.records import Metadata, Record, SparseValues
from query.model import Match, QueryRequest

TOLERANCE = 1e-4


@dataclass
class Truth:
    """Namespaces that exist, each with its records by id; `declared`: the schemas of some."""

    namespaces: dict[str, dict[str, Record]] = field(default_factory=dict)
    declared: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def records(self, namespace: str) -> dict[str, Record]:
        return self.namespaces.get(namespace, {})

    def apply(self, namespace: str, operation: Operation) -> None:
        held = self.records(namespace)
        match operation:
            case Upsert(records=records):
                self.namespaces.setdefault(namespace, {}).update({r.id: r for r in records})
            case CreateNamespace(declared=declared):
                if namespace not in self.namespaces and declared is not None:
                    self.declared[namespace] = declared
                self.namespaces.setdefault(namespace, {})
            case DeleteNamespace():
                self.namespaces.pop(namespace, None)
                self.declared.pop(namespace, None)
            case DeleteAll():
                held.clear()
            case DeleteIds(ids=ids):
                for name in ids:
                    held.pop(name, None)
            case DeleteByFilter(filter=condition):
                for name in [n for n, r in held.items() if matches(condition, r.metadata)]:
                    del held[name]
            case UpdateByFilter(filter=condition, set_metadata=changes):
                for name, record in held.items():
                    if matches(condition, record.metadata):
                        held[name] = replace(record, metadata={**record.metadata, **changes})
            case UpdateById(id=name) if name in held:
                held[name] = _updated(held[name], operation)

    def counts(self) -> dict[str, int]:
        return {name: len(held) for name, held in self.namespaces.items()}


def _updated(record: Record, update: UpdateById) -> Record:
    changes: Metadata = update.set_metadata or {}
    return Record(
        id=record.id,
        values=record.values if update.values is None else update.values,
        sparse=record.sparse if update.sparse is None else update.sparse,
        metadata={**record.metadata, **changes},
    )


def content(record: Record) -> object:
    """Comparable, to the bit."""
    values = None if record.values is None else record.values.tobytes()
    sparse = record.sparse
    pairs = None if sparse is None else (sparse.indices.tolist(), sparse.values.tobytes())
    return record.id, values, pairs, record.metadata


def score(metric: Metric, asked: QueryRequest, record: Record) -> float | None:
    """As Pinecone reports it; None: no match (a sparse search with nothing in common)."""
    sparse = _sparse_score(asked.sparse, record.sparse)
    if asked.vector is None:
        return sparse or None
    assert record.values is not None
    query, values = asked.vector.astype(np.float64), record.values.astype(np.float64)
    match metric:
        case Metric.EUCLIDEAN:
            return float(((query - values) ** 2).sum())
        case Metric.DOTPRODUCT:
            return float(query @ values) + sparse
        case Metric.COSINE:
            lengths = np.linalg.norm(query) * np.linalg.norm(values)
            return float(query @ values / lengths)


def _sparse_score(query: SparseValues | None, record: SparseValues | None) -> float:
    if query is None or record is None:
        return 0.0
    weights = dict(zip(query.indices.tolist(), query.values.tolist(), strict=True))
    pairs = zip(record.indices.tolist(), record.values.tolist(), strict=True)
    return float(sum(weights.get(index, 0.0) * value for index, value in pairs))


def check_answer(
    metric: Metric, asked: QueryRequest, records: Iterable[Record], found: tuple[Match, ...]
) -> None:
    """`asked` has its vector (a search by id is given the record's); `records` are all there are.

    Every match is the newest version of a record that matches, with its score, in order, once.
    With `exhaustive` these are the best k; where scores tie within 1e-9 the engine may round
    differently, so either of the tied ids is right at the border.
    """
    condition: Filter | None = asked.filter
    sign = -1.0 if metric.higher_is_better else 1.0
    expected: dict[str, tuple[float, Record]] = {}
    for record in records:
        scored = score(metric, asked, record)
        if scored is not None and (condition is None or matches(condition, record.metadata)):
            expected[record.id] = (scored, record)
    assert len({m.id for m in found}) == len(found), "an id twice"
    for match in found:
        assert match.id in expected, f"{match.id} is deleted, or does not match the filter"
        wanted, record = expected[match.id]
        assert abs(match.score - wanted) <= TOLERANCE, f"{match.id}: {match.score}, not {wanted}"
        check_content(asked, match, record)
    order = [(sign * m.score, m.id) for m in found]
    assert order == sorted(order), "best first, equal scores by id"
    assert len(found) <= asked.top_k
    if asked.exhaustive:
        best = sorted(sign * wanted for wanted, _ in expected.values())[: asked.top_k]
        assert len(found) == len(best), f"{len(found)} matches, there are {len(best)}"
        missing = expected.keys() - {m.id for m in found}
        worst = best[-1] if best else 0.0
        better = [i for i in missing if sign * expected[i][0] < worst - 1e-9]
        assert not better, f"{better} are better than the last match"


def check_content(asked: QueryRequest, match: Match, record: Record) -> None:
    expected = content(
        Record(
            record.id,
            record.values if asked.include_values else None,
            record.sparse if asked.include_values else None,
            record.metadata if asked.include_metadata else {},
        )
    )
    given = Record(match.id, match.values, match.sparse, match.metadata or {})
    assert content(given) == expected, f"{match.id} is not the newest version"
