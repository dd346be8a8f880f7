"""Carrying out a compaction: rows copied into new files, then a commit on whatever is newest.

Nothing is locked while files are read and written; rows that die meanwhile are dead in the new
files as well.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from builder.chain import (
    Target,
    Workshop,
    blank,
    check_log,
    committed_as,
    uninterrupted,
    were_collected,
)
from builder.cluster import cluster
from builder.grouping import Groups, group_order
from builder.policy import (
    Compaction,
    CompactionLimits,
    FoldClusters,
    FoldFiles,
    MergeDeltas,
    MergeRuns,
    Recluster,
    clusters_of,
)
from builder.successor import Moved, Rewrite, after_rewrite
from core.errors import Unavailable
from core.metric import F32
from storage.checksum import IdHashes, id_hashes
from storage.cluster_file import write_cluster
from storage.commit import ManifestConflict
from storage.delta_file import write_delta
from storage.encoded_file import EncodedFile, EncodedObject, put_objects
from storage.id_run import merge_runs, write_run
from storage.layout import NamespaceSchema
from storage.manifest import DataFile, IdRun, Manifest
from storage.namespace import NamespaceReader
from storage.references import objects_of
from storage.rows import Rows

RowNumbers = npt.NDArray[np.int64]
# A flush commits every second at most and a commit takes far less.
CONFLICTS_MAX = 16


async def execute(
    shop: Workshop,
    schema: NamespaceSchema,
    snapshot: Manifest,
    job: Compaction,
    limits: CompactionLimits,
) -> Rewrite:
    """Write the job's files; nobody sees them before `commit_rewrite`."""
    work = _Rewriting(shop, schema, snapshot, limits)
    match job:
        case FoldFiles(files=files):
            await work.fold_files(files)
        case Recluster(clusters=clusters, files=files):
            await work.recluster(clusters, files)
        case FoldClusters(clusters=numbers):
            for number in numbers:
                await work.fold_cluster(number)
        case MergeDeltas(files=files):
            await work.merge_deltas(files)
        case MergeRuns(runs=runs):
            return await work.merge_runs(runs)
    return await work.finish()


async def commit_rewrite(
    shop: Workshop, target: Target, newest: Manifest, rewrite: Rewrite
) -> Manifest | None:
    """Commit on top of `newest`, the newest manifest known; the committed one.

    None: the rewrite's input is gone, or its own files by garbage collection; the work is dropped.
    The caller serialises the namespace's
    commits.
    """
    for _ in range(CONFLICTS_MAX):
        check_log(shop, newest)
        merged = after_rewrite(newest, rewrite)
        if merged is None or await _collected(shop, target, newest, rewrite):
            return None
        following = committed_as(merged, blank(shop, target, newest))
        try:
            following = await uninterrupted(shop.chain.commit(following))
        except ManifestConflict as conflict:
            newest = conflict.newest
            continue
        return following
    raise Unavailable(f"{CONFLICTS_MAX} other commits came first, again and again")


async def _collected(shop: Workshop, target: Target, newest: Manifest, rewrite: Rewrite) -> bool:
    names = {ref.name for _, ref in objects_of(rewrite.outputs, rewrite.runs)}
    return await were_collected(shop, target.schema.prefix, names, rewrite.boundary, newest)


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """n rows copied from some files.

    places: int64 (n,), the place in the manifest of the file that each is of; numbers: int64 (n,),
    its row there.
    """

    rows: Rows
    places: RowNumbers
    numbers: RowNumbers


@dataclass(slots=True, eq=False)
class _Rewriting:
    """Collects outputs and where each row went."""

    shop: Workshop
    schema: NamespaceSchema
    snapshot: Manifest
    limits: CompactionLimits
    reader: NamespaceReader = field(init=False)
    centroids: F32 = field(init=False)
    reclustered: bool = False
    outputs: list[DataFile] = field(default_factory=list)
    ids: list[tuple[str, IdHashes]] = field(default_factory=list)
    moves: dict[int, list[tuple[RowNumbers, int, RowNumbers]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reader = NamespaceReader(self.shop.cache, self.snapshot)
        self.centroids = self.snapshot.centroid_matrix()

    async def fold_files(self, uuids: Sequence[str]) -> None:
        batch = await self._gather(self._live_of(uuids))
        if batch is None:
            return
        total = len(batch.rows)
        size = total if self.schema.dimension else self.limits.sparse_file_rows
        for start in range(0, total, size):
            rows = np.arange(start, min(start + size, total), dtype=np.int64)
            await self._write_cluster(batch, rows, -1, None)
        if len(uuids) == len(self.snapshot.files):
            self.centroids, self.reclustered = self.centroids[:0], True

    async def recluster(self, clusters: int, uuids: Sequence[str]) -> None:
        batch = await self._gather(self._live_of(uuids))
        if batch is None:
            return
        vectors = _vectors(batch.rows)
        made = await asyncio.to_thread(
            cluster, vectors, self.schema.metric, clusters, self._rows_max(vectors)
        )
        self.centroids, self.reclustered = made.centroids, True
        for number, members in enumerate(made.members):
            await self._write_cluster(batch, members, number, made.centroids[number])

    async def fold_cluster(self, number: int) -> None:
        """The cluster's file and its groups in deltas, into one file or as many as it takes."""
        picks: list[tuple[int, RowNumbers]] = []
        for place, file in enumerate(self.snapshot.files):
            live = self.reader.live_rows(place)
            if file.is_delta:
                live = _within(live, _group_range(file, number))
            elif file.cluster != number:
                continue
            picks.append((place, live))
        batch = await self._gather(picks)
        if batch is None:
            return
        vectors = _vectors(batch.rows)
        clusters = clusters_of(vectors.nbytes, self.limits)
        if clusters == 1:
            everything = np.arange(len(vectors), dtype=np.int64)
            await self._write_cluster(batch, everything, number, self.centroids[number])
            return
        made = await asyncio.to_thread(
            cluster, vectors, self.schema.metric, clusters, self._rows_max(vectors)
        )
        # The first part takes the old centroid's place, so that no other cluster is renumbered.
        places = [number, *range(len(self.centroids), len(self.centroids) + len(made.members) - 1)]
        self.centroids = np.concatenate([self.centroids, made.centroids[1:]])
        self.centroids[number] = made.centroids[0]
        for place, members in zip(places, made.members, strict=True):
            await self._write_cluster(batch, members, place, self.centroids[place])

    async def merge_deltas(self, uuids: Sequence[str]) -> None:
        batch = await self._gather(self._live_of(uuids))
        if batch is None:
            return
        encoded, order = await asyncio.to_thread(self._encode_delta, batch.rows)
        await self._add(batch, order, encoded)

    async def merge_runs(self, names: Sequence[str]) -> Rewrite:
        """Entries of dead rows and of files that are gone are left out."""
        runs = [run for run in self.snapshot.id_runs if run.object.name in names]
        opened = [await self.shop.cache.open_run(self.schema.prefix, run) for run in runs]
        files = {file.uuid: file for file in self.snapshot.files}
        merged = await asyncio.to_thread(merge_runs, opened, files)
        if merged is not None:
            await self._put((merged.object,))
        return self._rewrite(() if merged is None else (merged.run,), frozenset(names))

    async def finish(self) -> Rewrite:
        if not self.ids:
            return self._rewrite((), frozenset())
        run = await asyncio.to_thread(write_run, self.ids)
        await self._put((run.object,))
        return self._rewrite((run.run,), frozenset())

    def _rewrite(self, runs: tuple[IdRun, ...], replaced: frozenset[str]) -> Rewrite:
        files = self.snapshot.files
        return Rewrite(
            generation=self.snapshot.generation,
            boundary=self.snapshot.boundary,
            known=frozenset(file.uuid for file in files),
            moved=tuple(_moved(files[place].uuid, parts) for place, parts in self.moves.items()),
            outputs=tuple(self.outputs),
            runs=runs,
            replaced_runs=replaced,
            centroids_before=self.snapshot.centroids,
            centroids=self.centroids.astype("<f4").tobytes(),
            reclustered=self.reclustered,
        )

    def _live_of(self, uuids: Sequence[str]) -> list[tuple[int, RowNumbers]]:
        wanted = set(uuids)
        return [
            (place, self.reader.live_rows(place))
            for place, file in enumerate(self.snapshot.files)
            if file.uuid in wanted
        ]

    async def _gather(self, picks: Sequence[tuple[int, RowNumbers]]) -> _Batch | None:
        """Copies of those rows (place in the manifest, row numbers); None if there is none."""
        parts: list[Rows] = []
        places: list[RowNumbers] = []
        numbers: list[RowNumbers] = []
        for place, rows in picks:
            if len(rows):
                opened = await self.reader.file(place)
                parts.append(await asyncio.to_thread(opened.take, rows))
                places.append(np.full(len(rows), place, dtype=np.int64))
                numbers.append(rows)
        if not parts:
            return None
        rows_of_all = await asyncio.to_thread(Rows.concat, parts)
        return _Batch(rows_of_all, np.concatenate(places), np.concatenate(numbers))

    async def _write_cluster(
        self, batch: _Batch, members: RowNumbers, number: int, centroid: F32 | None
    ) -> None:
        encoded = await asyncio.to_thread(self._encode_cluster, batch, members, number, centroid)
        await self._add(batch, members, encoded)

    def _encode_cluster(
        self, batch: _Batch, members: RowNumbers, number: int, centroid: F32 | None
    ) -> EncodedFile:
        rows = batch.rows.take(members)
        return write_cluster(rows, self.schema, cluster=number, centroid=centroid)

    def _encode_delta(self, rows: Rows) -> tuple[EncodedFile, RowNumbers]:
        groups: Groups = ()
        order = np.arange(len(rows), dtype=np.int64)
        if rows.vectors is not None and len(self.centroids):
            order, groups = group_order(rows.vectors, self.centroids, self.schema.metric)
            rows = rows.take(order)
        return write_delta(rows, self.schema, groups=groups), order

    async def _add(self, batch: _Batch, members: RowNumbers, encoded: EncodedFile) -> None:
        """`members`: rows of the batch in the order in which the file has them."""
        await self._put(encoded.objects)
        output = len(self.outputs)
        self.outputs.append(encoded.file)
        ids = [batch.rows.ids[row] for row in members.tolist()]
        self.ids.append((encoded.file.uuid, await asyncio.to_thread(id_hashes, ids)))
        places, numbers = batch.places[members], batch.numbers[members]
        for place in np.unique(places).tolist():
            output_rows = np.flatnonzero(places == place).astype(np.int64)
            moved = (numbers[output_rows], output, output_rows)
            self.moves.setdefault(place, []).append(moved)

    async def _put(self, objects: tuple[EncodedObject, ...]) -> None:
        await put_objects(self.shop.store, self.schema.prefix, objects)
        self.shop.metrics.written_bytes.labels("compaction").inc(sum(len(o.data) for o in objects))

    def _rows_max(self, vectors: F32) -> int:
        row_bytes = int(vectors.shape[1]) * 4
        return max(1, self.limits.split_bytes // row_bytes)


def _vectors(rows: Rows) -> F32:
    assert rows.vectors is not None, "only dense namespaces are clustered"
    return rows.vectors


def _moved(uuid: str, parts: Sequence[tuple[RowNumbers, int, RowNumbers]]) -> Moved:
    rows = np.concatenate([rows for rows, _, _ in parts])
    outputs = np.concatenate([np.full(len(r), o, dtype=np.int32) for r, o, _ in parts])
    output_rows = np.concatenate([output_rows for _, _, output_rows in parts])
    order = np.argsort(rows)
    return Moved(uuid, rows[order], outputs[order], output_rows[order])


def _group_range(delta: DataFile, cluster_number: int) -> tuple[int, int]:
    """[first, end) of the cluster's group; empty if the delta has none."""
    starts = dict(delta.groups)
    first = starts.get(cluster_number)
    if first is None:
        return 0, 0
    return first, min((f for f in starts.values() if f > first), default=delta.rows)


def _within(rows: RowNumbers, bounds: tuple[int, int]) -> RowNumbers:
    start, end = np.searchsorted(rows, bounds)
    return rows[start:end]
