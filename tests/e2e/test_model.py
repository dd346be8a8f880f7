"""Random histories of a whole engine against a dict and brute force.

At stake is everything at once: writes of every kind, reads of every kind, and between them flushes,
clusterings, compactions, forgetting memory and restarts, with files so small that a few rows make
many of them. After each step the engine must answer as the dict does: scores within 1e-4, ids exact
where the search is exhaustive, counts exact, and never stale.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from cli.runtime.embedded import Engine
from core.errors import NotFound
from core.filters.parse import parse_filter
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
from core.records import Metadata, Record, SparseValues, Vector
from query.model import Freshness, QueryRequest
from tests.core.filter_strategies import metadata
from tests.e2e.stepped_engine import DEADLINE_S, SteppedEngine
from tests.e2e.strategies import (
    DIMENSION,
    IDS,
    NAMESPACES,
    common_filters,
    emptied,
    filters,
    ids,
    namespaces,
    numbers,
    sparse_vectors,
    vectors,
)
from tests.e2e.truth import Truth, check_answer, content


class EngineMachine(RuleBasedStateMachine):
    """One index of an embedded engine, and the truth about it."""

    kinds: ClassVar[tuple[tuple[Metric, int | None], ...]]
    seen: ClassVar[Counter[str]]

    def __init__(self) -> None:
        super().__init__()
        self.truth = Truth()
        self.turn = 0
        self.engine: SteppedEngine | None = None

    @initialize(data=st.data(), touched_max=st.sampled_from([1, 1000]))
    def begin(self, data: st.DataObject, touched_max: int) -> None:
        metric, dimension = data.draw(st.sampled_from(self.kinds))
        self.engine = SteppedEngine(dimension, metric, touched_max)
        self.index, self.run = self.engine.index, self.engine.run
        self.upsert_many(NAMESPACES[0], 80, 0)

    @property
    def stepped(self) -> SteppedEngine:
        assert self.engine is not None
        return self.engine

    @property
    def now(self) -> Engine:
        return self.stepped.now

    def teardown(self) -> None:
        dead = self.engine.close() if self.engine is not None else []
        assert not dead, f"a valid write went to the dead letters: {dead[0].value!r}"

    def write(self, namespace: str, *operations: Operation) -> tuple[int, str]:
        """One log record; its LSN and request id."""
        request_id = uuid.uuid4().hex
        lsn = self.run(
            self.now.writes.write(self.index, namespace, operations, request_id=request_id)
        )
        for operation in operations:
            self.truth.apply(namespace, operation)
        self.seen["writes"] += 1
        self.turn += 1
        return lsn, request_id

    def picked(self, ns: str, numbers: Iterable[int]) -> list[str]:
        """Mostly ids that are there; the turn spreads the small numbers that hypothesis likes."""
        there = [*sorted(self.truth.records(ns)), "nobody", *IDS[:2]]
        return [there[(number + 13 * self.turn) % len(there)] for number in numbers]

    def search_for(self, ns: str, changes: Metadata) -> None:
        """What was just written is found by its metadata, wherever it lies."""
        condition = {k: {"$in": v} if isinstance(v, list) else v for k, v in changes.items()}
        asked = replace(self.everything(), filter=parse_filter(condition))
        self.run(self._check(ns, asked))

    # --- writes

    def record(self, draw: Callable[[st.SearchStrategy[Any]], Any], name: str) -> Record:
        dense: Vector | None = None
        sparse: SparseValues | None = None
        if self.index.dimension is not None:
            dense = draw(vectors)
        if self.index.dimension is None or (self.hybrid and draw(st.booleans())):
            sparse = draw(sparse_vectors)
        return Record(name, dense, sparse, draw(metadata))

    @property
    def hybrid(self) -> bool:
        return self.index.metric is Metric.DOTPRODUCT

    @rule(data=st.data(), ns=namespaces, names=st.lists(ids, min_size=1, max_size=6))
    def upsert(self, data: st.DataObject, ns: str, names: list[str]) -> None:
        records = tuple(self.record(data.draw, name) for name in names)
        self.write(ns, Upsert(records))
        self.search_for(ns, records[0].metadata)

    @rule(ns=namespaces, count=st.integers(30, 90), number=st.integers(0, 5))
    def upsert_and_flush(self, ns: str, count: int, number: int) -> None:
        self.upsert_many(ns, count, number)
        self.run(self.stepped.flush())

    @rule(ns=namespaces, count=st.integers(30, 90), number=st.integers(0, 5))
    def upsert_many(self, ns: str, count: int, number: int) -> None:
        """Enough rows for clusters; ids of their own, so that many stay."""
        source = np.random.default_rng(number)
        records = []
        for at in range(count):
            dense = source.normal(size=DIMENSION).astype(np.float32)
            terms = np.sort(source.choice(10, 3, replace=False)).astype(np.uint32)
            sparse = SparseValues(terms, source.integers(1, 4, 3).astype(np.float32))
            records.append(
                Record(
                    f"many{number}-{at:02}",
                    dense if self.index.dimension else None,
                    sparse if self.hybrid else None,
                    {"genre": ("drama", "comedy")[at % 2], "year": float(at)},
                )
            )
        self.write(ns, Upsert(tuple(records)))

    @rule(data=st.data(), ns=namespaces, number=numbers, memory=st.booleans())
    def update(self, data: st.DataObject, ns: str, number: int, memory: bool) -> None:
        if not memory:
            self.settle()
        (name,) = self.picked(ns, [number])
        new = self.record(data.draw, name)
        values = new.values if data.draw(st.booleans()) else None
        sparse = new.sparse if data.draw(st.booleans()) else None
        self.write(ns, UpdateById(name, values, sparse, new.metadata))
        self.search_for(ns, new.metadata)

    @rule(ns=namespaces, condition=common_filters, changes=metadata, memory=st.booleans())
    def update_by_filter(self, ns: str, condition: Any, changes: Metadata, memory: bool) -> None:
        if not memory:
            self.settle()
        # a value that no file's statistics can know
        changes = {**changes, "mark": f"turn {self.turn}"}
        self.write(ns, UpdateByFilter(condition, changes))
        self.search_for(ns, changes)

    @rule(ns=namespaces, chosen=st.lists(numbers, min_size=1, max_size=8), memory=st.booleans())
    def delete(self, ns: str, chosen: list[int], memory: bool) -> None:
        if not memory:
            self.settle()
        existed = ns in self.truth.namespaces
        lsn, request_id = self.write(ns, DeleteIds(tuple(self.picked(ns, chosen))))
        self.check_outcome(ns, lsn, request_id, existed)

    def settle(self) -> None:
        """Everything lies in files only: what is written next meets rows that memory forgot."""
        self.run(self.stepped.flush())
        self.run(self.now.freshness.sweep())

    @rule(ns=emptied, condition=filters)
    def delete_by_filter(self, ns: str, condition: Any) -> None:
        self.write(ns, DeleteByFilter(condition))

    @rule(ns=emptied)
    def delete_all(self, ns: str) -> None:
        self.write(ns, DeleteAll())

    @rule(ns=emptied)
    def delete_namespace(self, ns: str) -> None:
        existed = ns in self.truth.namespaces
        lsn, request_id = self.write(ns, DeleteNamespace())
        self.check_outcome(ns, lsn, request_id, existed)

    @rule(ns=st.sampled_from(NAMESPACES[1:]), declared=st.sampled_from([None, (), ("g", "t")]))
    def create_namespace(self, ns: str, declared: tuple[str, ...] | None) -> None:
        existed = ns in self.truth.namespaces
        lsn, request_id = self.write(ns, CreateNamespace(declared))
        self.check_outcome(ns, lsn, request_id, existed)

    @rule(data=st.data(), ns=namespaces, name=ids, other=ids, condition=filters)
    def several_at_once(
        self, data: st.DataObject, ns: str, name: str, other: str, condition: Any
    ) -> None:
        """Entries that share a log record happen in their order."""
        self.write(
            ns,
            Upsert((self.record(data.draw, name), self.record(data.draw, other))),
            DeleteByFilter(condition),
            UpdateById(other, set_metadata=data.draw(metadata)),
            Upsert((self.record(data.draw, name),)),
        )

    def check_outcome(self, ns: str, lsn: int, request_id: str, existed: bool) -> None:
        outcome = self.run(self.now.queries.outcome(self.index, ns, lsn, request_id, DEADLINE_S))
        assert outcome.existed is existed

    # --- what goes on behind

    @rule(number=st.integers(0, 1 << 16))
    def behind(self, number: int) -> None:
        """One rule, because hypothesis leaves some rules out of each example; a turn, because it
        likes small numbers best.
        """
        self.turn += 1
        chosen = ["flush", "compact", "forget", "flush", "restart"][(number + self.turn) % 5]
        match chosen:
            case "flush":
                self.run(self.stepped.flush())
            case "compact":
                self.run(self.now.builder.compact())
            case "forget":
                self.run(self.now.freshness.sweep())
            case "restart":
                self.stepped.restart()
        self.seen[chosen] += 1
        self.note_clusters()

    def note_clusters(self) -> None:
        """Clustering goes on in the background as well, so every flush has a look."""
        for ns in NAMESPACES:
            manifest = self.stepped.manifest(ns)
            if manifest is not None and manifest.centroids:
                self.seen["clustered"] += 1

    @rule(data=st.data(), ns=namespaces)
    def search_while_files_change(self, data: st.DataObject, ns: str) -> None:
        asked = [self.question(data.draw, ns) for _ in range(4)]

        async def change() -> None:
            await self.stepped.flush()
            await self.now.freshness.sweep()
            await self.now.builder.compact()

        async def both() -> None:
            changing = asyncio.create_task(change())
            try:
                for request in asked * 3:
                    await self._check(ns, request)
            finally:
                await changing

        self.run(both())

    # --- reads

    def question(self, draw: Callable[[st.SearchStrategy[Any]], Any], ns: str) -> QueryRequest:
        vector: Vector | None = None
        sparse: SparseValues | None = None
        wanted: str | None = None
        if draw(st.integers(0, 4)) == 0:
            (wanted,) = self.picked(ns, [draw(numbers)])
        else:
            if self.index.dimension is not None:
                vector = draw(vectors)
            if self.index.dimension is None or (self.hybrid and draw(st.booleans())):
                sparse = draw(sparse_vectors)
        return QueryRequest(
            top_k=draw(st.sampled_from([1, 3, 10, 200])),
            vector=vector,
            id=wanted,
            sparse=sparse,
            filter=draw(st.none() | filters),
            include_values=draw(st.booleans()),
            include_metadata=draw(st.booleans()),
            exhaustive=draw(st.integers(0, 2)) > 0,
        )

    async def _check(self, ns: str, asked: QueryRequest) -> None:
        answer = await self.now.queries.query(self.index, ns, asked)
        check_fresh(answer.freshness)
        records = self.truth.records(ns)
        if asked.id is not None:
            record = records.get(asked.id)
            if record is None:
                assert answer.matches == ()
                return
            dense = record.values
            asked = replace(
                asked, id=None, vector=dense, sparse=record.sparse if dense is None else None
            )
        check_answer(self.index.metric, asked, records.values(), answer.matches)
        self.seen["searches"] += 1

    @invariant()
    def everything_is_there(self) -> None:
        """After every step: all of each namespace by one exhaustive search, and the counts."""
        if self.engine is None:
            return
        for ns in NAMESPACES:
            self.run(self._check(ns, self.everything()))
        self.stats()

    def everything(self) -> QueryRequest:
        vector = np.array([1, -2, 3, 0.5], dtype=np.float32) if self.index.dimension else None
        terms = SparseValues(np.arange(10, dtype=np.uint32), np.ones(10, dtype=np.float32))
        return QueryRequest(
            top_k=10_000,
            vector=vector,
            sparse=None if self.index.dimension else terms,
            include_values=True,
            include_metadata=True,
            exhaustive=True,
        )

    @rule(data=st.data(), ns=namespaces)
    def search(self, data: st.DataObject, ns: str) -> None:
        self.run(self._check(ns, self.question(data.draw, ns)))

    @rule(ns=namespaces, chosen=st.lists(numbers, min_size=1, max_size=10))
    def fetch(self, ns: str, chosen: list[int]) -> None:
        names = self.picked(ns, chosen)
        answer = self.run(self.now.queries.fetch(self.index, ns, names))
        check_fresh(answer.freshness)
        expected = {n: r for n, r in self.truth.records(ns).items() if n in names}
        assert {n: content(r) for n, r in answer.records.items()} == {
            n: content(r) for n, r in expected.items()
        }

    @rule(ns=namespaces, prefix=st.sampled_from(["", "a", "c1", "many", "z"]))
    def list_ids(self, ns: str, prefix: str) -> None:
        found: list[str] = []
        token: str | None = None
        while True:
            page = self.run(self.now.queries.list_ids(self.index, ns, prefix, 7, token))
            check_fresh(page.freshness)
            found += page.ids
            token = page.next_token
            if token is None:
                break
        assert found == sorted(n for n in self.truth.records(ns) if n.startswith(prefix))

    def stats(self) -> None:
        answer = self.run(self.now.queries.stats(self.index))
        check_fresh(answer.freshness)
        counts = self.truth.counts()
        assert {n: s.record_count for n, s in answer.namespaces.items()} == counts
        assert answer.total == sum(counts.values())

    @rule(ns=namespaces)
    def list_namespaces(self, ns: str) -> None:
        page = self.run(self.now.queries.namespaces(self.index))
        counts = self.truth.counts()
        assert [(n.name, n.record_count) for n in page.namespaces] == sorted(counts.items())
        shown = {n.name: n.declared for n in page.namespaces if n.declared is not None}
        assert shown == self.truth.declared
        described = self.run(self._describe(ns))
        assert described == counts.get(ns)

    async def _describe(self, ns: str) -> int | None:
        try:
            answer = await self.now.queries.describe_namespace(self.index, ns)
        except NotFound:
            return None
        return answer.namespace.record_count


def check_fresh(freshness: Freshness) -> None:
    assert not freshness.stale, "an answer without the writes before it"


class DenseMachine(EngineMachine):
    kinds = (
        (Metric.COSINE, DIMENSION),
        (Metric.EUCLIDEAN, DIMENSION),
    )
    seen: ClassVar[Counter[str]] = Counter()


class SparseMachine(EngineMachine):
    kinds = (
        (Metric.DOTPRODUCT, DIMENSION),
        (Metric.DOTPRODUCT, None),
    )
    seen: ClassVar[Counter[str]] = Counter()


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("examples", "steps"), [(25, 30), pytest.param(500, 60, marks=pytest.mark.long)]
)
@pytest.mark.parametrize("machine", [DenseMachine, SparseMachine])
def test_the_engine_answers_as_a_dict_does(
    machine: type[EngineMachine],
    examples: int,
    steps: int,
    record_property: Callable[[str, object], None],
) -> None:
    machine.seen.clear()
    # The short form is the same every time, so that it fails for a change and not for luck.
    number = 1 if examples < 500 else uuid.uuid4().int % 1_000_000
    print(f"seed {number}")
    run_state_machine_as_test(
        seed(number)(machine),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
    record_property("seed", number)
    for name, count in sorted(machine.seen.items()):
        print(name, count)
        record_property(name, count)
    assert machine.seen["clustered"] > 0, "no namespace was ever clustered: the files are too big"
