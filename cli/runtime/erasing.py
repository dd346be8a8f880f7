"""`gc` and `purge` as admin verbs."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

from builder.garbage.beside import Beside, sweep_deleted
from builder.garbage.collection import Swept
from builder.garbage.plan import Grace
from builder.garbage.purge import Purge
from cli.runtime.branching import namespaces_of
from cli.runtime.consumers import builder_parts, builder_settings
from cli.runtime.parts import Parts
from cli.runtime.rebuilding import Tell, named_index, told_lines
from core.errors import FailedPrecondition, InvalidRequest
from core.indexes import IndexInfo, IndexState, shown_name
from ingest.writer import LogWriter
from storage.file_cache import FileCache
from storage.prefixes import index_prefixes, namespace_prefixes

Line = dict[str, Any]
Lines = AsyncGenerator[Line, None]

# A smaller grace time would take files from queries and jobs that run.
GRACE_MIN_S = 120.0


async def gc_lines(
    parts: Parts,
    index: str | None = None,
    namespace: str | None = None,
    dry_run: bool = False,
    grace_s: float | None = None,
) -> Lines:
    """One row for each namespace with garbage, and for what deleted indexes have left."""
    grace_s = parts.settings.gc_grace_s if grace_s is None else grace_s
    if not dry_run and grace_s < min(GRACE_MIN_S, parts.settings.gc_grace_s):
        raise InvalidRequest(
            f"a grace time of {grace_s:.0f} s would take files from running queries and jobs: "
            f"{GRACE_MIN_S:.0f} s is the least"
        )
    grace = Grace(ms=int(grace_s * 1000))
    only = None if index is None else await named_index(parts, index)

    async def work(cache: FileCache, tell: Tell) -> list[Line]:
        rows: list[Line] = []
        looked = 0
        async for row in _collected(parts, cache, only, namespace, grace, dry_run):
            looked += 1
            tell("looking for garbage", looked, looked)
            if row["objects"] or row["waiting_objects"] or row["note"]:
                rows.append(row)
        return rows

    async with aclosing(told_lines(parts, "gc", work)) as lines:
        async for line in lines:
            yield line


async def _collected(
    parts: Parts,
    cache: FileCache,
    only: IndexInfo | None,
    namespace: str | None,
    grace: Grace,
    dry_run: bool,
) -> AsyncIterator[Line]:
    living = [one.info for one in await parts.catalog.living_indexes()]
    building = builder_parts(parts, cache)
    for info in living if only is None else [only]:
        async for place in namespaces_of(parts, info, namespace, deleted=True):
            settings = builder_settings(parts.settings)
            beside = Beside(building, info, place.namespace, settings, tuple(parts.caches))
            swept, note = Swept(), ""
            try:
                if dry_run:
                    swept = await (await beside.collection(grace)).dry_run()
                else:
                    swept = await beside.collect(grace)
            except FailedPrecondition as error:
                note = str(error)
            yield _row(info.name, place.namespace, swept, note)
    if only is not None:
        return
    async for index_id in index_prefixes(parts.store):
        found = await parts.directory.find(index_id)
        if found is None:
            yield _row(index_id, "", Swept(), "the catalog does not know this index: left alone")
        elif found.state is IndexState.DELETED:
            async for prefix in namespace_prefixes(parts.store, index_id):
                swept = await sweep_deleted(building, prefix, grace, dry_run=dry_run)
                yield _row(found.name, prefix, swept, "of a deleted index")


def _row(index: str, namespace: str, swept: Swept, note: str) -> Line:
    return {
        "index": index,
        "namespace": shown_name(namespace),
        "objects": swept.objects,
        "bytes": swept.bytes,
        "manifests": swept.manifests,
        "waiting_objects": swept.waiting_objects,
        "waiting_bytes": swept.waiting_bytes,
        "note": note,
    }


async def purge_lines(
    parts: Parts, index: str, namespace: str | None = None, ids: list[str] | None = None
) -> Lines:
    """One row for each namespace; ids: of one namespace."""
    info = await named_index(parts, index)
    if ids and namespace is None:
        namespace = ""  # the default one, as everywhere

    async def work(cache: FileCache, tell: Tell) -> list[Line]:
        rows: list[Line] = []
        building = builder_parts(parts, cache)
        settings = builder_settings(parts.settings)
        writer = LogWriter(parts.wal, parts.clock)
        try:
            async for place in namespaces_of(parts, info, namespace, deleted=True):
                caches = tuple(parts.caches)
                beside = Beside(building, info, place.namespace, settings, caches)
                rows.append(asdict(await Purge(beside, writer, tell).run(ids or ())))
        finally:
            await writer.close()
        return rows

    async with aclosing(told_lines(parts, "purge", work)) as lines:
        async for line in lines:
            yield line
