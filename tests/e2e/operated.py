"""An engine under everything that an operator may do to it, and a dict that says what must be true.

Steps are drawn from a seed; what goes on behind is not, so a seed repeats a history but not every
interleaving of it.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import numpy as np

from builder.garbage.beside import Beside
from builder.garbage.plan import Grace
from cli.runtime.branching import branch_lines, create_lines, delete_lines, restore_lines
from cli.runtime.consumers import builder_parts
from cli.runtime.erasing import purge_lines
from cli.runtime.rebuilding import rebuild_lines, recluster_lines
from core.errors import AlreadyExists, FirnError, NotFound
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
)
from core.records import Record, SparseValues
from query.model import QueryRequest
from storage.layout import base_pack_key, edits_pack_key, hint_key, namespace_prefix
from tests.e2e.drawn import Drawn
from tests.e2e.stepped_engine import TINY, SteppedEngine
from tests.e2e.truth import Truth, check_answer, content

INDEX = "model"
NAMES = ["__default__", "sea", "ice/berg", "b1", "b2"]
KINDS = (
    (Metric.COSINE, 4),
    (Metric.EUCLIDEAN, 4),
    (Metric.DOTPRODUCT, 4),
    (Metric.DOTPRODUCT, None),
)
# Flushed by age as well: an operator's command waits for the builder. Garbage goes within a second.
BUILDING = replace(
    TINY, flush=replace(TINY.flush, age_s=0.2), gc_grace_s=1.0, gc_period_s=0.5, paused_retry_s=0.3
)
# While one thing happens at a time, nothing takes longer.
GRACE = Grace(ms=200)
LONGER_GRACE = Grace(ms=1500)

Held = dict[str, Record]
Job = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Kept:
    """A snapshot."""

    name: str
    namespace: str
    records: Held


class Operated:
    def __init__(self, number: int) -> None:
        self.random = Random(number)
        self.metric, dimension = KINDS[number % len(KINDS)]
        self.engine = SteppedEngine(dimension, self.metric, self.one_of(1, 1000), BUILDING)
        self.drawn = Drawn(self.random, self.metric, dimension)
        self.index, self.run = self.engine.index, self.engine.run
        self.truth = Truth()
        self.seen: Counter[str] = Counter()
        self.story: list[str] = []
        self.kept: list[Kept] = []
        # By namespace what it held after each LSN; None where it was not there.
        self.past: dict[str, list[tuple[int, Held | None]]] = {}
        self._steps: dict[Callable[[], None], int] = {
            self.change: 30,
            self.go_on: 22,
            self.begin_anew: 4,
            self.collect: 7,
            self.lose_hints: 2,
            self.snapshot: 3,
            self.forget_snapshot: 2,
            self.branch: 5,
            self.restore: 3,
            self.go_back: 4,
            self.purge: 3,
            self.rewrite: 6,
            self.storm: 10,
        }

    @classmethod
    def run_all(cls, numbers: range, steps: int) -> Counter[str]:
        """One history for each number; what was seen in all of them."""
        seen: Counter[str] = Counter()
        for number in numbers:
            operated = cls(number)
            try:
                operated.steps(steps)
            except BaseException as error:
                error.add_note(f"seed {number}: {operated.story}")
                raise
            finally:
                dead = operated.engine.close()
            assert not dead, f"a valid write went to the dead letters: {dead[0].value!r}"
            seen += operated.seen
        return seen

    def steps(self, count: int) -> None:
        """So many random steps, everything checked after each."""
        self.begin()
        for _ in range(count):
            (step,) = self.random.choices(list(self._steps), list(self._steps.values()))
            self.tell(step.__name__)
            step()
            self.run(self.check())
            self._note_shapes()
        self.settle()
        self.run(self.check())

    def begin(self) -> None:
        """A big namespace with a branch, and a tiny one."""
        source, target, tiny = NAMES[:3]
        self.run(self.write(tiny, self.drawn.upsert(3)))
        self.run(self.write(source, self.drawn.upsert(200)))
        self.settle()
        self.run(self.engine.now.builder.compact())
        lines = branch_lines(self.engine.now.parts, INDEX, source, target)
        self._attached(target, dict(self.truth.records(source)), self.run(self.ask(lines)))
        self._note_shapes()

    def tell(self, what: str) -> None:
        self.story.append(what)
        self.seen[what] += 1

    def one_of(self, *things: Any) -> Any:
        return self.random.choice(things)

    def _note_shapes(self) -> None:
        """The test is worth nothing without them."""
        for namespace in NAMES:
            manifest = self.engine.manifest(namespace)
            if manifest is not None:
                self.seen["clustered"] += bool(manifest.centroids)
                self.seen["in sections"] += bool(manifest.sections)
                self.seen["inline"] += any(file.inline for file in manifest.files)
                self.seen["shared"] += any(file.origin for file in manifest.files)

    # --- writes

    async def write(self, namespace: str, *operations: Operation) -> None:
        writes = self.engine.now.writes
        lsn = await writes.write(self.index, namespace, operations, request_id=uuid.uuid4().hex)
        for operation in operations:
            self.truth.apply(namespace, operation)
        self._note(namespace, lsn)

    def _note(self, namespace: str, lsn: int) -> None:
        held = self.truth.namespaces.get(namespace)
        now = None if held is None else dict(held)
        self.past.setdefault(namespace, []).append((lsn, now))

    def there(self, namespace: str, count: int) -> tuple[str, ...]:
        held = sorted(self.truth.records(namespace))
        return tuple(self.random.sample(held, min(count, len(held)))) or ("nobody",)

    def operations(self, namespace: str) -> Sequence[Operation]:
        (name,), new = self.there(namespace, 1), self.drawn.record("new")
        update = UpdateById(name, self.one_of(None, new.values), None, new.metadata)
        created: list[Operation] = [] if namespace == NAMES[0] else [CreateNamespace()]
        mixed: list[Operation] = [
            self.drawn.upsert(2),
            DeleteByFilter(self.drawn.condition()),
            update,
            self.drawn.upsert(1),
        ]
        choices: list[list[Operation]] = [
            [self.drawn.upsert(self.one_of(1, 2, 5, 30, 60))],
            [update],
            [
                UpdateByFilter(
                    self.drawn.condition(), {**new.metadata, "mark": str(len(self.story))}
                )
            ],
            [DeleteIds(self.there(namespace, self.one_of(1, 5, 30)))],
            [DeleteByFilter(self.drawn.condition())],
            [DeleteAll()],
            [DeleteNamespace()],
            created or [update],
            mixed,
        ]
        return self.random.choices(choices, [10, 4, 3, 5, 2, 1, 2, 1, 2])[0]

    def change(self) -> None:
        namespace = self.one_of(*NAMES)
        self.run(self.write(namespace, *self.operations(namespace)))

    # --- what goes on behind

    def settle(self) -> None:
        """Everything lies in files only."""
        self.run(self.engine.flush())
        self.run(self.engine.now.freshness.sweep())

    def go_on(self) -> None:
        now = self.engine.now
        chosen = self.one_of("flush", "settle", "compact", "sweep")
        self.tell(chosen)
        match chosen:
            case "flush":
                self.run(self.engine.flush())
            case "settle":
                self.settle()
            case "compact":
                self.run(now.builder.compact())
            case "sweep":
                self.run(now.freshness.sweep())

    def begin_anew(self) -> None:
        """A new process, which will have time for a last flush, or none."""
        self.engine.restart(replace(BUILDING, stop_s=self.one_of(0.0, 20.0)))

    def collect(self) -> None:
        async def collect() -> None:
            await asyncio.sleep(GRACE.ms / 1000 + 0.05)
            if self.one_of(True, False):
                await self.engine.now.builder.collect(grace=GRACE)
            else:
                for _ in range(2):
                    await self._collect_beside(GRACE)

        self.run(collect())

    async def _collect_beside(self, grace: Grace) -> None:
        parts = self.engine.now.parts
        building = builder_parts(parts, parts.caches[0])
        for namespace in NAMES:
            beside = Beside(building, self.index, namespace, BUILDING, tuple(parts.caches))
            await beside.collect(grace)

    def lose_hints(self) -> None:
        """As if a process had died before it wrote them."""
        prefix = namespace_prefix(self.index.index_id, self.one_of(*NAMES))
        for key in (base_pack_key(prefix), edits_pack_key(prefix), hint_key(prefix)):
            if self.one_of(True, False):
                self.run(self.engine.now.parts.store.delete(key))

    # --- what an operator asks for

    async def ask(self, lines: AsyncGenerator[dict[str, Any], None]) -> Any:
        """The result."""
        result = None
        async with aclosing(lines) as told:
            async for line in told:
                result = line.get("result", result)
        return result

    def snapshot(self) -> None:
        namespace, name = self.one_of(*NAMES), f"snapshot {len(self.story)}"
        try:
            self.run(self.ask(create_lines(self.engine.now.parts, INDEX, namespace, name)))
        except NotFound:
            assert namespace not in self.truth.namespaces
            return
        assert namespace in self.truth.namespaces
        self.kept.append(Kept(name, namespace, dict(self.truth.records(namespace))))

    def forget_snapshot(self) -> None:
        if self.kept:
            kept = self.kept.pop(self.random.randrange(len(self.kept)))
            parts = self.engine.now.parts
            self.run(self.ask(delete_lines(parts, INDEX, kept.name, kept.namespace)))

    def branch(self) -> None:
        source, target = self.random.sample(NAMES, 2)
        lines = branch_lines(self.engine.now.parts, INDEX, source, target)
        try:
            self._attached(target, dict(self.truth.records(source)), self.run(self.ask(lines)))
        except NotFound:
            assert source not in self.truth.namespaces
        except AlreadyExists:
            assert target in self.truth.namespaces

    def restore(self) -> None:
        if not self.kept:
            return
        kept, target = self.one_of(*self.kept), self.one_of(*NAMES)
        lines = restore_lines(self.engine.now.parts, INDEX, target, kept.name, kept.namespace)
        try:
            self._attached(target, dict(kept.records), self.run(self.ask(lines)))
        except AlreadyExists:
            assert target in self.truth.namespaces

    def _attached(self, target: str, held: Held, restored: dict[str, Any]) -> None:
        assert not self.truth.records(target), "what is there is never replaced"
        assert restored["records"] == len(held)
        self.truth.namespaces[target] = held
        self._note(target, restored["lsn"])

    def go_back(self) -> None:
        """To a point in time."""
        source, target = self.random.sample(NAMES, 2)
        if not self.past.get(source):
            return
        lsn, held = self.one_of(*self.past[source])
        if held is None:
            return
        lines = restore_lines(self.engine.now.parts, INDEX, target, None, source, to_lsn=lsn)
        try:
            restored = self.run(self.ask(lines))
        except AlreadyExists:
            assert target in self.truth.namespaces
            return
        # Entry by entry: what the target was like in between is not known here.
        self.past.pop(target, None)
        self._attached(target, dict(held), restored)

    def purge(self) -> None:
        namespace = self.one_of(*NAMES)
        ids = self.there(namespace, 2) if self.truth.records(namespace) else ()
        ids = self.one_of(ids, ())
        lines = purge_lines(self.engine.now.parts, INDEX, namespace, list(ids))
        try:
            rows = self.run(self.ask(lines))
        except NotFound:
            assert namespace not in self.truth.namespaces
            return
        for row in rows:
            assert row["holding"] or not row["left"], row
        if ids:
            self.truth.apply(namespace, DeleteIds(ids))

    def rewrite(self) -> None:
        lines = self.one_of(recluster_lines, rebuild_lines)
        self.run(
            self._tried(lines.__name__, lines(self.engine.now.parts, INDEX, self.one_of(*NAMES)))
        )

    async def _tried(self, name: str, lines: AsyncGenerator[dict[str, Any], None]) -> Any:
        """What is refused is refused with reason, whatever it is; None then."""
        try:
            result = await self.ask(lines)
        except FirnError as error:
            self.seen[f"{name}: {type(error).__name__}"] += 1
            return None
        self.seen[f"{name}: done"] += 1
        return result

    # --- all at once

    def storm(self) -> None:
        """Three of these at the same time, on a namespace that is written to and read."""
        namespace = self.one_of(*NAMES)
        jobs = self._jobs(namespace)
        chosen = self.random.sample(list(jobs), 3)
        self.tell(f"{namespace}: {', '.join(chosen)}")

        async def storm() -> None:
            tasks = [asyncio.ensure_future(jobs[name]()) for name in chosen]
            try:
                while not all(task.done() for task in tasks):
                    await self._check_namespace(namespace)
                    await self.write(namespace, *self.operations(namespace))
                    await asyncio.sleep(self.one_of(0, 0.02, 0.1))
            finally:
                await asyncio.gather(*tasks)

        self.run(storm())

    def _jobs(self, namespace: str) -> dict[str, Job]:
        parts, name = self.engine.now.parts, f"storm {len(self.story)}"

        async def compact() -> None:
            for _ in range(3):
                await self.engine.flush()
                await self.engine.now.freshness.sweep()
                await self.engine.now.builder.compact()

        async def collect() -> None:
            try:
                await self._collect_beside(LONGER_GRACE)
            except FirnError as error:
                self.seen[f"collect: {type(error).__name__}"] += 1

        async def snapshot() -> None:
            made = create_lines(parts, INDEX, namespace, name)
            if await self._tried("snapshot", made) is not None:
                await self._tried("forget", delete_lines(parts, INDEX, name, namespace))

        jobs: dict[str, Job] = {
            "compact": compact,
            "collect": collect,
            "snapshot": snapshot,
            "purge": lambda: self._tried("purge", purge_lines(parts, INDEX, namespace)),
            "recluster": lambda: self._tried("recluster", recluster_lines(parts, INDEX, namespace)),
            "rebuild": lambda: self._tried("rebuild", rebuild_lines(parts, INDEX, namespace)),
        }
        others = [other for other in NAMES if other != namespace]
        sources = [other for other in others if other in self.truth.namespaces]
        targets = [other for other in others if other not in self.truth.namespaces]
        if sources and targets:
            source, target = self.one_of(*sources), self.one_of(*targets)

            async def branch() -> None:
                lines = branch_lines(parts, INDEX, source, target)
                made = await self._tried("branch", lines)
                if made is not None:
                    self._attached(target, dict(self.truth.records(source)), made)

            jobs["branch"] = branch
        return jobs

    # --- reads

    async def check(self) -> None:
        """Each namespace by search, by id, in order; all of them by counts."""
        for namespace in NAMES:
            await self._check_namespace(namespace)
        counts = self.truth.counts()
        stats = await self.engine.now.queries.stats(self.index)
        assert {name: one.record_count for name, one in stats.namespaces.items()} == counts
        page = await self.engine.now.queries.namespaces(self.index)
        assert [(one.name, one.record_count) for one in page.namespaces] == sorted(counts.items())

    async def _check_namespace(self, namespace: str) -> None:
        records = self.truth.records(namespace)
        asked = self.everything()
        await self._check_search(namespace, asked)
        asked = replace(asked, filter=self.drawn.condition(), top_k=self.one_of(3, 200))
        await self._check_search(namespace, asked)
        # The ways of a usual query, but to its end: no cluster and no group may be missed.
        await self._check_search(namespace, replace(asked, exhaustive=False))
        await self._check_search(namespace, replace(asked, exhaustive=False, filter=None))
        queries = self.engine.now.queries
        names = [*self.there(namespace, 5), "r100", "nobody"]
        fetched = await queries.fetch(self.index, namespace, names)
        assert {name: content(one) for name, one in fetched.records.items()} == {
            name: content(records[name]) for name in names if name in records
        }
        found: list[str] = []
        token: str | None = None
        limit = self.one_of(7, 1000)
        while True:
            page = await queries.list_ids(self.index, namespace, "", limit, token)
            assert not page.freshness.stale
            found, token = [*found, *page.ids], page.next_token
            if token is None:
                break
        assert found == sorted(records)

    async def _check_search(self, namespace: str, asked: QueryRequest) -> None:
        answer = await self.engine.now.queries.query(self.index, namespace, asked)
        assert not answer.freshness.stale
        asked = replace(asked, exhaustive=True)
        check_answer(self.metric, asked, self.truth.records(namespace).values(), answer.matches)

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
