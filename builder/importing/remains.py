"""What is left of an import once it has ended: what it built beside, in use or not."""

import asyncio
from enum import Enum, auto

from builder.garbage.beside import sweep_deleted
from builder.garbage.plan import Grace
from builder.importing.staging import Staging
from builder.parts import BuilderParts
from core.indexes import IndexState
from core.operations import DeleteNamespace, Entry
from ingest.writer import LogWriter
from storage.commit import ManifestStore
from storage.snapshots import SnapshotStore

_DELETES_AT_ONCE = 16


class Left(Enum):
    """NOTHING: by now; who does not know yet that it is over may write still, and nobody else looks
    there. KNOWN: garbage collection does the rest, and its chain of manifests refuses late writes.
    SOMETHING: ask again later.
    """

    NOTHING = auto()
    KNOWN = auto()
    SOMETHING = auto()


async def remove(parts: BuilderParts, writer: LogWriter, staging: Staging) -> Left:
    """Repeating it is harmless.

    What the target was attached to stays as long as the target's life, like any branch's source, or
    as a backup of the target, which outlives it: it is deleted by an entry of the log, so that
    garbage collection knows it from then on. What nothing holds is deleted here and now.
    """
    place = staging.place
    if place.index.state is not IndexState.READY:
        swept = await sweep_deleted(parts, place.prefix, Grace(ms=0), dry_run=False)
        return Left.NOTHING if swept.at_rest else Left.SOMETHING
    manifest = await parts.manifests.outline(*place.key)
    if manifest is not None and manifest.deleted:
        return Left.KNOWN
    if await SnapshotStore(parts.store, ManifestStore(parts.store)).ids(place.prefix):
        await writer.write(*place.key, [Entry(DeleteNamespace())])
        return Left.KNOWN
    await _erase(parts, place.prefix)
    return Left.NOTHING


async def _erase(parts: BuilderParts, prefix: str) -> None:
    names = [info.key.removeprefix(prefix) async for info in parts.store.list(prefix)]
    # Manifests last: as long as one is there, a repetition knows that something may be left.
    names.sort(key=lambda name: name.startswith("manifest"))
    for start in range(0, len(names), _DELETES_AT_ONCE):
        part = names[start : start + _DELETES_AT_ONCE]
        await asyncio.gather(*(parts.store.delete(prefix + name) for name in part))
    parts.cache.forget(names)
