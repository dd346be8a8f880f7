"""Random histories of a whole engine with everything an operator can do to it in between.

At stake beside what `test_model.py` watches: that branches, restores, purges, rebuilds, whole
clusterings and a collector without patience never cost a record, bring one back, or mix two
namespaces that share files.
"""

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import rule, run_state_machine_as_test

from builder.garbage import Grace
from cli.runtime.verbs import run_verb
from core.operations import DeleteNamespace
from core.records import Record
from tests.e2e.strategies import NAMESPACES, numbers
from tests.e2e.test_model import DenseMachine

INDEX = "model"
AT_ONCE = Grace(ms=0, slot_ms=0)
VERBS = {"snapshot-create", "restore", "branch", "purge", "recluster", "rebuild"}
WORKS = ["snapshot", "restore", "branch", "collect", "purge", "recluster", "rebuild", "collect"]


class AdminMachine(DenseMachine):
    """snapshots: by name what it is of and what it must bring back."""

    seen: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.snapshots: dict[str, tuple[str, dict[str, Record]]] = {}

    def asked(self, verb: str, **arguments: Any) -> Any:
        async def result() -> Any:
            # Nothing is flushed by age here, and verbs wait until something is indexed.
            flushing = asyncio.create_task(self.flush_on())
            try:
                async for line in run_verb(self.now.parts, verb, arguments):
                    if "result" in line:
                        return line["result"]
            finally:
                flushing.cancel()
                await asyncio.wait((flushing,))
            raise AssertionError(f"{verb} gave no result")

        self.seen[verb] += 1
        return self.run(result())

    async def flush_on(self) -> None:
        while True:
            await self.stepped.flush()
            await asyncio.sleep(0.01)

    # Three rules for one, because there are some fifteen others.

    @rule(number=numbers, place=numbers)
    def once(self, number: int, place: int) -> None:
        self.admin(number, place)

    @rule(number=numbers, place=numbers)
    def again(self, number: int, place: int) -> None:
        self.admin(number, place)

    @rule(first=numbers, place=numbers)
    def two_works(self, first: int, place: int) -> None:
        self.admin(first, place)
        self.admin(first + 1, place)

    def admin(self, number: int, place: int) -> None:
        self.turn += 1
        living = sorted(self.truth.namespaces)
        if not living:
            return
        ns = living[(place + self.turn) % len(living)]
        match WORKS[(number + self.turn) % len(WORKS)]:
            case "snapshot":
                self.take(ns)
            case "restore" if self.snapshots:
                self.restore(place)
            case "branch":
                to = self.free_place(ns)
                self.asked("branch", index=INDEX, namespace=ns, to=to)
                self.truth.namespaces[to] = dict(self.truth.records(ns))
            case "collect":
                self.run(self.stepped.flush())
                self.run(self.now.builder.collect(grace=AT_ONCE))
                self.seen["collect"] += 1
            case "purge":
                self.asked("purge", index=INDEX, namespace=ns)
            case "recluster":
                self.run(self.stepped.flush())
                self.asked("recluster", index=INDEX, namespace=ns)
            case "rebuild":
                self.run(self.stepped.flush())
                self.asked("rebuild", index=INDEX, namespace=ns)
        self.note_clusters()

    def take(self, ns: str) -> None:
        name = f"s{self.turn}"
        self.asked("snapshot-create", index=INDEX, namespace=ns, name=name)
        self.snapshots[name] = ns, dict(self.truth.records(ns))

    def restore(self, place: int) -> None:
        name = sorted(self.snapshots)[place % len(self.snapshots)]
        ns, held = self.snapshots[name]
        to = self.free_place(ns)
        self.asked("restore", index=INDEX, namespace=ns, snapshot=name, to=to)
        self.truth.namespaces[to] = dict(held)

    def free_place(self, but: str) -> str:
        """A namespace that is not there: branches and restores make theirs."""
        to = next(ns for ns in NAMESPACES[::-1] if ns != but)
        if to in self.truth.namespaces:
            self.write(to, DeleteNamespace())
            self.run(self.stepped.flush())
        return to


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("examples", "steps"), [(6, 25), pytest.param(200, 50, marks=pytest.mark.long)]
)
def test_whatever_an_operator_does_the_engine_answers_as_a_dict(
    examples: int, steps: int, record_property: Callable[[str, object], None]
) -> None:
    AdminMachine.seen.clear()
    number = 3 if examples < 200 else uuid.uuid4().int % 1_000_000
    print(f"seed {number}")
    run_state_machine_as_test(
        seed(number)(AdminMachine),
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
    for name, count in sorted(AdminMachine.seen.items()):
        print(name, count)
        record_property(name, count)
    done = {name for name in VERBS if AdminMachine.seen[name]}
    assert len(done) >= 4 if examples < 200 else done == VERBS, f"never done: {VERBS - done}"
