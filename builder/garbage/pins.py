"""What snapshots and branches keep in use of a namespace's files, and when they let go of it.

A snapshot stays until it is deleted. A branch's goes with the life of the namespace that was made
of it: as long as a manifest of that life is the newest, or may be held by a reader, its files are
read and a rebuild needs the object itself.
"""

from collections.abc import Collection as Names
from collections.abc import Sequence
from dataclasses import dataclass

from builder.garbage.plan import Grace, oldest_kept
from core.errors import CorruptData, FailedPrecondition
from core.indexes import IndexDirectory, IndexState
from core.object_store import ObjectInfo, ObjectStore
from storage.commit import ManifestStore
from storage.layout import manifests_prefix, namespace_prefix, version_of
from storage.manifest import Manifest
from storage.references import keys_of
from storage.snapshots import Snapshot, SnapshotKind, SnapshotStore

# A branch's object is there before its attach entry, and who indexes that may be away for days.
UNUSED_MS = 7 * 24 * 3_600_000
# Copies for other prefixes are put moments before the object at home.
UNFINISHED_MS = 24 * 3_600_000


@dataclass(frozen=True, slots=True)
class Holder:
    """The namespace that a branch's object was made for. gone: its index is deleted. manifests: the
    newest one, and the oldest that a reader may hold.
    """

    gone: bool
    manifests: tuple[Manifest, ...] = ()


def releasable(pin_id: str, holder: Holder, age_ms: int, grace: Grace) -> bool:
    """Whether nobody needs a branch's object any more; `age_ms` by the store's clock.

    Not known to have been attached, it may still be: its entry waits in the log, or never came.
    """
    if holder.gone:
        return age_ms > grace.ms
    used = [manifest for manifest in holder.manifests if manifest.attached == pin_id]
    if used:
        return all(manifest.deleted for manifest in used)
    return age_ms > UNUSED_MS


@dataclass(frozen=True, slots=True)
class Pinned:
    """over: snapshot objects that can go. used: keys in use. temporary: how many may be over one
    day without anything being written here.
    """

    over: Sequence[ObjectInfo]
    used: frozenset[str]
    temporary: int


@dataclass(frozen=True, slots=True)
class Pins:
    """Of one prefix, at one time of the store's clock."""

    store: ObjectStore
    directory: IndexDirectory
    prefix: str
    now_ms: int
    grace: Grace

    async def look(self, infos: Sequence[ObjectInfo], keys: Names[str]) -> "Pinned":
        """At these snapshot objects, and which of these keys they name. `FailedPrecondition` naming
        one that cannot be read.
        """
        over: list[ObjectInfo] = []
        used: set[str] = set()
        temporary = 0
        for info in infos:
            pin = await self._read(info)
            if pin is None or await self._is_over(pin, info):
                over.append(info)
                continue
            if keys:
                used |= await self._named(pin, info) & set(keys)
            temporary += pin.kind is SnapshotKind.BRANCH or pin.home != self.prefix
        return Pinned(over, frozenset(used), temporary)

    @property
    def _manifests(self) -> ManifestStore:
        return ManifestStore(self.store)

    @property
    def _snapshots(self) -> SnapshotStore:
        return SnapshotStore(self.store, self._manifests)

    async def _read(self, info: ObjectInfo) -> Snapshot | None:
        """None if it is gone by now."""
        try:
            return await self._snapshots.read(self.prefix, info.key.rpartition("/")[2])
        except CorruptData as error:
            raise _unreadable(info, error) from error

    async def _named(self, pin: Snapshot, info: ObjectInfo) -> frozenset[str]:
        try:
            return keys_of(await self._snapshots.manifest(pin), pin.home)
        except CorruptData as error:
            raise _unreadable(info, error) from error

    async def _is_over(self, pin: Snapshot, info: ObjectInfo) -> bool:
        age_ms = self.now_ms - info.modified_ms
        if pin.kind is SnapshotKind.SNAPSHOT:
            copied = pin.home != self.prefix and age_ms > UNFINISHED_MS
            return copied and not await self._snapshots.is_complete(pin)
        return releasable(pin.id, await self._holder(pin), age_ms, self.grace)

    async def _holder(self, pin: Snapshot) -> Holder:
        index = await self.directory.find(pin.holder_index)
        if index is None or index.state is IndexState.DELETED:
            return Holder(gone=True)
        key = (pin.holder_index, pin.holder_namespace)
        # In this order: what the newest one has followed is listed.
        newest = await self._manifests.newest(*key)
        listed = self.store.list(manifests_prefix(namespace_prefix(*key)))
        infos = [info async for info in listed if version_of(info.key) is not None]
        kept = oldest_kept(infos, self.now_ms, self.grace)
        version = None if kept is None else version_of(kept.key)
        oldest = None if version is None else await self._manifests.read(*key, version)
        return Holder(False, tuple(m for m in (newest, oldest) if m is not None))


def _unreadable(info: ObjectInfo, error: CorruptData) -> FailedPrecondition:
    return FailedPrecondition(
        f"{info.key} cannot be read by this build, so nothing is collected there: {error}"
    )
