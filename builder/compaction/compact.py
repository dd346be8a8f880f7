"""Carrying out a compaction: rows copied into new files, then a commit on whatever is newest.

Nothing is locked while files are read and written; rows that die meanwhile are dead in the new
files as well.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil

import msgspec
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
from builder.compaction.cluster import SAMPLE_PER_CLUSTER, SEED, cluster, occupied, train
from builder.compaction.grouping import Groups, group_order
from builder.compaction.reassign import Divided, Sizes, divide, movers, neighbours
from builder.compaction.run_policy import CoverFiles, MergeRuns
from builder.compaction.successor import Moved, Rewrite, after_rewrite
from builder.policy import (
    Compaction,
    CompactionLimits,
    FirstClustering,
    FoldClusters,
    FoldFiles,
    MergeClusters,
    MergeDeltas,
    clusters_of,
    sizes_of,
)
from core.errors import Unavailable
from core.metric import F32
from storage.cluster_file import write_cluster
from storage.commit import ManifestConflict
from storage.delta_file import write_delta
from storage.encoded_file import EncodedFile, EncodedObject, put_objects
from storage.file_reader import FileReader
from storage.groups import groups_of
from storage.id_run import EncodedRun, FileIds, merge_runs, write_runs
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
    work = Rewriting(shop, schema, snapshot, limits)
    match job:
        case FoldFiles(files=files):
            await work.fold_files(files)
        case FirstClustering(clusters=clusters, files=files):
            await work.first_clustering(clusters, files)
        case FoldClusters(clusters=numbers):
            await work.fold_clusters(numbers)
        case MergeClusters(clusters=numbers):
            await work.merge_clusters(numbers)
        case MergeDeltas(files=files):
            await work.merge_deltas(files)
        case MergeRuns(groups=groups):
            return await work.merge_runs(groups)
        case CoverFiles(files=files):
            return await work.cover_files(files)
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
class Batch:
    """n rows copied from some files.

    places: int64 (n,), the place in the manifest of the file that each is of; numbers: int64 (n,),
    its row there.
    """

    rows: Rows
    places: RowNumbers
    numbers: RowNumbers

    def take(self, rows: RowNumbers) -> "Batch":
        return Batch(self.rows.take(rows), self.places[rows], self.numbers[rows])


@dataclass(slots=True, eq=False)
class Rewriting:
    """Collects outputs and where each row went."""

    shop: Workshop
    schema: NamespaceSchema
    snapshot: Manifest
    limits: CompactionLimits
    reader: NamespaceReader = field(init=False)
    centroids: F32 = field(init=False)
    sizes: Sizes = field(init=False)
    reclustered: bool = False
    vacated: set[int] = field(default_factory=set)
    strays: list[Batch] = field(default_factory=list)
    outputs: list[DataFile] = field(default_factory=list)
    ids: list[FileIds] = field(default_factory=list)
    moves: dict[int, list[tuple[RowNumbers, int, RowNumbers]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reader = NamespaceReader(self.shop.cache, self.snapshot)
        self.centroids = np.array(self.snapshot.centroid_matrix(), dtype=np.float32)
        self.sizes = sizes_of(max(self.snapshot.dimension, 1), self.limits)

    async def fold_files(self, uuids: Sequence[str]) -> None:
        batch = await self.gather(self._live_of(uuids))
        if batch is None:
            return
        total = len(batch.rows)
        size = total if self.schema.dimension else self.limits.sparse_file_rows
        for start in range(0, total, size):
            rows = np.arange(start, min(start + size, total), dtype=np.int64)
            await self.write_cluster_file(batch, rows, -1)
        if len(uuids) == len(self.snapshot.files):
            self.centroids, self.reclustered = self.centroids[:0], True

    async def first_clustering(self, clusters: int, uuids: Sequence[str]) -> None:
        """All rows of those files into clusters; without any, centroids of a sample of all rows."""
        self.reclustered = True
        if not uuids:
            sample = await self.sample(clusters * SAMPLE_PER_CLUSTER)
            self.centroids = await asyncio.to_thread(train, sample, self.schema.metric, clusters)
            return
        batch = await self.gather(self._live_of(uuids))
        if batch is None:
            return
        made = await asyncio.to_thread(
            cluster,
            *(_vectors(batch.rows), self.schema.metric, clusters),
            *(self.sizes.most, self.sizes.least),
        )
        self.centroids = made.centroids
        for number, members in enumerate(made.members):
            await self.write_cluster_file(batch, members, number)

    async def fold_clusters(self, numbers: Sequence[int]) -> None:
        """Each cluster's file and its groups in deltas into one file, or split into as many as it
        takes; rows that belong elsewhere go into one delta.
        """
        split: list[int] = []
        for number in numbers:
            split += await self._fold_cluster(number)
        if self.limits.neighbours:
            await self._reassign_around(split, frozenset(numbers))
        await self._write_strays()

    async def merge_clusters(self, numbers: Sequence[int]) -> None:
        """Their rows go to the clusters that are nearest of the others, in one delta."""
        for number in numbers:
            self.centroids[number] = np.nan
        self.vacated.update(numbers)
        for number in numbers:
            batch = await self.gather(self._rows_of(number))
            if batch is not None:
                self.strays.append(batch)
        await self._write_strays()

    async def merge_deltas(self, uuids: Sequence[str]) -> None:
        batch = await self.gather(self._live_of(uuids))
        if batch is None:
            return
        encoded, order = await asyncio.to_thread(self._encode_delta, batch.rows)
        await self._add(batch, order, encoded)

    async def merge_runs(self, groups: Sequence[Sequence[str]]) -> Rewrite:
        """One group after the other, so that one is in memory. Entries of dead rows and of files
        that are gone are left out.
        """
        files = {file.uuid: file for file in self.snapshot.files}
        made: list[IdRun] = []
        for names in groups:
            runs = [run for run in self.snapshot.id_runs if run.object.name in names]
            opened = [await self.shop.cache.open_run(self.schema.prefix, run) for run in runs]
            merged = await asyncio.to_thread(
                merge_runs, opened, files, self.snapshot.version, object_bytes=self._run_bytes
            )
            made += await self._put_runs(merged)
        replaced = frozenset(name for names in groups for name in names)
        return self._rewrite(tuple(made), replaced)

    async def cover_files(self, uuids: Sequence[str]) -> Rewrite:
        """No row moves: the files' ids get runs."""
        for place, rows in self._live_of(uuids):
            opened = await self.reader.file(place)
            ids = await asyncio.to_thread(opened.ids, rows)
            self.ids.append(FileIds(opened.uuid, ids, rows.astype(np.uint32)))
        return replace(await self.finish(), covered=frozenset(uuids))

    async def finish(self) -> Rewrite:
        made = await asyncio.to_thread(
            write_runs, self.ids, self.snapshot.version, object_bytes=self._run_bytes
        )
        return self._rewrite(await self._put_runs(made), frozenset())

    @property
    def _run_bytes(self) -> int:
        return self.limits.id_runs.object_bytes

    async def _put_runs(self, runs: Sequence[EncodedRun]) -> tuple[IdRun, ...]:
        await self._put(tuple(run.object for run in runs))
        return tuple(run.run for run in runs)

    def _rewrite(self, runs: tuple[IdRun, ...], replaced: frozenset[str]) -> Rewrite:
        files = self.snapshot.files
        return Rewrite(
            generation=self.snapshot.generation,
            boundary=self.snapshot.boundary,
            moved=tuple(_moved(files[place].uuid, parts) for place, parts in self.moves.items()),
            outputs=tuple(self.outputs),
            runs=runs,
            replaced_runs=replaced,
            centroids_before=self.snapshot.centroids,
            centroids=_without_trailing(self.centroids).astype("<f4").tobytes(),
            reclustered=self.reclustered,
            vacated=frozenset(self.vacated),
        )

    async def _fold_cluster(self, number: int) -> list[int]:
        """The numbers of its pieces if it is split."""
        batch = await self.gather(self._rows_of(number))
        if batch is None:
            return []
        vectors = _vectors(batch.rows)
        made: Divided = await asyncio.to_thread(
            divide,
            *(vectors, self.centroids, number, self.schema.metric),
            *(self.sizes, clusters_of(vectors.nbytes, self.limits)),
        )
        # The biggest piece keeps the number, so that most rows that are grouped under it stay.
        numbers = [number, *self.vacant(len(made.members) - 1)]
        self.place_centroids(numbers, made.centroids)
        for piece, members in zip(numbers, made.members, strict=True):
            if len(members):
                await self.write_cluster_file(batch, members, piece)
        if len(made.strays):
            self.strays.append(batch.take(made.strays))
        return numbers if len(numbers) > 1 else []

    async def _reassign_around(self, split: Sequence[int], folded: frozenset[int]) -> None:
        """Rows of clusters next to new centroids that are nearer to those than to their own."""
        if not split:
            return
        near: dict[int, set[int]] = {}
        for piece in split:
            for number in neighbours(self.centroids, piece, self.limits.neighbours).tolist():
                near.setdefault(number, set()).add(piece)
        for place, file in enumerate(self.snapshot.files):
            pieces = near.get(file.cluster)
            if file.is_delta or not pieces or file.cluster in folded:
                continue
            live = self.reader.live_rows(place)
            moved = await asyncio.to_thread(
                self._movers, await self.reader.file(place), live, file.cluster, sorted(pieces)
            )
            batch = await self.gather([(place, moved)])
            if batch is not None:
                self.strays.append(batch)

    def _movers(
        self, opened: FileReader, live: RowNumbers, number: int, pieces: list[int]
    ) -> RowNumbers:
        assert opened.vectors is not None
        own, new = self.centroids[number], self.centroids[pieces]
        vectors = np.ascontiguousarray(opened.vectors[live])
        return live[movers(vectors, own, new, self.schema.metric, self.sizes.least)]

    async def _write_strays(self) -> None:
        if self.strays:
            batch = await asyncio.to_thread(_joined, self.strays)
            encoded, order = await asyncio.to_thread(self._encode_delta, batch.rows)
            await self._add(batch, order, encoded)

    def vacant(self, count: int) -> list[int]:
        """So many numbers that no cluster has."""
        free = np.flatnonzero(np.isnan(self.centroids).any(axis=1))[:count].tolist()
        return [*free, *range(len(self.centroids), len(self.centroids) + count - len(free))]

    def place_centroids(self, numbers: Sequence[int], centroids: F32) -> None:
        rows = max(len(self.centroids), max(numbers) + 1)
        grown = np.full((rows, self.centroids.shape[1]), np.nan, dtype=np.float32)
        grown[: len(self.centroids)] = self.centroids
        grown[list(numbers)] = centroids
        self.centroids = grown

    def _rows_of(self, number: int) -> list[tuple[int, RowNumbers]]:
        """Live rows of the cluster's file and of its groups in deltas, the file first; of a backlog
        as many as one job may hold.
        """
        picks: list[tuple[int, RowNumbers]] = []
        room = max(self.limits.job_bytes // (self.snapshot.dimension * 4), self.sizes.most + 1)
        files = sorted(enumerate(self.snapshot.files), key=lambda item: item[1].is_delta)
        for place, file in files:
            ranges = [(first, end) for n, first, end in groups_of(file) if n == number]
            if not ranges or (not file.is_delta and file.cluster != number):
                continue
            live = self.reader.live_rows(place)
            live = np.concatenate([_within(live, bounds) for bounds in ranges])[: max(room, 0)]
            room -= len(live)
            picks.append((place, live))
        return picks

    async def sample(self, rows: int) -> F32:
        """About `rows` rows, drawn evenly from all files."""
        share = min(1.0, rows / max(self.snapshot.record_count, 1))
        rng = np.random.default_rng(SEED)
        parts: list[F32] = []
        for place, file in enumerate(self.snapshot.files):
            live = self.reader.live_rows(place)
            chosen = np.sort(rng.choice(live, min(file.live, ceil(file.live * share)), False))
            opened = await self.reader.file(place)
            assert opened.vectors is not None
            parts.append(await asyncio.to_thread(opened.vectors.__getitem__, chosen))
        return np.concatenate(parts)

    def _live_of(self, uuids: Sequence[str]) -> list[tuple[int, RowNumbers]]:
        wanted = set(uuids)
        return [
            (place, self.reader.live_rows(place))
            for place, file in enumerate(self.snapshot.files)
            if file.uuid in wanted
        ]

    async def gather(self, picks: Sequence[tuple[int, RowNumbers]]) -> Batch | None:
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
        return Batch(rows_of_all, np.concatenate(places), np.concatenate(numbers))

    async def write_cluster_file(self, batch: Batch, members: RowNumbers, number: int) -> None:
        encoded = await asyncio.to_thread(self._encode_cluster, batch, members, number)
        await self._add(batch, members, encoded)

    def _encode_cluster(self, batch: Batch, members: RowNumbers, number: int) -> EncodedFile:
        rows = batch.rows.take(members)
        centroid = self.centroids[number] if number >= 0 else None
        return write_cluster(rows, self.schema, cluster=number, centroid=centroid)

    def _encode_delta(self, rows: Rows) -> tuple[EncodedFile, RowNumbers]:
        groups: Groups = ()
        order = np.arange(len(rows), dtype=np.int64)
        if rows.vectors is not None and len(self.centroids):
            order, groups = group_order(rows.vectors, self.centroids, self.schema.metric)
            rows = rows.take(order)
        return write_delta(rows, self.schema, groups=groups), order

    async def _add(self, batch: Batch, members: RowNumbers, encoded: EncodedFile) -> None:
        """`members`: rows of the batch in the order in which the file has them."""
        await self._put(encoded.objects)
        output = len(self.outputs)
        self.outputs.append(msgspec.structs.replace(encoded.file, in_runs=True))
        ids = [batch.rows.ids[row] for row in members.tolist()]
        self.ids.append(FileIds(encoded.file.uuid, ids))
        places, numbers = batch.places[members], batch.numbers[members]
        for place in np.unique(places).tolist():
            output_rows = np.flatnonzero(places == place).astype(np.int64)
            moved = (numbers[output_rows], output, output_rows)
            self.moves.setdefault(place, []).append(moved)

    async def _put(self, objects: tuple[EncodedObject, ...]) -> None:
        await put_objects(self.shop.store, self.schema.prefix, objects)
        self.shop.metrics.written_bytes.labels("compaction").inc(sum(len(o.data) for o in objects))


def _vectors(rows: Rows) -> F32:
    assert rows.vectors is not None, "only dense namespaces are clustered"
    return rows.vectors


def _moved(uuid: str, parts: Sequence[tuple[RowNumbers, int, RowNumbers]]) -> Moved:
    rows = np.concatenate([rows for rows, _, _ in parts])
    outputs = np.concatenate([np.full(len(r), o, dtype=np.int32) for r, o, _ in parts])
    output_rows = np.concatenate([output_rows for _, _, output_rows in parts])
    order = np.argsort(rows)
    return Moved(uuid, rows[order], outputs[order], output_rows[order])


def _joined(batches: Sequence[Batch]) -> Batch:
    return Batch(
        Rows.concat([batch.rows for batch in batches]),
        np.concatenate([batch.places for batch in batches]),
        np.concatenate([batch.numbers for batch in batches]),
    )


def _without_trailing(centroids: F32) -> F32:
    """Vacant rows at the end stand for nothing."""
    used = occupied(centroids)
    return centroids[: int(used[-1]) + 1] if len(used) else centroids[:0]


def _within(rows: RowNumbers, bounds: tuple[int, int]) -> RowNumbers:
    start, end = np.searchsorted(rows, bounds)
    return rows[start:end]
