"""One flush: a batch of log entries becomes a delta, dead rows, an id run and the next manifest.

While all rows of a namespace fit in one, they lie inline in the manifest: each flush writes them
anew, in two puts. The first that is too large for that becomes an ordinary delta with all of them.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from pyroaring import BitMap

from builder.apply import Fold
from builder.branching.attach import Attachments
from builder.chain import Target, Workshop, blank, check_log, uninterrupted
from builder.compaction.grouping import Groups, group_order
from builder.compaction.successor import with_dead, with_files
from core.errors import Unavailable
from core.log import NO_LSN
from core.metric import F32
from core.operations import NamespaceWrite
from core.turns import step_aside_in_thread
from storage.commit import ManifestConflict
from storage.delta_file import write_delta
from storage.encoded_file import EncodedObject, put_objects
from storage.id_run import FileIds, write_runs
from storage.layout import NamespaceSchema
from storage.manifest import DataFile, IdRun, Manifest
from storage.namespace import NamespaceReader
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
    """`following` with the fold's state: base rows that live, and the overlay as a delta, or with
    all of the base in one where that is tiny.
    """
    following = msgspec.structs.replace(
        following,
        generation=fold.generation,
        deleted=not fold.exists,
        attached=fold.attached,
        declared=fold.declared,
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
    rows = [Rows.of(records, target.schema.dimension)] if (records := fold.records()) else []
    tiny = all(file.inline for file in files if file.live)
    if tiny and (rows or any(len(d) > f.dead_count for f, d in _inline(fold))):
        rows = [*await _inline_rows(shop, fold), *rows]
        files.clear()
    if rows:
        schema = target.schema
        matrix = msgspec.structs.replace(following, centroids=centroids).centroid_matrix()
        delta = await asyncio.to_thread(
            encode_delta,
            Rows.concat(rows),
            schema,
            matrix,
            following.version,
            shop.inline_bytes if tiny else 0,
        )
        await put_objects(shop.store, schema.prefix, delta.objects)
        written = sum(len(o.data) for o in delta.objects)
        shop.metrics.written_bytes.labels("flush").inc(written)
        following = msgspec.structs.replace(
            following, written_bytes=following.written_bytes + written
        )
        files.append(delta.file)
        runs += delta.runs
    return with_files(following, files, runs, centroids)


def _inline(fold: Fold) -> list[tuple[DataFile, BitMap]]:
    """The base's inline files with live rows, and their dead ones by now."""
    if fold.manifest is None or not fold.keeps_base:
        return []
    files = zip(fold.manifest.files, fold.dead, strict=True)
    return [(file, dead) for file, dead in files if file.inline and len(dead) < file.rows]


async def _inline_rows(shop: Workshop, fold: Fold) -> list[Rows]:
    """The live rows of the base's inline files."""
    found: list[Rows] = []
    for file, dead in _inline(fold):
        assert fold.manifest is not None
        reader = NamespaceReader(shop.cache, fold.manifest)
        opened = await reader.file(fold.manifest.files.index(file))
        live = BitMap(range(file.rows)) - dead
        found.append(opened.take(np.array(live, dtype=np.int64)))
    return found


def encode_delta(
    rows: Rows, schema: NamespaceSchema, centroids: F32, version: int, inline_bytes: int
) -> Delta:
    """At least one row, without objects if it takes at most `inline_bytes`; `version` of the
    manifest to come. CPU-bound: off the event loop.
    """
    groups: Groups = ()
    if rows.vectors is not None and len(centroids):
        order, groups = group_order(rows.vectors, centroids, schema.metric)
        rows = rows.take(order)
    step_aside_in_thread()
    encoded = write_delta(rows, schema, groups=groups)
    step_aside_in_thread()
    (columns,) = encoded.objects
    if columns.ref.size <= inline_bytes:
        return Delta((), msgspec.structs.replace(encoded.file, inline=columns.data), ())
    runs = write_runs([FileIds(encoded.file.uuid, rows.ids)], version)
    objects = (*encoded.objects, *(run.object for run in runs))
    file = msgspec.structs.replace(encoded.file, in_runs=True)
    return Delta(objects, file, tuple(run.run for run in runs))
