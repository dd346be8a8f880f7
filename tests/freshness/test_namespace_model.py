"""At stake: a query at any manifest never sees a stale, deleted or doubled record. For every m,
what freshness says above m, laid over the records as of m, must be the records as of now.
"""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from core.filters.model import Filter
from core.filters.row import matches
from core.log import NO_LSN
from core.metric import Metric, exact_scores
from core.operations import Operation
from freshness.namespace import NamespaceMemory
from freshness.protocol import FreshAnswer, FreshRequest, Listing, Search
from query.operators.replay import replayed
from storage.checksum import id_hash
from tests.freshness.operations import (
    IDS,
    State,
    applied,
    exists_after,
    filters,
    same,
    writes,
)

QUERY = np.array([3.0, 1.0], dtype=np.float32)


def ask(memory: NamespaceMemory, m: int, condition: Filter | None = None) -> FreshAnswer:
    request = FreshRequest(
        index_id="i",
        namespace="n",
        partition=0,
        metric=Metric.EUCLIDEAN,
        dimension=2,
        manifest_lsn=m,
        search=Search(100, QUERY, filter=condition),
        ids=IDS,
        touched_max=1000,
        patches_of_all=True,
        listing=Listing("", "", 100),
    )
    return memory.shadow(request).answer(NO_LSN)


def laid_over(files: State, answer: FreshAnswer) -> State:
    """What a query does with a manifest's records and an answer."""
    assert answer.touched is not None
    touched = set(answer.touched.tolist())
    shown: State = {hit.stored.record.id: hit.stored for hit in answer.hits}
    if answer.cleared:
        return shown
    for record_id, base in files.items():
        if id_hash(record_id) in touched and record_id not in answer.patches:
            continue
        assert record_id not in shown, "an id twice"
        ops = (*answer.patches.get(record_id, ()), *answer.filter_ops)
        current = replayed(base, ops)
        if current is not None:
            shown[record_id] = current
    return shown


def history(ops: list[list[Operation]]) -> tuple[list[State], list[bool]]:
    """The states before LSN 0, after LSN 0, after LSN 1, …; and whether the namespace existed."""
    states: list[State] = [{}]
    existed = [False]
    for lsn, entries in enumerate(ops):
        state, exists = states[-1], existed[-1]
        for operation in entries:
            state, exists = applied(state, lsn, operation), exists_after(exists, operation)
        states.append(state)
        existed.append(exists)
    return states, existed


@settings(max_examples=400, deadline=None)
@given(ops=writes, data=st.data())
def test_the_shadow_over_any_manifest_is_the_present(
    ops: list[list[Operation]], data: st.DataObject
) -> None:
    states, existed = history(ops)
    start = data.draw(st.integers(0, len(ops)), label="first LSN that freshness saw")
    memory = NamespaceMemory(start - 1)
    for lsn in range(start, len(ops)):
        for position, operation in enumerate(ops[lsn]):
            memory.apply(lsn, position, operation)
        if data.draw(st.booleans(), label=f"evict after {lsn}"):
            memory.evict(data.draw(st.integers(memory.floor_lsn, lsn)), max_rows=2)
    for m in range(memory.floor_lsn, len(ops)):
        answer = ask(memory, m)
        assert same(laid_over(states[m + 1], answer), states[-1]), f"at m = {m}"
        assert (existed[m + 1] if answer.exists is None else answer.exists) == existed[-1]
        assert answer.live == len(answer.hits)
        assert list(answer.listed) == sorted(h.stored.record.id for h in answer.hits)
        for record_id, stored in answer.current.items():
            newest = states[-1].get(record_id)
            assert (newest and newest.lsn) == (stored and stored.lsn)


@settings(max_examples=200, deadline=None)
@given(ops=writes, condition=filters)
def test_fresh_hits_are_filtered_ranked_and_scored_like_brute_force(
    ops: list[list[Operation]], condition: Filter
) -> None:
    states, _ = history(ops)
    memory = NamespaceMemory(NO_LSN)
    for lsn, entries in enumerate(ops):
        for position, operation in enumerate(entries):
            memory.apply(lsn, position, operation)
    expected = []
    for record_id, stored in states[-1].items():
        values = stored.record.values
        if values is not None and matches(condition, stored.record.metadata):
            score = exact_scores(Metric.EUCLIDEAN, values[np.newaxis, :], QUERY)[0]
            expected.append((score, record_id))
    hits = ask(memory, NO_LSN, condition).hits
    assert [(hit.score, hit.stored.record.id) for hit in hits] == sorted(expected)


@settings(max_examples=100, deadline=None)
@given(ops=writes)
def test_what_is_evicted_completely_leaves_nothing_behind(ops: list[list[Operation]]) -> None:
    memory = NamespaceMemory(NO_LSN)
    for lsn, entries in enumerate(ops):
        for position, operation in enumerate(entries):
            memory.apply(lsn, position, operation)
    while memory.evict(len(ops), max_rows=1):
        pass
    assert memory.is_empty
    assert memory.records == 0
    assert memory.floor_lsn == len(ops)
