"""One flush: a batch of log entries becomes a delta, dead rows, an id run and the next manifest."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from builder.apply import Fold
from builder.attach import Attachments
from builder.chain import Target, Workshop, blank, check_log, uninterrupted
from builder.grouping import Groups, group_order
from builder.successor import with_dead, with_files
from core.errors import Unavailable
from core.log import NO_LSN
from core.metric import F32
from core.operations import NamespaceWrite
from core.records import StoredRecord
from storage.commit import ManifestConflict
from storage.delta_file import write_delta
from storage.encoded_file import EncodedObject, put_objects
from storage.id_run import FileIds, write_runs
from storage.layout import NamespaceSchema
from storage.manifest import DataFile, IdRun, Manifest
from storage.rows import Rows

# Others that commit are a rebuild's swap and a zombie, both of them rare.
CONFLICTS_MAX = 16
# A record in memory beside its vector: Python objects, an id, a little metadata.
RECORD_BYTES = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Delta:
    """A delta and its id runs, encoded and not yet in the store."""

    objects: tuple[EncodedObject, ...]
    file: DataFile
    runs: tuple[IdRun, ...]


async def flush(
    shop: Workshop, target: Target, manifest: Manifest | None, writes: Sequence[NamespaceWrite]
) -> Manifest | None:
    """Make the entries durable in the index; the newest manifest, which covers them all.

    `manifest` is the newest one known; entries that it covers are passed over. None: there is no
    such namespace and the entries do not make one. `Fenced`, `LogMismatch`, `CorruptData`, and
    `Unavailable`, after which the flush may be repeated.
    """
    for _ in range(CONFLICTS_MAX):
        indexed = NO_LSN if manifest is None else manifest.indexed_lsn
        ahead = [write for write in writes if write.lsn > indexed]
        if not ahead:
            return manifest
        following = await _follow(shop, target, manifest, ahead)
        if following is None:
            return None
        try:
            following = await uninterrupted(shop.chain.commit(following))
        except ManifestConflict as conflict:
            check_log(shop, conflict.newest)
            manifest = conflict.newest
            continue
        shop.metrics.flushes.inc()
        return following
    raise Unavailable(f"{CONFLICTS_MAX} other commits came first, again and again")


async def _follow(
    shop: Workshop, target: Target, manifest: Manifest | None, writes: Sequence[NamespaceWrite]
) -> Manifest | None:
    """The next manifest, its files in the store; None if there is nothing to commit."""
    own = blank(shop, target, manifest)
    taken = sum(write.value_bytes for write in writes)
    before = 0 if manifest is None else manifest.ingested_bytes
    following = msgspec.structs.replace(
        own, indexed_lsn=writes[-1].lsn, ingested_bytes=before + taken
    )

    async def spill(fold: Fold) -> Manifest:
        return await _materialized(shop, target, fold, following)

    record_bytes = 4 * (target.schema.dimension or 0) + RECORD_BYTES
    records_max = max(1, shop.fold_bytes // record_bytes)
    fold = Fold(shop.cache, manifest, spill, records_max, Attachments(shop, target))
    await fold.run(writes)
    if manifest is None and fold.generation == NO_LSN:
        return None
    return await _materialized(shop, target, fold, following)


async def _materialized(
    shop: Workshop, target: Target, fold: Fold, following: Manifest
) -> Manifest:
    """`following` with the fold's state: base rows that live, and the overlay as a delta."""
    following = msgspec.structs.replace(
        following,
        generation=fold.generation,
        deleted=not fold.exists,
        attached=fold.attached,
    )
    files: list[DataFile] = []
    runs: list[IdRun] = []
    centroids = b""
    base = fold.manifest
    if base is not None:
        following = msgspec.structs.replace(
            following, sections=base.sections, written_bytes=base.written_bytes
        )
    if base is not None and fold.keeps_base:
        files += [with_dead(f, dead) for f, dead in zip(base.files, fold.dead, strict=True)]
        runs += base.id_runs
        # Of what is all dead nothing stays, so nothing is grouped by it either.
        centroids = base.centroids if any(file.live for file in files) else b""
    records = fold.records()
    if records:
        schema = target.schema
        matrix = msgspec.structs.replace(following, centroids=centroids).centroid_matrix()
        delta = await asyncio.to_thread(encode_delta, records, schema, matrix, following.version)
        await put_objects(shop.store, schema.prefix, delta.objects)
        written = sum(len(o.data) for o in delta.objects)
        shop.metrics.written_bytes.labels("flush").inc(written)
        following = msgspec.structs.replace(
            following, written_bytes=following.written_bytes + written
        )
        files.append(delta.file)
        runs += delta.runs
    return with_files(following, files, runs, centroids)


def encode_delta(
    records: Sequence[StoredRecord], schema: NamespaceSchema, centroids: F32, version: int
) -> Delta:
    """At least one record; `version` of the manifest to come. CPU-bound: off the event loop."""
    rows = Rows.of(records, schema.dimension)
    groups: Groups = ()
    if rows.vectors is not None and len(centroids):
        order, groups = group_order(rows.vectors, centroids, schema.metric)
        rows = rows.take(order)
    encoded = write_delta(rows, schema, groups=groups)
    runs = write_runs([FileIds(encoded.file.uuid, rows.ids)], version)
    objects = (*encoded.objects, *(run.object for run in runs))
    file = msgspec.structs.replace(encoded.file, in_runs=True)
    return Delta(objects, file, tuple(run.run for run in runs))
