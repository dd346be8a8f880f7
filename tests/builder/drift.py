"""Counted recall of a manifest's clusters: what an equal number of probed rows finds."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from builder.builder import IndexBuilder
from core.indexes import IndexInfo, IndexState, VectorType
from core.metric import F32, Metric, ranking
from core.operations import DeleteIds, Upsert
from core.records import Record
from storage.groups import UNGROUPED, groups_of
from storage.manifest import Manifest
from storage.namespace import NamespaceReader
from tests.builder.world import World

REAL = IndexInfo("real", "p", "real", 384, Metric.COSINE, VectorType.DENSE, IndexState.READY)


# One log entry holds no more ids.
ENTRY_MAX = 500


class Stream:
    """A builder that is fed real vectors; ids are row numbers of `vectors`."""

    def __init__(self, world: World, vectors: F32) -> None:
        world.directory.indexes[REAL.index_id] = REAL
        self.world = world
        self.vectors = vectors
        self.builder: IndexBuilder = world.builder()
        self.live: set[int] = set()

    async def write(self, rows: Sequence[int], *, flush: int, gone: Sequence[int] = ()) -> None:
        """Deletes `gone` and writes `rows`, `flush` of them at a time, compacted after each."""
        for start in range(0, len(gone), ENTRY_MAX):
            part = gone[start : start + ENTRY_MAX]
            await self._log(DeleteIds(tuple(f"r{row}" for row in part)))
        self.live -= set(gone)
        for start in range(0, len(rows), flush):
            await self.flush_only(rows[start : start + flush])
            await self.builder.compact()

    async def flush_only(self, rows: Sequence[int]) -> None:
        """One delta that no compaction sees yet."""
        for start in range(0, len(rows), ENTRY_MAX):
            part = rows[start : start + ENTRY_MAX]
            records = (Record(f"r{row}", self.vectors[row], None, {}) for row in part)
            await self._log(Upsert(tuple(records)))
        self.live |= set(rows)
        await self.builder.flush()

    async def manifest(self) -> Manifest:
        found = await self.world.manifest(REAL.index_id, "n")
        assert found is not None
        assert found.record_count == len(self.live)
        return found

    async def _log(self, operation: Upsert | DeleteIds) -> None:
        await self.world.write(operation, index=REAL.index_id)
        await self.world.feed_all(self.builder)


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """Row numbers of the data by cluster; those under `UNGROUPED` are always looked at."""

    centroids: F32
    members: dict[int, list[int]]


async def clusters_of_manifest(world: World, manifest: Manifest) -> Clusters:
    members: dict[int, list[int]] = defaultdict(list)
    reader = NamespaceReader(world.cache, manifest)
    for place, file in enumerate(manifest.files):
        ids = (await reader.file(place)).all_ids
        live = reader.live_mask(place)
        for number, first, end in groups_of(file):
            members[number] += [int(ids[row][1:]) for row in range(first, end) if live[row]]
    return Clusters(manifest.centroid_matrix(), members)


def recall(clusters: Clusters, vectors: F32, queries: F32, rows: int, k: int = 10) -> float:
    """recall@k where clusters are probed nearest first until `rows` are seen; the last cluster
    counts for the part that was needed, so that coarse clusters gain nothing.
    """
    live = np.array(sorted(r for part in clusters.members.values() for r in part))
    found = 0.0
    for query in queries:
        scores = vectors[live] @ query
        true = set(live[np.argpartition(-scores, k)[:k]].tolist())
        goodness = ranking(Metric.COSINE, clusters.centroids, query)
        order = [UNGROUPED, *np.argsort(-np.nan_to_num(goodness, nan=-np.inf)).tolist()]
        left = rows
        for number in order:
            members = clusters.members.get(number, [])
            share = min(1.0, left / max(len(members), 1))
            found += share * len(true.intersection(members)) / k
            left -= len(members)
            if left <= 0:
                break
    return found / len(queries)
