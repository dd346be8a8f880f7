"""Which snapshot objects make up a backup of an index: a list in the store, below `backups/{id}/`.

`begun` is put first, and `again` by everybody who begins after that: then there may be snapshots
that no list names. Parts of some hundred namespaces each follow while the snapshots are taken, in
the order of (partition, name), so that whoever goes on after a crash begins behind the last one. At
last the `list` names the parts and their checksums: where it is, the backup is complete. All of it
is immutable; a backup of 100,000 namespaces is a few hundred objects and never whole in memory.
"""

from collections.abc import AsyncIterator

import msgspec

from core.errors import CorruptData, ObjectNotFound
from core.object_store import ObjectStore
from storage.checksum import checksum
from storage.envelope import seal, unseal
from storage.layout import (
    backup_again_key,
    backup_begun_key,
    backup_list_key,
    backup_part_key,
    backup_prefix,
    namespace_prefix,
    version_of,
)

MAGIC = b"FIRNBKL1"
MAGIC_PART = b"FIRNBKP1"
# Namespaces of one part: some 100 KB.
PART_MAX = 500
FIRST_PART = 1


class ListedSnapshot(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Of one namespace (canonical name). checksum: of the snapshot object, as attach entries say
    it; origins: the other prefixes that have a copy of it. records, bytes: what it holds.
    """

    namespace: str
    snapshot_id: str
    checksum: str
    origins: tuple[str, ...]
    records: int
    bytes: int


class ListPart(msgspec.Struct, frozen=True, kw_only=True):
    """number: from 1 on, without gaps. before: namespaces of the parts before it. snapshots:
    `PART_MAX` at most, one at least.
    """

    backup_id: str
    number: int
    before: int
    snapshots: tuple[ListedSnapshot, ...]


class SnapshotList(msgspec.Struct, frozen=True, kw_only=True):
    """index_id: whose namespaces they are. parts: xxh3-128 (hex) of each part's object. Counts are
    of all parts.
    """

    backup_id: str
    index_id: str
    created_ms: int
    parts: tuple[str, ...]
    namespaces: int
    records: int
    bytes: int


_encoder = msgspec.msgpack.Encoder()
_part_decoder = msgspec.msgpack.Decoder(ListPart)
_list_decoder = msgspec.msgpack.Decoder(SnapshotList)


class SnapshotLists:
    """Reads and writes the lists of all backups. Holds no state."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def begin(self, backup_id: str) -> bool:
        """False: somebody has begun to take it before."""
        first = await self._store.put_if_absent(backup_begun_key(backup_id), backup_id.encode())
        if not first:
            await self._store.put_if_absent(backup_again_key(backup_id), backup_id.encode())
        return first

    async def was_begun_again(self, backup_id: str) -> bool:
        """Whether there may be snapshots of it that its list does not name."""
        return await self._store.stat(backup_again_key(backup_id)) is not None

    async def add(self, part: ListPart) -> str | None:
        """Its checksum. None: there is another one of this number already."""
        key = backup_part_key(part.backup_id, part.number)
        data = seal(MAGIC_PART, _encoder.encode(part))
        created = await self._store.put_if_absent(key, data)
        return checksum(data) if created else None

    async def part(self, backup_id: str, number: int, digest: str) -> ListPart:
        """`digest`: what the list says of it. `CorruptData`, also if it is not there."""
        part, found = await self._part(backup_id, number)
        if found != digest:
            key = backup_part_key(backup_id, number)
            raise CorruptData(f"{key} is not the part that the list names")
        return part

    async def parts(self, backup_id: str) -> AsyncIterator[tuple[ListPart, str]]:
        """Those that are there, with their checksums, up to the first gap."""
        number = FIRST_PART
        async for info in self._store.list(f"{backup_prefix(backup_id)}parts/"):
            if version_of(info.key) != number:
                return
            yield await self._part(backup_id, number)
            number += 1

    async def _part(self, backup_id: str, number: int) -> tuple[ListPart, str]:
        key = backup_part_key(backup_id, number)
        try:
            data = await self._store.get(key)
        except ObjectNotFound as error:
            raise CorruptData(f"{key} is gone: the backup cannot be read") from error
        try:
            part = _part_decoder.decode(unseal(MAGIC_PART, data, key))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise CorruptData(f"{key} is no part of a list of snapshots: {error}") from error
        if (part.backup_id, part.number) != (backup_id, number):
            raise CorruptData(f"{key} says that it is part {part.number} of {part.backup_id}")
        return part, checksum(data)

    async def finish(self, whole: SnapshotList) -> bool:
        """False: it was finished before."""
        key = backup_list_key(whole.backup_id)
        return await self._store.put_if_absent(key, seal(MAGIC, _encoder.encode(whole)))

    async def read(self, backup_id: str) -> SnapshotList | None:
        """None: it was never finished, or is deleted. `CorruptData`."""
        key = backup_list_key(backup_id)
        try:
            data = await self._store.get(key)
        except ObjectNotFound:
            return None
        try:
            found = _list_decoder.decode(unseal(MAGIC, data, key))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise CorruptData(f"{key} is no list of snapshots: {error}") from error
        if found.backup_id != backup_id:
            raise CorruptData(f"{key} says that it is of backup {found.backup_id}")
        return found

    async def delete(self, backup_id: str) -> None:
        """The list first: what is left then tells everybody that it is not complete. From here on
        it must not be taken: parts may be there whose snapshots are not.
        """
        await self._store.delete(backup_list_key(backup_id))
        async for info in self._store.list(backup_prefix(backup_id)):
            await self._store.delete(info.key)


def prefix_of(whole: SnapshotList, listed: ListedSnapshot) -> str:
    """Of the namespace, where the snapshot object lies."""
    return namespace_prefix(whole.index_id, listed.namespace)
