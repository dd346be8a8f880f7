"""Compaction beside flushes: rows move, nothing is lost, and what died meanwhile stays dead."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from builder.builder import IndexBuilder
from builder.chain import Target
from builder.compaction.cluster import nearest, occupied
from builder.compaction.compact import Batch, Rewriting, RowNumbers, commit_rewrite, execute
from builder.compaction.run_policy import CoverFiles, MergeRuns
from builder.compaction.successor import Rewrite
from builder.policy import (
    Compaction,
    CompactionLimits,
    FirstClustering,
    FoldClusters,
    FoldFiles,
    MergeClusters,
    MergeDeltas,
    plan,
)
from core.operations import CreateNamespace, DeleteAll, DeleteIds, DeleteNamespace
from storage.groups import UNGROUPED, group_live, groups_of
from storage.layout import NamespaceSchema
from storage.manifest import Manifest
from storage.namespace import NamespaceReader
from tests.builder.world import DENSE, SMALL, World, upsert

SCHEMA = NamespaceSchema("dense", "n", DENSE.metric, DENSE.dimension)


class Race:
    """A compaction that is carried out while the builder goes on, and committed afterwards."""

    def __init__(self, world: World, builder: IndexBuilder) -> None:
        self.world = world
        self.builder = builder
        self.shop = world.parts().workshop(world.settings)

    async def begin(self, job: Compaction, limits: CompactionLimits = SMALL) -> Rewrite:
        return await execute(self.shop, SCHEMA, await self.newest(), job, limits)

    async def end(self, rewrite: Rewrite) -> Manifest | None:
        target = Target(SCHEMA, owner_epoch=1)
        return await commit_rewrite(self.shop, target, await self.newest(), rewrite)

    async def newest(self) -> Manifest:
        manifest = await self.world.manifest()
        assert manifest is not None
        return manifest

    async def flush(self) -> None:
        await self.world.feed_all(self.builder)
        await self.builder.flush()


async def filled(world: World, *, clustered: bool) -> Race:
    """100 records in 5 deltas, or in clusters with 3 deltas beside them."""
    builder = world.builder()
    await builder.assign(0)
    race = Race(world, builder)
    for start in range(0, 100, 20):
        await world.write(upsert(*(f"r{n}" for n in range(start, start + 20))))
        await race.flush()
    if clustered:
        await builder.compact()
        for start in range(0, 30, 10):
            await world.write(upsert(*(f"r{n}" for n in range(start, start + 10)), seed=2.0))
            await race.flush()
    return race


def everything(manifest: Manifest) -> tuple[str, ...]:
    return tuple(file.uuid for file in manifest.files)


def deltas(manifest: Manifest) -> tuple[str, ...]:
    return tuple(file.uuid for file in manifest.files if file.is_delta)


def smallest(manifest: Manifest) -> int:
    """The cluster whose file has the fewest live rows."""
    return min((f for f in manifest.files if f.cluster >= 0), key=lambda f: f.live).cluster


# Rows of 16 bytes: clusters of more than 10 are split.
TIGHT = replace(SMALL, cluster_bytes=80, split_bytes=160)


def limits_of(name: str) -> CompactionLimits:
    """Under which the job of that name is carried out."""
    return TIGHT if name == "split clusters" else SMALL


JOBS: dict[str, tuple[bool, Callable[[Manifest], Compaction]]] = {
    "fold files": (False, lambda m: FoldFiles(everything(m))),
    "fold some files": (False, lambda m: FoldFiles(deltas(m)[:3])),
    "cluster": (False, lambda m: FirstClustering(5, everything(m))),
    "find centroids": (False, lambda m: FirstClustering(5, ())),
    "cluster again": (True, lambda m: FirstClustering(3, everything(m))),
    "split clusters": (True, lambda m: FoldClusters((1, 3))),
    "merge clusters": (True, lambda m: MergeClusters((smallest(m),))),
    "group a delta": (True, lambda m: MergeDeltas(deltas(m)[:1])),
    "uncluster": (True, lambda m: FoldFiles(everything(m))),
    "fold clusters": (True, lambda m: FoldClusters((0, 2))),
    "merge deltas": (False, lambda m: MergeDeltas(deltas(m)[:3])),
    "merge grouped deltas": (True, lambda m: MergeDeltas(deltas(m)[:2])),
    "cover files": (True, lambda m: CoverFiles(everything(m))),  # twice, as a race might
    "merge runs": (True, lambda m: MergeRuns((tuple(r.object.name for r in m.id_runs[:2]),))),
}


@pytest.mark.parametrize("name", JOBS)
async def test_rows_that_die_during_a_job_are_dead_in_its_files(world: World, name: str) -> None:
    """Overwritten, deleted, deleted and written again, between the job's reading and its commit."""
    clustered, job = JOBS[name]
    race = await filled(world, clustered=clustered)
    rewrite = await race.begin(job(await race.newest()), limits_of(name))
    await world.write(upsert(*(f"r{n}" for n in range(0, 100, 7)), seed=3.0))
    await race.flush()
    await world.write(DeleteIds(tuple(f"r{n}" for n in range(0, 100, 5))), upsert("r50", "new"))
    await race.flush()
    assert await race.end(rewrite) is not None
    await world.check()
    # The builder meets the conflict and goes on.
    await world.write(DeleteIds(tuple(f"r{n}" for n in range(0, 100, 3))), upsert("r3", seed=4.0))
    await race.flush()
    await world.check()
    await race.builder.compact()
    await world.check()


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("end", ["delete all", "delete", "new life"])
async def test_a_job_over_a_life_that_ended_is_dropped(world: World, name: str, end: str) -> None:
    clustered, job = JOBS[name]
    race = await filled(world, clustered=clustered)
    rewrite = await race.begin(job(await race.newest()), limits_of(name))
    await world.write(DeleteAll() if end == "delete all" else DeleteNamespace())
    if end == "new life":
        await world.write(CreateNamespace(), upsert("r1"))
    await race.flush()
    before = await race.newest()
    assert await race.end(rewrite) is None
    assert await race.newest() == before
    await world.check()


async def test_of_two_jobs_over_the_same_files_the_later_is_dropped(world: World) -> None:
    race = await filled(world, clustered=True)
    one = await race.begin(FirstClustering(3, everything(await race.newest())))
    two = await race.begin(FoldClusters((1,)))
    assert await race.end(two) is not None
    assert await race.end(one) is None
    await world.check()


async def test_a_flush_beside_a_clustering_is_not_grouped_by_centroids_that_are_gone(
    world: World,
) -> None:
    """Its rows belong to no group of the new centroids, so every probe has to look at them."""
    race = await filled(world, clustered=True)
    rewrite = await race.begin(FirstClustering(3, everything(await race.newest())))
    await world.write(upsert("late1", "late2"))
    await race.flush()
    assert (await race.newest()).files[-1].groups
    manifest = await race.end(rewrite)
    assert manifest is not None
    assert [file.groups for file in manifest.files if file.is_delta] == [()]
    await world.check()


async def test_after_a_merge_the_number_is_vacant_and_a_split_takes_it(world: World) -> None:
    """The merged rows lie by their nearest centroid of the others; a flush that ran meanwhile put
    rows under the number that is gone, and every probe looks at those.
    """
    race = await filled(world, clustered=True)
    before = await race.newest()
    gone = before.files[0].cluster
    rewrite = await race.begin(MergeClusters((gone,)))
    near = upsert("late")
    assert near.records[0].values is not None
    near.records[0].values[:] = before.centroid_matrix()[gone]
    await world.write(near)
    await race.flush()
    assert (await race.newest()).files[-1].groups == ((gone, 0),)
    merged = await race.end(rewrite)
    assert merged is not None
    assert gone not in occupied(merged.centroid_matrix())
    assert gone not in {n for file in merged.files for n, _, _ in groups_of(file)}
    assert sum(group_live(file).get(UNGROUPED, 0) for file in merged.files) == 1
    await world.check()
    split = await race.begin(FoldClusters((merged.files[0].cluster,)), TIGHT)
    after = await race.end(split)
    assert after is not None
    assert gone in {file.cluster for file in after.files}
    assert gone in occupied(after.centroid_matrix())
    await world.check()
    await race.builder.compact()
    await world.check()


async def test_few_clusters_are_left_when_most_records_are_gone(world: World) -> None:
    """One by one they are merged, without a new clustering; at last it is one file again."""
    race = await filled(world, clustered=True)
    await race.builder.compact()
    clusters = len((await race.newest()).centroid_matrix())
    for keep in (3, 12):
        await world.write(DeleteIds(tuple(f"r{n}" for n in range(100) if n % keep)))
        await race.flush()
        await race.builder.compact()
        await world.check()
        after = await race.newest()
        assert plan(after, SMALL) is None
    assert clusters >= 4
    assert after.centroids == b""
    assert len(after.files) == 1


async def test_clusters_hold_what_is_near_them(world: World) -> None:
    """Every delta group lies by its nearest centroid, every cluster's rows within its radius."""
    race = await filled(world, clustered=True)
    manifest = await race.newest()
    centroids = manifest.centroid_matrix()
    assert len(centroids) >= 5
    reader = NamespaceReader(world.cache, manifest)
    for place, file in enumerate(manifest.files):
        opened = await reader.file(place)
        vectors = opened.take(np.arange(file.rows)).vectors
        assert vectors is not None
        if file.is_delta:
            ends = [first for _, first in file.groups[1:]] + [file.rows]
            for (number, first), end in zip(file.groups, ends, strict=True):
                assert set(nearest(vectors[first:end], centroids, DENSE.metric)) == {number}
        else:
            distances = np.linalg.norm(vectors - centroids[file.cluster], axis=1)
            assert distances.max() <= file.radius * 1.0001


async def test_a_cluster_that_grows_too_big_is_split(world: World) -> None:
    """All new rows fall into one cluster; the others keep their files."""
    race = await filled(world, clustered=True)
    before = await race.newest()
    for start in range(0, 60, 20):
        near = upsert(*(f"near{n}" for n in range(start, start + 20)), seed=9.0)
        for record in near.records:
            assert record.values is not None
            record.values[:] = before.centroid_matrix()[0] + record.values * 0.01
        await world.write(near)
        await race.flush()
    await race.builder.compact()
    after = await race.newest()
    assert plan(after, SMALL) is None
    assert len(after.centroid_matrix()) > len(before.centroid_matrix())
    assert all(file.live * 16 <= SMALL.split_bytes for file in after.files if not file.is_delta)
    kept = {file.uuid for file in before.files} & {file.uuid for file in after.files}
    assert kept, "clusters that did not change are not rewritten"
    await world.check()


async def test_a_cluster_with_a_backlog_is_folded_in_parts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 300 rows that wait for one cluster, no job holds more than the 100 of `job_bytes`."""
    race = await filled(world, clustered=True)
    await race.builder.compact()
    centroid = (await race.newest()).centroid_matrix()[0]
    for start in range(0, 300, 60):
        near = upsert(*(f"near{n}" for n in range(start, start + 60)), seed=9.0)
        for record in near.records:
            assert record.values is not None
            record.values[:] = centroid + record.values * 0.01
        await world.write(near)
        await race.flush()
    held: list[int] = []
    gather = Rewriting.gather

    async def counted(work: Rewriting, picks: list[tuple[int, RowNumbers]]) -> Batch | None:
        held.append(sum(len(rows) for _, rows in picks))
        return await gather(work, picks)

    monkeypatch.setattr(Rewriting, "gather", counted)
    await race.builder.compact()
    assert max(held) == SMALL.job_bytes // 16
    assert plan(await race.newest(), SMALL) is None
    await world.check()


async def test_nothing_is_written_twice_for_a_namespace_at_rest(world: World) -> None:
    race = await filled(world, clustered=True)
    await race.builder.compact()
    before = await race.newest()
    await race.builder.compact()
    assert await race.newest() == before
