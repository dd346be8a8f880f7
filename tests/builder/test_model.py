"""Random histories against a dict: flushes, compactions and kills in between.

At stake: an acknowledged write that is lost, a deleted record that comes back, a count that lies.
"""

import random
from dataclasses import replace

import numpy as np
import pytest

from builder.builder import IndexBuilder
from builder.compaction.run_policy import deepest
from builder.policy import plan
from core.filters.model import Filter
from core.filters.parse import parse_filter
from core.indexes import IndexInfo
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
from tests.builder.world import COSINE, DENSE, DIMENSION, SMALL, SPARSE, World

INDEXES = [DENSE, COSINE, SPARSE]
COLORS = ["red", "green", "blue"]


class History:
    """Draws operations over few ids, so that they meet each other often."""

    def __init__(self, seed: int, ids: int = 120) -> None:
        self.random = random.Random(seed)
        self.ids = [f"r{number}" for number in range(ids)]

    def operation(self, info: IndexInfo) -> Operation:
        draw = self.random.random()
        if draw < 0.5:
            names = self.random.sample(self.ids, self.random.randint(1, 25))
            return Upsert(tuple(self._record(name, info) for name in names))
        if draw < 0.7:
            return DeleteIds(tuple(self.random.sample(self.ids, self.random.randint(1, 12))))
        if draw < 0.85:
            values = self._vector() if info.dimension and self.random.random() < 0.5 else None
            patch: Metadata = {"size": float(self.random.randint(0, 9))}
            return UpdateById(self.random.choice(self.ids), values=values, set_metadata=patch)
        if draw < 0.92:
            return UpdateByFilter(self._filter(), {"color": self.random.choice(COLORS)})
        if draw < 0.97:
            return DeleteByFilter(self._filter())
        rest: list[Operation] = [DeleteAll(), DeleteNamespace(), self._creation()]
        return self.random.choice(rest)

    def _creation(self) -> Operation:
        return CreateNamespace(self.random.choice([None, (), ("color",), ("size", "color")]))

    def _record(self, name: str, info: IndexInfo) -> Record:
        color = self.random.choice(COLORS)
        size = float(self.random.randint(0, 9))
        sparse = None
        if info.dimension is None:
            indices = np.array(sorted(self.random.sample(range(50), 3)), dtype=np.uint32)
            sparse = SparseValues(indices, np.array([1.0, 0.5, 2.0], dtype=np.float32))
        values = self._vector() if info.dimension else None
        return Record(name, values, sparse, {"color": color, "size": size})

    def _vector(self) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
        draws = [self.random.gauss(0.0, 1.0) for _ in range(DIMENSION)]
        return np.array(draws, dtype=np.float32)

    def _filter(self) -> Filter:
        color, size = self.random.choice(COLORS), float(self.random.randint(7, 9))
        return parse_filter({"color": color, "size": {"$gte": size}})


async def drop(builder: IndexBuilder) -> None:
    """As good as a kill: nothing is written any more, what was in memory is gone."""
    await builder.revoke([0], lost=True)


@pytest.mark.parametrize("info", INDEXES, ids=lambda info: info.index_id)
@pytest.mark.parametrize("fold_bytes", [1 << 28, 12_000], ids=["one delta", "spilling"])
@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(n, marks=pytest.mark.long) for n in range(2, 40))]
)
async def test_any_history(world: World, info: IndexInfo, seed: int, fold_bytes: int) -> None:
    inline_bytes = 3_000 * (seed % 2)  # some 20 records: namespaces grow beyond it and come back
    world.settings = replace(world.settings, fold_bytes=fold_bytes, inline_bytes=inline_bytes)
    history = History(seed)
    builder = world.builder()
    await builder.assign(0)
    for _ in range(60):
        operations = [history.operation(info) for _ in range(history.random.randint(1, 3))]
        ns = history.random.choice(["n", "m"])
        await world.write(*operations, index=info.index_id, ns=ns)
        draw = history.random.random()
        if draw < 0.6:
            await world.feed_all(builder)
            await builder.flush()
            await world.check()
        if 0.4 < draw < 0.7:
            await builder.compact()
            await at_rest(world)
        elif draw > 0.9:
            await drop(builder)
            builder = world.builder()
            await builder.assign(0)
    await world.feed_all(builder)
    await builder.flush()
    await world.check()


async def at_rest(world: World) -> None:
    """Bounds hold once compaction has nothing more to do."""
    for index, ns in world.truth:
        manifest = await world.manifest(index, ns)
        if manifest is not None and not manifest.deleted:
            assert plan(manifest, SMALL) is None
            assert sum(file.is_delta for file in manifest.files) <= SMALL.deltas
            assert len(deepest(manifest.id_runs)) <= SMALL.id_runs.overlap
            row_bytes = manifest.dimension * 4
            for file in manifest.files:
                assert row_bytes * file.live <= SMALL.split_bytes or file.is_delta
