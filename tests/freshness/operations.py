"""Random writes on a handful of ids, and the plain dict that says what they mean."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from core.filters.model import Comparison, Condition, Filter, Not
from core.operations import (
    CreateNamespace,
    DeleteAll,
    DeleteByFilter,
    DeleteIds,
    DeleteNamespace,
    Entry,
    NamespaceWrite,
    Operation,
    UpdateByFilter,
    UpdateById,
    Upsert,
)
from core.records import Metadata, Record, SparseValues, StoredRecord, Vector
from core.replay import apply_to

IDS = tuple("abcdef")
State = dict[str, StoredRecord]

ids = st.sampled_from(IDS)
metadata: st.SearchStrategy[Metadata] = st.fixed_dictionaries(
    {}, optional={"g": st.sampled_from([0.0, 1.0, 2.0]), "t": st.sampled_from(["x", "y"])}
)
changes: st.SearchStrategy[Metadata] = st.sampled_from(
    [{"g": 0.0}, {"g": 1.0, "t": "x"}, {"t": "y"}, {"g": 2.0}]
)
vectors = st.lists(st.integers(1, 9), min_size=2, max_size=2).map(
    lambda v: np.array(v, dtype=np.float32)
)
filters: st.SearchStrategy[Filter] = st.one_of(
    st.builds(Condition, st.just("g"), st.just(Comparison.EQ), st.sampled_from([(0.0,), (1.0,)])),
    st.builds(Condition, st.just("g"), st.just(Comparison.GTE), st.just((1.0,))),
    st.builds(Condition, st.just("t"), st.just(Comparison.EQ), st.just(("x",))),
    st.builds(Condition, st.just("g"), st.just(Comparison.EXISTS), st.just((True,))).map(Not),
)


@st.composite
def sparse_values(draw: st.DrawFn) -> SparseValues:
    indices = sorted(draw(st.sets(st.integers(0, 4), min_size=1, max_size=3)))
    values = draw(st.lists(st.integers(1, 5), min_size=len(indices), max_size=len(indices)))
    return SparseValues(np.array(indices, dtype=np.uint32), np.array(values, dtype=np.float32))


records = st.builds(
    Record, id=ids, values=vectors, sparse=st.one_of(st.none(), sparse_values()), metadata=metadata
)
operations: st.SearchStrategy[Operation] = st.one_of(
    st.builds(Upsert, st.lists(records, min_size=1, max_size=3).map(tuple)),
    st.builds(Upsert, st.lists(records, min_size=1, max_size=3).map(tuple)),
    st.builds(UpdateById, ids, st.one_of(st.none(), vectors), st.none(), changes),
    st.builds(UpdateByFilter, filters, changes),
    st.builds(DeleteIds, st.lists(ids, min_size=1, max_size=2, unique=True).map(tuple)),
    st.builds(DeleteByFilter, filters),
    st.sampled_from([DeleteAll(), CreateNamespace(), DeleteNamespace()]),
)
writes = st.lists(st.lists(operations, min_size=1, max_size=3), max_size=12)


def without_sparse(operation: Operation) -> Operation:
    """For an index that takes none."""
    if not isinstance(operation, Upsert):
        return operation
    return Upsert(tuple(replace(record, sparse=None) for record in operation.records))


def applied(state: State, lsn: int, operation: Operation) -> State:
    """The namespace's records after one operation."""
    named = [r.id for r in operation.records] if isinstance(operation, Upsert) else []
    after: State = {}
    for record_id in {*state, *named}:
        before = state.get(record_id)
        record = apply_to(before.record if before else None, operation, record_id)
        if record is None:
            continue
        unchanged = before is not None and record is before.record
        after[record_id] = before if before and unchanged else StoredRecord(record, lsn)
    return after


def exists_after(exists: bool, operation: Operation) -> bool:
    if isinstance(operation, Upsert | CreateNamespace):
        return True
    return False if isinstance(operation, DeleteNamespace) else exists


def declared_after(
    declared: tuple[str, ...] | None, exists: bool, operation: Operation
) -> tuple[str, ...] | None:
    """Of a namespace that did, or did not, exist just before."""
    if isinstance(operation, CreateNamespace) and not exists:
        return operation.declared
    return None if isinstance(operation, DeleteNamespace) else declared


def write(
    lsn: int,
    ops: Sequence[Operation],
    *,
    index_id: str = "i",
    namespace: str = "n",
    partition: int = 0,
) -> NamespaceWrite:
    entries = tuple(Entry(op, f"r{lsn}.{at}") for at, op in enumerate(ops))
    return NamespaceWrite(partition, lsn, index_id, namespace, entries, 0, 100)


def same(left: State, right: State) -> bool:
    """Same ids, LSNs, values and metadata."""
    return left.keys() == right.keys() and all(
        left[i].lsn == right[i].lsn
        and _same_values(left[i].record.values, right[i].record.values)
        and left[i].record.metadata == right[i].record.metadata
        and (left[i].record.sparse is None) == (right[i].record.sparse is None)
        for i in left
    )


def _same_values(left: Vector | None, right: Vector | None) -> bool:
    if left is None or right is None:
        return left is right
    return bool(np.array_equal(left, right))
