"""A whole clustering beside writes and compactions: whatever moves meanwhile, every record is live
in one place, in its newest version.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import numpy as np
import pytest

from builder.builder import IndexBuilder
from builder.chain import ManifestChain
from builder.compaction.cluster import nearest
from builder.compaction.recluster import Reclustered, ReclusterProgress, recluster
from builder.policy import plan
from core.errors import FailedPrecondition, NotFound
from core.operations import DeleteIds, DeleteNamespace, Upsert
from core.records import Record
from storage.commit import ManifestStore
from storage.manifest import Manifest
from storage.namespace import NamespaceReader
from storage.sections import Limits
from tests.builder.world import DENSE, SMALL, SPARSE, World, upsert

Meanwhile = Callable[[], Awaitable[None]]


class Interrupted:
    """A chain in which something happens just before an answer: at the second question for the
    newest manifest (the work is done), and before the first commit (which then meets a conflict).
    """

    def __init__(self, inner: ManifestChain, meanwhile: Meanwhile) -> None:
        self._inner = inner
        self._meanwhile = meanwhile
        self.questions = 0
        self.commits = 0

    async def newest(
        self, index_id: str, namespace: str, at_least: int | None = None
    ) -> Manifest | None:
        self.questions += 1
        if self.questions == 2:
            await self._meanwhile()
        return await self._inner.newest(index_id, namespace, at_least)

    async def outline(self, index_id: str, namespace: str) -> Manifest | None:
        return await self._inner.outline(index_id, namespace)

    async def commit(self, manifest: Manifest) -> Manifest:
        self.commits += 1
        if self.commits == 1:
            await self._meanwhile()
        return await self._inner.commit(manifest)


async def filled(world: World) -> IndexBuilder:
    """300 records in clusters, 30 of them written again since, 20 deleted."""
    builder = world.builder()
    await builder.assign(0)
    for start in range(0, 300, 50):
        await world.write(upsert(*(f"r{n}" for n in range(start, start + 50)), color="red"))
        await world.feed_all(builder)
        await builder.flush()
    await builder.compact()
    await world.write(upsert(*(f"r{n}" for n in range(0, 300, 10)), seed=2.0))
    await world.write(DeleteIds(tuple(f"r{n}" for n in range(5, 300, 15))))
    await world.feed_all(builder)
    await builder.flush()
    return builder


async def run(world: World, meanwhile: Meanwhile | None = None) -> Reclustered:
    parts = world.parts()
    if meanwhile is not None:
        parts = replace(parts, manifests=Interrupted(parts.manifests, meanwhile))
    (done,) = await recluster(parts, DENSE, "n", settings=world.settings)
    return done


async def newest(world: World) -> Manifest:
    manifest = await world.manifest()
    assert manifest is not None
    return manifest


async def test_a_manifest_in_sections_is_read_whole(world: World) -> None:
    limits = Limits(flat_bytes=2_000, root_bytes=1_000, section_bytes=2_000)
    world.manifests = ManifestStore(world.store, limits=limits)
    await filled(world)
    assert (await newest(world)).sections
    done = await run(world)
    assert done.clusters == len((await newest(world)).files) > 1
    await world.check()


async def test_all_rows_are_in_the_cluster_of_their_nearest_centroid(world: World) -> None:
    builder = await filled(world)
    seen: list[ReclusterProgress] = []
    (done,) = await recluster(
        world.parts(), DENSE, None, settings=world.settings, progress=seen.append
    )
    await world.check()
    manifest = await newest(world)
    assert done == Reclustered("n", manifest.version, manifest.record_count, len(manifest.files))
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert seen[-1].done == seen[-1].total == 2 * manifest.record_count
    assert all(not file.is_delta for file in manifest.files)
    assert all(file.live == file.rows for file in manifest.files)
    assert sorted(file.cluster for file in manifest.files) == list(range(len(manifest.files)))
    reader = NamespaceReader(world.cache, manifest)
    at_home = 0
    for place, file in enumerate(manifest.files):
        vectors = (await reader.live(place)).vectors
        assert vectors is not None
        assert file.live * 16 <= SMALL.split_bytes
        centroids = manifest.centroid_matrix()
        at_home += int(np.count_nonzero(nearest(vectors, centroids, DENSE.metric) == file.cluster))
    # k-means' last step moves the centroids by a little
    assert at_home > 0.9 * manifest.record_count
    await builder.compact()
    await world.check()


async def test_what_is_written_and_compacted_meanwhile_stays(world: World) -> None:
    """Twice: flushes overwrite, delete and add; folds carry untouched rows into new files."""
    builder = await filled(world)
    rounds = iter((3.0, 4.0))

    async def meanwhile() -> None:
        seed = next(rounds)
        await world.write(upsert(*(f"r{n}" for n in range(0, 300, 7)), seed=seed))
        await world.write(DeleteIds(tuple(f"r{n}" for n in range(int(seed), 300, 11))))
        await world.write(upsert(*(f"new{n}" for n in range(40)), seed=seed))
        await world.feed_all(builder)
        await builder.flush()
        before = {file.uuid for file in (await newest(world)).files}
        await builder.compact()
        assert before - {file.uuid for file in (await newest(world)).files}, "files went"

    done = await run(world, meanwhile)
    await world.check()
    manifest = await newest(world)
    assert done.version == manifest.version
    clustered = sum(file.live for file in manifest.files if file.cluster >= 0)
    assert clustered > 150, "rows that only moved are adopted"
    await world.write(upsert("last"))
    await world.feed_all(builder)
    await builder.flush()
    await builder.compact()
    await world.check()
    assert plan(await newest(world), SMALL) is None


async def test_ids_with_one_hash_are_told_apart_by_name(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if every id had the same hash: then every version of one LSN looks alike."""

    def all_alike(ids: list[str]) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
        return np.zeros(len(ids), dtype=np.uint64)

    builder = await filled(world)
    monkeypatch.setattr("builder.compaction.recluster.id_hashes", all_alike)
    monkeypatch.setattr("storage.file_reader.id_hashes", all_alike)

    async def meanwhile() -> None:
        await world.write(DeleteIds(tuple(f"r{n}" for n in range(1, 300, 2))))
        await world.feed_all(builder)
        await builder.flush()
        await builder.compact()

    await run(world, meanwhile)
    monkeypatch.undo()
    await world.cache.close()
    await world.check()


async def test_one_vector_many_times(world: World) -> None:
    """More equal rows than one cluster holds are divided all the same, in parts of one job."""
    builder = world.builder()
    await builder.assign(0)
    same = np.ones(4, dtype=np.float32)
    for start in range(0, 250, 50):
        names = (f"r{n}" for n in range(start, start + 50))
        await world.write(Upsert(tuple(Record(name, same, None, {}) for name in names)))
        await world.feed_all(builder)
        await builder.flush()
    await run(world)
    await world.check()
    manifest = await newest(world)
    assert all(file.live * 16 <= SMALL.split_bytes for file in manifest.files)
    assert len({file.cluster for file in manifest.files}) == len(manifest.files)


async def test_a_namespace_that_is_deleted_meanwhile_stays_deleted(world: World) -> None:
    builder = await filled(world)

    async def meanwhile() -> None:
        await world.write(DeleteNamespace())
        await world.feed_all(builder)
        await builder.flush()

    with pytest.raises(NotFound, match="deleted meanwhile"):
        await run(world, meanwhile)
    await world.check()


async def test_small_namespaces_and_sparse_indexes_have_no_clusters(world: World) -> None:
    builder = world.builder()
    await builder.assign(0)
    await world.write(upsert("r1", "r2"))
    await world.feed_all(builder)
    await builder.flush()
    before = await newest(world)
    done = await run(world)
    assert done.clusters == 0
    assert await newest(world) == before
    with pytest.raises(FailedPrecondition, match="sparse"):
        await recluster(world.parts(), SPARSE)
    with pytest.raises(NotFound, match="no namespace"):
        await recluster(world.parts(), DENSE, "nobody")
