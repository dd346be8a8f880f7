"""Who is near a limit of memory is known without a look at everybody."""

import numpy as np
import pytest

from core.operations import Entry, NamespaceWrite, Upsert
from core.records import Record
from freshness.budget import Budget, MemoryLimits
from freshness.held import HeldNamespace


async def written(budget: Budget, number: int, records: int) -> HeldNamespace:
    held = HeldNamespace("i", f"n{number}", -1)
    vector = np.ones(2, dtype=np.float32)
    upsert = Upsert(tuple(Record(f"r{row}", vector, None, {}) for row in range(records)))
    await held.apply(NamespaceWrite(0, 7, "i", f"n{number}", (Entry(upsert),), 0, 100), 0.0)
    budget.changed(held)
    return held


async def test_usage_looks_only_at_those_near_their_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for with every write, and thousands of small namespaces may be held."""
    budget = Budget(MemoryLimits(namespace_records=10))
    helds = [await written(budget, number, 1) for number in range(500)]
    near = await written(budget, 1000, 5)
    full = await written(budget, 1001, 10)
    assert full.overflowed
    looks = 0
    fraction = Budget._fraction

    def counted(self: Budget, held: HeldNamespace) -> float:
        nonlocal looks
        looks += 1
        return fraction(self, held)

    monkeypatch.setattr(Budget, "_fraction", counted)
    usage = budget.usage()
    assert {one.namespace for one in usage.namespaces} == {"n1000", "n1001"}
    assert looks <= 4
    near.evict(7, 100)
    budget.changed(near)
    budget.forget(full)
    assert budget.usage().namespaces == ()
    for held in helds:
        budget.forget(held)
    near.evict(7, 100)
    budget.forget(near)
    assert budget.size_bytes == 0
