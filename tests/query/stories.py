"""Random stories of writes, flushes and restarts, each from one seed. Plain random choices with
weights reach the deep states (files, then patches and filter operations above them) far more often
than a shrinking generator does.
"""

import random
from collections.abc import Mapping

import numpy as np

from core.filters.model import Comparison, Condition, Filter, Not
from core.operations import (
    Attach,
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
from tests.query.world import World, terms

IDS = tuple("abcdefghij")
FILTERS: tuple[Filter, ...] = (
    Condition("g", Comparison.EQ, (0.0,)),
    Condition("g", Comparison.GTE, (1.0,)),
    Condition("t", Comparison.EQ, ("x",)),
    Condition("t", Comparison.NE, ("x",)),
    Not(Condition("g", Comparison.EXISTS, (True,))),
)
# A quarter of the steps builds; deletions of everything are rare, or nothing would ever be there.
STEPS = {
    "write": 60,
    "flush": 10,
    "past": 6,
    "quiet": 4,
    "checkpoint": 8,
    "forget": 6,
    "restart": 3,
    "attach": 8,
}
OPERATIONS = {
    "upsert": 45,
    "update": 20,
    "delete": 12,
    "filter": 12,
    "drop": 8,
    "clear": 2,
    "create": 1,
    "end": 1,
}
# Namespaces that come and go.
LIVES = {"upsert": 20, "delete": 10, "clear": 10, "create": 35, "end": 25}


class Story:
    """`sparse`: whether records may have sparse values; `dense`: whether they have dense ones."""

    def __init__(
        self,
        seed: int,
        *,
        dense: bool = True,
        sparse: bool = False,
        operations: Mapping[str, int] = OPERATIONS,
    ) -> None:
        self.random = random.Random(seed)
        self._operations = operations
        self._dense = dense
        self._sparse = sparse

    async def step(self, world: World, *, restarts: bool = True) -> str:
        """Does something to the namespace "n"; says what."""
        step = self._weighted(STEPS)
        if step == "restart" and not restarts:
            step = "forget"
        match step:
            case "write":
                ops = [self.operation() for _ in range(self.random.choice((1, 1, 1, 2, 3)))]
                await world.write(*ops)
                return f"write {ops}"
            case "flush":
                await world.flush()
            case "quiet":
                await world.flush(publish=False)
            case "past":
                end = await world.log.end_offset(world.partition())
                newest = await world.manifests.newest(world.index.index_id, "n")
                lowest = -1 if newest is None else newest.indexed_lsn
                await world.flush(lsn=self.random.randint(lowest, max(lowest, end - 1)))
            case "checkpoint":
                await world.checkpoint(world.partition())
            case "forget":
                await world.forget()
            case "attach":
                await self._attach(world)
            case _:
                await world.restart_freshness()
                await world.deliver()
        return step

    async def _attach(self, world: World) -> None:
        """Restored as it was; more may be written before a manifest tells of it."""
        named = Attach(world.index.index_id, "n", "0" * 32, "0" * 32)
        lsn = await world.write(DeleteNamespace(), named)
        if self._coin():
            await world.write(self.operation(), self.operation())
        await world.flush(lsn=self.random.choice((None, lsn)), publish=self._coin())
        if self._coin():
            await world.write(self.operation())
        # until a manifest covers all that was not held, reads would wait for it
        await world.flush(publish=self._coin())

    def operation(self) -> Operation:
        match self._weighted(self._operations):
            case "upsert":
                return Upsert(tuple(self.record() for _ in range(self.random.randint(1, 4))))
            case "update":
                values = self.vector() if self._dense and self.random.random() < 0.4 else None
                return UpdateById(self._id(), values, None, self.changes())
            case "delete":
                return DeleteIds((self._id(),))
            case "filter":
                return UpdateByFilter(self.random.choice(FILTERS), self.changes())
            case "drop":
                return DeleteByFilter(self.random.choice(FILTERS))
            case "clear":
                return DeleteAll()
            case "create":
                return CreateNamespace(self.random.choice((None, (), ("g",), ("t", "g"))))
            case _:
                return DeleteNamespace()

    def record(self) -> Record:
        values = self.vector() if self._dense else None
        sparse = self.sparse() if self._sparse and (not self._dense or self._coin()) else None
        return Record(self._id(), values, sparse, self.metadata())

    def vector(self) -> Vector:
        """Small integers: exact ties are frequent, and the order among them counts."""
        return np.array([self.random.randint(1, 4), self.random.randint(-3, 3)], dtype=np.float32)

    def sparse(self) -> SparseValues:
        chosen = self.random.sample(range(5), self.random.randint(1, 3))
        return terms({i: float(self.random.choice((-1, 1, 2))) for i in chosen})

    def metadata(self) -> Metadata:
        found: Metadata = {}
        if self._coin():
            found["g"] = float(self.random.randint(0, 2))
        if self._coin():
            found["t"] = self.random.choice(("x", "y"))
        return found

    def changes(self) -> Metadata:
        known: list[Metadata] = [{"g": 0.0}, {"g": 1.0, "t": "x"}, {"t": "y"}, {"g": 2.0}]
        return self.random.choice(known)

    def condition(self) -> Filter | None:
        return self.random.choice((None, None, *FILTERS))

    def _id(self) -> str:
        return self.random.choice(IDS)

    def _coin(self) -> bool:
        return self.random.random() < 0.5

    def _weighted(self, weights: Mapping[str, int]) -> str:
        return self.random.choices(list(weights), list(weights.values()))[0]
