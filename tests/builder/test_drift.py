"""Real embeddings come and go, and clusters that were only ever split, merged and repaired find as
much as clusters found anew: recall counted over equal numbers of probed rows.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.dataset import query_vectors, vectors
from builder.compaction.cluster import cluster
from builder.policy import CompactionLimits, FirstClustering, plan
from builder.settings import BuilderSettings
from core.metric import F32, Metric
from storage.groups import UNGROUPED
from tests.builder.drift import REAL, Clusters, Stream, clusters_of_manifest, recall
from tests.builder.world import World

# 64 rows a cluster are to 4,500 what 2,730 are to 190,000.
ROWS = 64
ROW_BYTES = 4 * 384
LIMITS = CompactionLimits(
    cluster_bytes=ROWS * ROW_BYTES, split_bytes=96 * ROW_BYTES, job_bytes=16 * ROWS * ROW_BYTES
)
# Of the live rows; recall@10 is about 0.95 then, which is where queries are.
PROBED = 0.4


def fresh(data: F32, live: list[int]) -> Clusters:
    """The same rows clustered as a whole, to the same sizes."""
    clusters, most, least = -(-len(live) // ROWS), 96, 24
    made = cluster(data[live], Metric.COSINE, clusters, most, least)
    members = {n: [live[row] for row in rows.tolist()] for n, rows in enumerate(made.members)}
    return Clusters(made.centroids, members)


async def compared(stream: Stream, data: F32, queries: F32) -> tuple[float, float]:
    """Recall of what compaction has made, and of a whole clustering."""
    now = await clusters_of_manifest(stream.world, await stream.manifest())
    rows = int(PROBED * len(stream.live))
    anew = fresh(data, sorted(stream.live))
    return recall(now, data, queries, rows), recall(anew, data, queries, rows)


def world_of(folder: Path) -> World:
    settings = BuilderSettings(compaction=LIMITS, tick_s=0.01)
    return World(folder, settings=settings)


CASES = [
    ("mixed", 1200, 4),
    pytest.param("mixed", 4500, 10, marks=pytest.mark.long),
    pytest.param("shifting", 4500, 10, marks=pytest.mark.long),
]


@pytest.mark.parametrize(("order", "size", "rounds"), CASES)
async def test_recall_does_not_drift(
    tmp_path: Path, order: str, size: int, rounds: int, record_property: Callable[..., None]
) -> None:
    """Each round a tenth of the records is replaced by others. shifting: package descriptions first
    and more and more glosses later, so that old centroids stand for less and less.
    """
    data, queries = vectors(), query_vectors()[::2]
    source = np.random.default_rng(3)
    rows = np.arange(len(data))
    rows = (
        np.concatenate([rows[::2], rows[1::2]]) if order == "shifting" else source.permutation(rows)
    )
    coming = rows.tolist()
    world = world_of(tmp_path)
    stream = Stream(world, data)
    await stream.builder.assign(0)
    flush = size // 10
    await stream.write(coming[:size], flush=flush)
    coming = coming[size:]
    for _ in range(rounds):
        gone = source.choice(sorted(stream.live), size // 10, replace=False).tolist()
        await stream.write(coming[: size // 10], flush=flush, gone=gone)
        coming = coming[size // 10 :] + gone
    assert plan(await stream.manifest(), LIMITS) is None
    found, anew = await compared(stream, data, queries)
    record_property("recall", round(found, 4))
    record_property("recall anew", round(anew, 4))
    assert found > anew - 0.01
    await world.close()


@pytest.mark.parametrize("size", [1600, pytest.param(6000, marks=pytest.mark.long)])
async def test_a_backlog_ends_well_clustered(
    tmp_path: Path, size: int, record_property: Callable[..., None]
) -> None:
    """All comes in deltas that no compaction sees, more than one job may hold: the centroids come
    from a sample of everything.
    """
    data, queries = vectors(), query_vectors()[::2]
    world = world_of(tmp_path)
    stream = Stream(world, data)
    await stream.builder.assign(0)
    for start in range(0, size, size // 10):
        await stream.flush_only(range(start, start + size // 10))
    first = plan(await stream.manifest(), LIMITS)
    assert isinstance(first, FirstClustering)
    assert first.files == ()
    await stream.builder.compact()
    manifest = await stream.manifest()
    now = await clusters_of_manifest(world, manifest)
    assert UNGROUPED not in now.members
    found, anew = await compared(stream, data, queries)
    record_property("recall", round(found, 4))
    record_property("recall anew", round(anew, 4))
    assert found > anew - 0.01
    assert manifest.index_id == REAL.index_id
    await world.close()
