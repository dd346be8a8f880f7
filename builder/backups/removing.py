"""Deleting a backup: its snapshots, then their list. The collector frees the files that nothing
else names. What is done twice, or was done in part, does no harm.
"""

import logging
from collections.abc import AsyncIterator, Sequence

from builder.backups.taking import snapshot_name
from builder.backups.together import together
from builder.parts import BuilderParts
from core.errors import CorruptData
from storage.commit import ManifestStore
from storage.prefixes import namespace_prefixes
from storage.snapshot_lists import FIRST_PART, ListPart, SnapshotList, SnapshotLists, prefix_of
from storage.snapshots import SnapshotKind, SnapshotStore

logger = logging.getLogger(__name__)

DELETED_AT_ONCE = 32

_Objects = tuple[str, str, tuple[str, ...]]


async def remove_backup(parts: BuilderParts, backup_id: str, index_id: str) -> None:
    """All of it, complete or not. `Unavailable`."""
    lists = SnapshotLists(parts.store)
    snapshots = SnapshotStore(parts.store, ManifestStore(parts.store))
    whole = await _readable(lists, backup_id)
    if whole is not None:
        async for part in _parts(lists, whole):
            listed = [(s.snapshot_id, prefix_of(whole, s), s.origins) for s in part.snapshots]
            await _delete(snapshots, listed)
    if whole is None or await lists.was_begun_again(backup_id):
        await _search(parts, snapshots, backup_id, index_id)
    await lists.delete(backup_id)


async def _readable(lists: SnapshotLists, backup_id: str) -> SnapshotList | None:
    """None also where a part of it is damaged: then its snapshots have to be searched for."""
    try:
        whole = await lists.read(backup_id)
        if whole is not None:
            async for _ in _parts(lists, whole):
                pass
    except CorruptData as error:
        logger.error(
            "backup %s: its list is damaged, so its snapshots are searched for: %s",
            *(backup_id, error),
        )
        return None
    return whole


async def _parts(lists: SnapshotLists, whole: SnapshotList) -> AsyncIterator[ListPart]:
    for number, digest in enumerate(whole.parts, start=FIRST_PART):
        yield await lists.part(whole.backup_id, number, digest)


async def _search(
    parts: BuilderParts, snapshots: SnapshotStore, backup_id: str, index_id: str
) -> None:
    """Under every namespace of the index that has objects: as many requests, and more."""
    name = snapshot_name(backup_id)
    async for prefix in namespace_prefixes(parts.store, index_id):
        try:
            found = await snapshots.list(prefix)
        except CorruptData as error:
            logger.error("snapshots of a backup that is deleted may stay: %s", error)
            continue
        mine = [s for s in found if s.name == name and s.kind is SnapshotKind.SNAPSHOT]
        await _delete(snapshots, [(s.id, s.home, s.origins) for s in mine])


async def _delete(snapshots: SnapshotStore, objects: Sequence[_Objects]) -> None:
    async def delete(one: _Objects) -> None:
        await snapshots.delete_objects(*one)

    await together(DELETED_AT_ONCE, delete, objects)
