"""`firndb recluster`: all rows of a namespace into clusters found anew, from its files alone.

Compaction keeps clusters good in steady state, so this is for data that has changed its nature, and
for comparing. Reads, writes, flushes and compactions go on meanwhile: the commit adopts what moved.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from builder.chain import (
    Target,
    Workshop,
    blank,
    check_log,
    committed_as,
    event_of,
    uninterrupted,
    were_collected,
)
from builder.compaction.adopt import Versions, after_recluster
from builder.compaction.cluster import (
    SAMPLE_MAX,
    SAMPLE_PER_CLUSTER,
    center,
    cluster,
    nearest,
    train,
)
from builder.compaction.compact import Batch, Rewriting
from builder.compaction.successor import Moved, Rewrite
from builder.parts import BuilderParts
from builder.policy import CompactionLimits, clusters_of
from builder.rebuild import namespaces_of
from builder.settings import BuilderSettings
from core.errors import FailedPrecondition, Fenced, NotFound, Unavailable
from core.indexes import IndexInfo
from core.metric import F32
from storage.checksum import IdHashes, id_hashes
from storage.commit import ManifestConflict
from storage.layout import NamespaceSchema
from storage.manifest import Manifest
from storage.namespace import NamespaceReader
from storage.references import objects_of

RowNumbers = npt.NDArray[np.int64]
# The live builder commits about once a second, and each try takes far less.
COMMIT_ROUNDS = 100


@dataclass(frozen=True, slots=True)
class ReclusterProgress:
    """Of one namespace: each row is assigned to a centroid, then written."""

    namespace: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Reclustered:
    """One namespace. clusters: 0 where it fits in one file, so that nothing was done."""

    namespace: str
    version: int
    records: int
    clusters: int


async def recluster(
    parts: BuilderParts,
    index: IndexInfo,
    namespace: str | None = None,
    *,
    settings: BuilderSettings | None = None,
    progress: Callable[[ReclusterProgress], None] | None = None,
) -> tuple[Reclustered, ...]:
    """One namespace (canonical name), or all of the index.

    Memory: the rows of one job (`job_bytes` of vectors), and about 100 bytes for each record.
    `NotFound`: no such namespace; `FailedPrecondition`: a sparse index has no clusters, or garbage
    collection took the work.
    """
    if not index.state.living:
        raise NotFound(f"index {index.name} is {index.state.value}")
    if index.dimension is None:
        raise FailedPrecondition(f"index {index.name} is sparse: it has no clusters")
    settings = settings or BuilderSettings()
    done: list[Reclustered] = []
    for partition, outlines in sorted((await namespaces_of(parts, index, namespace)).items()):
        for name in (outline.namespace for outline in outlines):
            manifest = await parts.manifests.newest(index.index_id, name)
            if manifest is None or manifest.deleted:
                continue  # meanwhile
            schema = NamespaceSchema(index.index_id, name, index.metric, index.dimension)
            work = _Reclustering(
                parts, parts.workshop(settings), schema, manifest, settings.compaction, progress
            )
            committed, clusters = await work.run()
            if clusters:
                with suppress(Unavailable):  # news may be missed
                    await parts.feed.publish(event_of(committed, partition))
            done.append(Reclustered(name, committed.version, committed.record_count, clusters))
    return tuple(done)


@dataclass(slots=True, eq=False)
class _Reclustering:
    """One namespace, as `snapshot` has it. versions_of: hashes and LSNs of each output's rows."""

    parts: BuilderParts
    shop: Workshop
    schema: NamespaceSchema
    snapshot: Manifest
    limits: CompactionLimits
    progress: Callable[[ReclusterProgress], None] | None
    work: Rewriting = field(init=False)
    versions_of: list[tuple[IdHashes, RowNumbers]] = field(default_factory=list)
    copies: dict[str, Moved] = field(default_factory=dict)
    done: int = 0

    def __post_init__(self) -> None:
        self.work = Rewriting(self.shop, self.schema, self.snapshot, self.limits)

    async def run(self) -> tuple[Manifest, int]:
        """The manifest that has the work in it, and its number of clusters."""
        live_bytes = self.snapshot.record_count * self.snapshot.dimension * 4
        if live_bytes <= self.limits.split_bytes:
            return self.snapshot, 0
        clusters = clusters_of(live_bytes, self.limits)
        sample = await self.work.sample(min(clusters * SAMPLE_PER_CLUSTER, SAMPLE_MAX))
        centroids = await asyncio.to_thread(train, sample, self.schema.metric, clusters)
        assigned = await self._assign(centroids)
        for numbers in _jobs(assigned, len(self.work.centroids), self._rows_of_job()):
            await self._write(assigned, numbers)
        rewrite = await self.work.finish()
        return await self._commit(rewrite), len(self.work.outputs)

    async def _assign(self, centroids: F32) -> list[npt.NDArray[np.int32]]:
        """Of each file the cluster of each row, -1 for the dead; what is too small is dissolved."""
        assigned: list[npt.NDArray[np.int32]] = []
        for place, file in enumerate(self.snapshot.files):
            numbers = np.full(file.rows, -1, dtype=np.int32)
            live = self.work.reader.live_rows(place)
            numbers[live] = await self._nearest(place, live, centroids)
            assigned.append(numbers)
            self._show(len(live))
        sizes = _sizes(assigned, len(centroids))
        keep = sizes >= min(self.work.sizes.least, int(np.max(sizes)))
        kept = np.flatnonzero(keep)
        renumbered = np.full(len(centroids), -1, dtype=np.int32)
        renumbered[kept] = np.arange(len(kept), dtype=np.int32)
        for place, numbers in enumerate(assigned):
            lost = np.flatnonzero((numbers >= 0) & ~keep[numbers])
            numbers[numbers >= 0] = renumbered[numbers[numbers >= 0]]
            numbers[lost] = await self._nearest(place, lost, centroids[kept])
        self.work.centroids, self.work.reclustered = centroids[kept], True
        return assigned

    async def _nearest(self, place: int, rows: RowNumbers, centroids: F32) -> npt.NDArray[np.int32]:
        opened = await self.work.reader.file(place)
        assert opened.vectors is not None
        block = max(1, self._rows_of_job())
        parts = [
            await asyncio.to_thread(
                nearest, opened.vectors[rows[at : at + block]], centroids, self.schema.metric
            )
            for at in range(0, len(rows), block)
        ]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int32)

    async def _write(self, assigned: Sequence[npt.NDArray[np.int32]], numbers: RowNumbers) -> None:
        """The files of these clusters; a big one in parts of one job."""
        picks = [(p, np.flatnonzero(np.isin(n, numbers))) for p, n in enumerate(assigned)]
        for part in _bounded(picks, self._rows_of_job()):
            batch = await self.work.gather(part)
            if batch is None:
                continue
            of_rows = np.concatenate([assigned[place][rows] for place, rows in part])
            for number in np.unique(of_rows).tolist():
                await self._write_cluster(batch, np.flatnonzero(of_rows == number), number)
            self._show(len(batch.rows))

    async def _write_cluster(self, batch: Batch, members: RowNumbers, number: int) -> None:
        """In as many files as it takes, which are then clusters of their own."""
        vectors = batch.rows.vectors
        assert vectors is not None
        work, metric = self.work, self.schema.metric
        taken = number in {file.cluster for file in work.outputs}
        if len(members) <= work.sizes.most and not taken:
            middle = await asyncio.to_thread(center, vectors[members], metric)
            work.place_centroids([number], middle[None])
            await self._add(batch, members, number)
            return
        made = await asyncio.to_thread(
            cluster,
            *(
                vectors[members],
                metric,
                clusters_of(len(members) * vectors.shape[1] * 4, work.limits),
            ),
            *(work.sizes.most, work.sizes.least),
        )
        places = work.vacant(len(made.members) - 1 + taken)
        places = places if taken else [number, *places]
        work.place_centroids(places, made.centroids)
        for place, rows in zip(places, made.members, strict=True):
            await self._add(batch, members[rows], place)

    async def _add(self, batch: Batch, members: RowNumbers, number: int) -> None:
        ids = [batch.rows.ids[row] for row in members.tolist()]
        hashes = await asyncio.to_thread(id_hashes, ids)
        self.versions_of.append((hashes, batch.rows.lsns[members]))
        await self.work.write_cluster_file(batch, members, number)

    async def _commit(self, rewrite: Rewrite) -> Manifest:
        versions = await asyncio.to_thread(Versions, self.versions_of)
        names = {ref.name for _, ref in objects_of(rewrite.outputs, rewrite.runs)}
        for _ in range(COMMIT_ROUNDS):
            live = await self.parts.manifests.newest(self.schema.index_id, self.schema.namespace)
            if live is None or live.deleted or live.generation != self.snapshot.generation:
                raise NotFound(f"namespace {self.schema.namespace!r} was deleted meanwhile")
            check_log(self.parts, live)
            if await were_collected(self.shop, self.schema.prefix, names, rewrite.boundary, live):
                raise FailedPrecondition(
                    f"garbage collection took files of namespace {self.schema.namespace!r} before "
                    "they were named: set FIRNDB_GC_GRACE_S above what this takes, then try again"
                )
            merged = after_recluster(live, rewrite, await self._copies(live, versions))
            target = Target(self.schema, live.owner_epoch)
            following = committed_as(merged, blank(self.shop, target, live))
            try:
                return await uninterrupted(self.parts.manifests.commit(following))
            except (ManifestConflict, Fenced):
                continue  # the live builder was first, or has a new owner
        raise Unavailable(f"namespace {self.schema.namespace!r} changes too fast, try again later")

    async def _copies(self, live: Manifest, versions: Versions) -> list[Moved]:
        """What compactions of others have copied meanwhile; each file is looked into once."""
        read = {file.uuid for file in self.snapshot.files}
        reader = NamespaceReader(self.shop.cache, live)
        for place, file in enumerate(live.files):
            if file.uuid not in read and file.uuid not in self.copies:
                opened = await reader.file(place)
                rows = np.flatnonzero(opened.lsns <= self.snapshot.indexed_lsn)
                hashes = await asyncio.to_thread(opened.hashes.__getitem__, rows)
                found = await asyncio.to_thread(versions.find, hashes, opened.lsns[rows])
                self.copies[file.uuid] = await self._exact(file.uuid, opened.ids(rows), rows, found)
        return list(self.copies.values())

    async def _exact(
        self,
        uuid: str,
        ids: Sequence[str],
        rows: RowNumbers,
        found: tuple[RowNumbers, npt.NDArray[np.int32], RowNumbers],
    ) -> Moved:
        """Every version up to the snapshot is in the outputs, so only where two ids have one hash
        their names decide.
        """
        asked, outputs, output_rows = found
        twice = np.bincount(asked, minlength=len(rows))[asked] > 1
        keep = ~twice
        for at in np.flatnonzero(twice).tolist():
            file = self.work.outputs[int(outputs[at])]
            opened = await self.shop.cache.open(
                self.schema.prefix, file, self.schema.metric, self.schema.dimension
            )
            keep[at] = opened.id(int(output_rows[at])) == ids[int(asked[at])]
        return Moved(uuid, rows[asked[keep]], outputs[keep], output_rows[keep])

    def _rows_of_job(self) -> int:
        return max(1, self.limits.job_bytes // (self.snapshot.dimension * 4))

    def _show(self, rows: int) -> None:
        self.done += rows
        if self.progress is not None:
            name, total = self.schema.namespace, 2 * self.snapshot.record_count
            self.progress(ReclusterProgress(name, self.done, total))


def _sizes(assigned: Sequence[npt.NDArray[np.int32]], clusters: int) -> RowNumbers:
    """int64 (clusters,): the rows of each."""
    sizes = np.zeros(clusters, dtype=np.int64)
    for numbers in assigned:
        sizes += np.bincount(numbers[numbers >= 0], minlength=clusters)
    return sizes


def _jobs(
    assigned: Sequence[npt.NDArray[np.int32]], clusters: int, rows_max: int
) -> Iterator[RowNumbers]:
    """Numbers of clusters that have so many rows together, at least one at a time."""
    sizes = _sizes(assigned, clusters)
    job: list[int] = []
    room = rows_max
    for number, size in enumerate(sizes.tolist()):
        if job and size > room:
            yield np.array(job, dtype=np.int64)
            job, room = [], rows_max
        job.append(number)
        room -= size
    yield np.array(job, dtype=np.int64)


def _bounded(
    picks: Sequence[tuple[int, RowNumbers]], rows_max: int
) -> Iterator[list[tuple[int, RowNumbers]]]:
    """The same rows in the same order, at most `rows_max` at a time."""
    part: list[tuple[int, RowNumbers]] = []
    room = rows_max
    for place, rows in picks:
        while len(rows):
            part.append((place, rows[:room]))
            taken = len(part[-1][1])
            rows, room = rows[taken:], room - taken
            if not room:
                yield part
                part, room = [], rows_max
    if part:
        yield part
