"""Snapshot objects: a copy of one manifest, whose files they keep in use. Immutable.

`snapshots/{id}` lies under the prefix of the namespace that it is of (its *home*) and, where that
one is a branch, under each prefix whose files it shares: a namespace's garbage collector looks
under its own prefix only. Those copies are there before the home's object and go after it.

Why a pinned file cannot be collected: a round of garbage collection commits its number (a
manifest's `boundary`), then reads the snapshots, then deletes. Where the newest manifest, read
after the snapshot was put, has the boundary of the one that was copied, every round that could
delete a file of it reads the snapshots later, and finds this one.
"""

import asyncio
import re
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from core.clock import new_uuid
from core.errors import CorruptData, FailedPrecondition, NotFound, ObjectNotFound, Unavailable
from core.object_store import ObjectStore
from storage.checksum import checksum
from storage.commit import ManifestStore
from storage.envelope import seal, unseal
from storage.layout import namespace_prefix, snapshot_key, snapshots_prefix
from storage.manifest import Manifest

MAGIC = b"FIRNSNP1"
_ID = re.compile(r"[0-9a-f]{32}")
# One for each namespace in the ancestry of a branch of a branch of ...; each costs a put.
ORIGINS_MAX = 64
# Each try needs a whole round of garbage collection to be lost.
PIN_TRIES = 4
READS_AT_ONCE = 32


class SnapshotKind(StrEnum):
    """SNAPSHOT: somebody's backup, there until it is deleted. BRANCH: what a namespace was made
    of, there as long as that life of it.
    """

    SNAPSHOT = "snapshot"
    BRANCH = "branch"


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """id: 32 hex digits. holder_index, holder_namespace: whose life a branch's is, "" for others.
    home: prefix of the namespace that it is of; origins: the other prefixes whose files it names.
    encoded: the manifest's root, as `ManifestStore.encoded` gives it; the rest is copied from it.
    """

    id: str
    name: str
    kind: SnapshotKind
    created_ms: int
    holder_index: str = ""
    holder_namespace: str = ""
    home: str
    origins: tuple[str, ...] = ()
    index_id: str
    namespace: str
    indexed_lsn: int
    manifest_version: int
    manifest_created_ms: int
    record_count: int
    byte_count: int
    encoded: bytes

    def checksum(self) -> str:
        """xxh3-128 (hex) of the whole object: what an attach entry says."""
        return checksum(_sealed(self))


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Snapshot)


def is_snapshot_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


class SnapshotStore:
    """Makes, reads and deletes the snapshots of all namespaces. Holds no state."""

    def __init__(self, store: ObjectStore, manifests: ManifestStore) -> None:
        self._store = store
        self._manifests = manifests

    async def take(
        self,
        index_id: str,
        namespace: str,
        *,
        name: str,
        kind: SnapshotKind,
        created_ms: int,
        holder: tuple[str, str] = ("", ""),
        pin_id: str | None = None,
    ) -> Snapshot:
        """Of the newest manifest; its files are in use when this returns. The number of requests
        does not depend on the size of the namespace. `pin_id`: of a namespace whose files nobody
        collects; where an object with that id is there already, it stays as it is.

        `NotFound`: no such namespace. `FailedPrecondition`: it shares files with too many others.
        """
        for _ in range(PIN_TRIES):
            manifest = await self._manifests.newest(index_id, namespace)
            if manifest is None or manifest.deleted:
                raise NotFound(f"there is no namespace {namespace!r} in the files of {index_id}")
            encoded = await self._manifests.encoded(manifest)
            made = _snapshot(manifest, encoded, name, kind, created_ms, holder)
            if pin_id is not None:
                made = msgspec.structs.replace(made, id=pin_id)
            await self._put(made)
            newest = await self._manifests.newest(index_id, namespace, manifest.version)
            if newest is not None and _still_pinned(made, manifest, newest):
                return made
            if pin_id is not None:
                break  # whoever made it may use it
            await self.delete(made)
        raise Unavailable(f"the files of {namespace!r} are collected faster than they are pinned")

    async def take_again(
        self,
        snapshot: Snapshot,
        *,
        created_ms: int,
        holder: tuple[str, str],
        pin_id: str | None = None,
    ) -> Snapshot:
        """A branch's own copy of a snapshot, which may then be deleted without harm to it.

        `pin_id`: who gives one, gives it to this snapshot, time and holder alone; repeating the
        call then makes the same object. `NotFound`: the snapshot was deleted meanwhile; an object
        with such an id stays, for somebody else may have made it and use it.
        """
        made = msgspec.structs.replace(
            snapshot,
            id=pin_id or new_uuid(),
            kind=SnapshotKind.BRANCH,
            created_ms=created_ms,
            holder_index=holder[0],
            holder_namespace=holder[1],
        )
        await self._put(made)
        # While the old one's home object is there, all its files are in use.
        if await self._store.stat(snapshot_key(snapshot.home, snapshot.id)) is None:
            if pin_id is None:
                await self.delete(made)
            raise NotFound(f"snapshot {snapshot.id} was deleted meanwhile")
        return made

    async def read(self, prefix: str, snapshot_id: str) -> Snapshot | None:
        """None if it is not there. `CorruptData` naming the key."""
        data = await self._data(prefix, snapshot_id)
        return None if data is None else self._decoded(prefix, snapshot_id, data)

    async def read_exactly(self, prefix: str, snapshot_id: str, digest: str) -> Snapshot | None:
        """None also if it is another object than the one with this checksum."""
        data = await self._data(prefix, snapshot_id)
        if data is None:
            return None
        snapshot = self._decoded(prefix, snapshot_id, data)
        return snapshot if checksum(data) == digest else None

    async def _data(self, prefix: str, snapshot_id: str) -> bytes | None:
        try:
            return await self._store.get(snapshot_key(prefix, snapshot_id))
        except ObjectNotFound:
            return None

    def _decoded(self, prefix: str, snapshot_id: str, data: bytes) -> Snapshot:
        key = snapshot_key(prefix, snapshot_id)
        body = unseal(MAGIC, data, key)
        try:
            snapshot = _decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise CorruptData(f"{key} is not a snapshot: {error}") from error
        if snapshot.id != snapshot_id or prefix not in (snapshot.home, *snapshot.origins):
            raise CorruptData(f"{key} says that it is {snapshot.id} of {snapshot.home}")
        return snapshot

    async def ids(self, prefix: str) -> Sequence[str]:
        """Of everything that keeps files of this prefix in use; nothing is read."""
        return [
            name
            async for info in self._store.list(snapshots_prefix(prefix))
            if is_snapshot_id(name := info.key.rpartition("/")[2])
        ]

    async def list(self, prefix: str) -> Sequence[Snapshot]:
        """Everything that keeps files of this prefix in use, oldest first; see `Snapshot.home`."""
        names = await self.ids(prefix)
        found: list[Snapshot] = []
        for start in range(0, len(names), READS_AT_ONCE):
            reads = (self.read(prefix, name) for name in names[start : start + READS_AT_ONCE])
            found += [one for one in await asyncio.gather(*reads) if one is not None]
        return sorted(found, key=lambda one: (one.created_ms, one.id))

    async def manifest(self, snapshot: Snapshot) -> Manifest:
        """What was copied. `CorruptData`, also if a section of it is gone."""
        where = snapshot_key(snapshot.home, snapshot.id)
        try:
            return await self._manifests.decoded(snapshot.encoded, snapshot.home, where)
        except ObjectNotFound as error:
            raise CorruptData(f"{where} names what is not there: {error}") from error

    async def is_complete(self, snapshot: Snapshot) -> bool:
        """Whether its home's object is there: not yet, or no longer, where only copies are."""
        return await self._store.stat(snapshot_key(snapshot.home, snapshot.id)) is not None

    async def delete(self, snapshot: Snapshot) -> None:
        """Its files are free to be collected, but for what else names them."""
        await self.delete_objects(snapshot.id, snapshot.home, snapshot.origins)

    async def delete_objects(self, snapshot_id: str, home: str, origins: Sequence[str]) -> None:
        """The same, for who knows where they lie."""
        for prefix in (home, *origins):
            await self._store.delete(snapshot_key(prefix, snapshot_id))

    async def release(self, prefix: str, snapshot: Snapshot) -> None:
        """Delete the object under this one prefix."""
        await self._store.delete(snapshot_key(prefix, snapshot.id))

    async def _put(self, snapshot: Snapshot) -> None:
        """Repeating it writes the same bytes; the id is nobody else's."""
        data = _sealed(snapshot)
        keys = [snapshot_key(origin, snapshot.id) for origin in snapshot.origins]
        await asyncio.gather(*(self._store.put_if_absent(key, data) for key in keys))
        await self._store.put_if_absent(snapshot_key(snapshot.home, snapshot.id), data)


def as_attached(manifest: Manifest, home: str, lsn: int) -> Manifest:
    """A snapshot's manifest, of the namespace at `home`, as another one names its files from `lsn`
    on: all rows count as written at `lsn`, for their own LSNs are of another log.
    """
    replace = msgspec.structs.replace
    files, runs, sections = manifest.files, manifest.id_runs, manifest.sections
    return replace(
        manifest,
        files=tuple(replace(f, origin=f.origin or home, lsn_as=lsn) for f in files),
        id_runs=tuple(replace(run, origin=run.origin or home) for run in runs),
        sections=tuple(replace(s, origin=s.origin or home, lsn_as=lsn) for s in sections),
    )


def _snapshot(
    manifest: Manifest,
    encoded: bytes,
    name: str,
    kind: SnapshotKind,
    created_ms: int,
    holder: tuple[str, str],
) -> Snapshot:
    home = namespace_prefix(manifest.index_id, manifest.namespace)
    named = {file.origin for file in manifest.files}
    named |= {run.origin for run in manifest.id_runs}
    named |= {section.origin for section in manifest.sections}
    origins = tuple(sorted(named - {"", home}))
    if len(origins) > ORIGINS_MAX:
        raise FailedPrecondition(
            f"namespace {manifest.namespace!r} shares files with {len(origins)} others, "
            f"{ORIGINS_MAX} are the most; recluster it first, then its files are its own"
        )
    return Snapshot(
        id=new_uuid(),
        name=name,
        kind=kind,
        created_ms=created_ms,
        holder_index=holder[0],
        holder_namespace=holder[1],
        home=home,
        origins=origins,
        index_id=manifest.index_id,
        namespace=manifest.namespace,
        indexed_lsn=manifest.indexed_lsn,
        manifest_version=manifest.version,
        manifest_created_ms=manifest.created_ms,
        record_count=manifest.record_count,
        byte_count=manifest.byte_count,
        encoded=encoded,
    )


def _still_pinned(made: Snapshot, copied: Manifest, newest: Manifest) -> bool:
    """What other namespaces share with this one is in use for as long as this life of it."""
    same_life = not newest.deleted and newest.generation == copied.generation
    return newest.boundary == copied.boundary and (same_life or not made.origins)


def _sealed(snapshot: Snapshot) -> bytes:
    return seal(MAGIC, _encoder.encode(snapshot))
