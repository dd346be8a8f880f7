"""Reads every object of a namespace and says which still hold a deleted record.

An object that the newest manifest does not name is told of whatever it holds, unless it is one of
those that hold no records; so is a named file with a dead row. Beyond that the bytes of the ids and
vectors that were to go are looked for in every object.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from builder.garbage.beside import Beside
from core.errors import CorruptData, ObjectNotFound
from core.object_store import ObjectInfo
from storage.commit import ManifestStore
from storage.layout import kind_of, pack_keys, snapshots_prefix, version_of
from storage.manifest import Manifest
from storage.namespace import NamespaceReader
from storage.references import keys_of
from storage.section_store import SectionStore
from storage.snapshots import SnapshotStore

# Shorter ones are found by chance in any file; those are looked for by decoding alone.
RAW_ID_BYTES_MIN = 8
RAW_VECTOR_BYTES_MIN = 16
DATA_KINDS = ("clusters", "deltas", "ids", "sections")


@dataclass(frozen=True, slots=True)
class Sought:
    """ids: those that were to go. raw: their bytes, and the bytes of their vectors, as far as they
    were known.
    """

    ids: frozenset[str] = frozenset()
    raw: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """An object that holds a deleted record, or may; `why` is for a person."""

    key: str
    bytes: int
    why: str


async def sought_of(beside: Beside, ids: Sequence[str]) -> Sought:
    """To be asked before they are deleted: then their vectors are known."""
    raw = [encoded for i in ids if len(encoded := i.encode()) >= RAW_ID_BYTES_MIN]
    manifest = await beside.newest()
    if manifest is not None and manifest.files and ids:
        found = await NamespaceReader(beside.parts.cache, manifest).read(ids)
        vectors = [s.record.values for s in found.values() if s.record.values is not None]
        raw += [v.tobytes() for v in vectors if v.nbytes >= RAW_VECTOR_BYTES_MIN]
    return Sought(frozenset(ids), tuple(raw))


@dataclass(slots=True)
class ErasureScan:
    """`purged`: the version that the purge has committed; older manifests must be gone."""

    beside: Beside
    sought: Sought
    purged: int
    objects: int = 0
    size: int = 0
    version: int = 0
    left: list[Finding] = field(default_factory=list)
    holding: list[str] = field(default_factory=list)
    _named: frozenset[str] = frozenset()

    async def run(self, progress: Callable[[int], None]) -> "ErasureScan":
        newest = await self.beside.newest()
        if newest is None:
            return self
        self.version = newest.version
        prefix = self.beside.schema.prefix
        # What packs have copies of is looked at by itself.
        self._named = keys_of(newest, prefix) | pack_keys(prefix)
        reader = NamespaceReader(self.beside.parts.cache, newest)
        sought = await self._still_gone(reader)
        for place, file in enumerate(newest.files):
            key = (file.origin or prefix) + file.columns.name
            if file.dead_count:
                self._find(key, file.columns.size, f"{file.dead_count} dead rows")
            ids = (await reader.file(place)).all_ids
            if sought.ids and (held := sought.ids.intersection(ids)):
                self._find(key, file.columns.size, f"a row of {min(held)!r}")
        await self._packs(newest, prefix)
        async for info in self.beside.parts.store.list(prefix):
            await self._object(info, sought)
            progress(self.objects)
        await self._snapshots(newest, prefix)
        return self

    async def _still_gone(self, reader: NamespaceReader) -> Sought:
        """Without those that were written again meanwhile."""
        live = await reader.locate(list(self.sought.ids))
        gone = self.sought.ids - live.keys()
        written_again = {i.encode() for i in live}
        return Sought(gone, tuple(raw for raw in self.sought.raw if raw not in written_again))

    async def _object(self, info: ObjectInfo, sought: Sought) -> None:
        kind = kind_of(info.key)
        version = version_of(info.key)
        if kind == "snapshots":
            return
        try:
            data = await self.beside.parts.store.get(info.key)
        except ObjectNotFound:
            return  # gone since the listing
        self.objects += 1
        self.size += len(data)
        if kind in DATA_KINDS and info.key not in self._named:
            self._find(info.key, info.size, "no manifest names it: it was replaced meanwhile")
        elif kind == "manifests" and data and version is not None and version < self.purged:
            self._find(info.key, info.size, "a manifest from before")
        elif kind == "manifest" and await self._is_old(data, info.key):
            self._find(info.key, info.size, "a copy of a manifest from before")
        found = await asyncio.to_thread(lambda: sum(raw in data for raw in sought.raw))
        if found:
            self._find(info.key, info.size, f"the bytes of {found} ids or vectors")

    async def _is_old(self, data: bytes, key: str) -> bool:
        manifests = ManifestStore(self.beside.parts.store)
        try:
            manifest = await manifests.decoded(data, self.beside.schema.prefix, key)
        except (CorruptData, ObjectNotFound):
            return True
        return manifest.version < self.purged

    async def _packs(self, newest: Manifest, prefix: str) -> None:
        named = {section.object.name for section in newest.sections}
        packs = await SectionStore(self.beside.parts.store).packs(prefix)
        for name in sorted(packs.keys() - named):
            self._find(prefix + name, len(packs[name]), "a copy of it is in a pack of sections")

    async def _snapshots(self, newest: Manifest, prefix: str) -> None:
        store = self.beside.parts.store
        snapshots = SnapshotStore(store, ManifestStore(store))
        inline = {file.uuid for file in newest.files if file.inline}
        async for info in store.list(snapshots_prefix(prefix)):
            pin = await snapshots.read(prefix, info.key.rpartition("/")[2])
            if pin is None:
                continue
            manifest = await snapshots.manifest(pin)
            others = keys_of(manifest, pin.home) - self._named
            inside = {file.uuid for file in manifest.files if file.inline} - inline
            if others or inside or any(file.dead_count for file in manifest.files):
                self.holding.append(pin.name or pin.id)

    def _find(self, key: str, size: int, why: str) -> None:
        self.left.append(Finding(key, size, why))
