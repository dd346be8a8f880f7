"""The manifests that queries work with: cached per namespace, refreshed on news, proven newest on
demand.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from weakref import WeakValueDictionary

from core.clock import Clock
from core.errors import CorruptData, FirnError, ObjectNotFound, Unavailable
from core.feed import FeedEvent, ManifestEvent
from core.log import NO_LSN
from core.records import StoredRecord
from storage.commit import ManifestStore
from storage.file_cache import FileCache
from storage.manifest import DataFile, Manifest, memory_of
from storage.namespace import NamespaceReader
from storage.references import objects_of

# A manifest is some kilobytes, with a tiny namespace's records inside up to a hundred, with
# centroids up to some megabytes for the largest.
NAMESPACES_MAX = 4_096
MANIFESTS_BYTES_MAX = 64 << 20
# A manifest read this long ago cannot have been collected: garbage is older than the longest query.
TRUSTED_S = 60.0
# When a manifest was read that is not known to have been the newest then.
LONG_AGO_S = float("-inf")
# Each of them needs a purge or a collection without grace in the middle of a read.
MISSING_MAX = 8
# Bases of pending updates, kept per manifest so that every query does not read them again.
BASES_MAX = 20_000
# Of a state apart from its manifest: its objects, a reader, the key.
STATE_BYTES = 2_000

# New files of one commit that are opened before the first query needs them.
PREFETCH_BYTES_MAX = 256 << 20

NamespaceKey = tuple[str, str]
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class NamespaceState:
    """One manifest and what is known of it. `manifest` None: the namespace never had one.

    complete_lsn: every entry of the namespace up to here (inclusive) is inside; at least
    `indexed_lsn`, more after a proof.
    """

    manifest: Manifest | None
    reader: NamespaceReader | None
    complete_lsn: int
    read_s: float
    bases: dict[str, StoredRecord | None] = field(default_factory=dict)

    @property
    def version(self) -> int:
        return 0 if self.manifest is None else self.manifest.version

    @property
    def size_bytes(self) -> int:
        return STATE_BYTES + (0 if self.manifest is None else memory_of(self.manifest))

    @property
    def exists(self) -> bool:
        return self.manifest is not None and not self.manifest.deleted

    async def read(self, ids: Sequence[str]) -> dict[str, StoredRecord]:
        """Live records of the files; absent ids are left out."""
        return {} if self.reader is None else await self.reader.read(ids)

    async def read_bases(self, ids: Sequence[str]) -> dict[str, StoredRecord]:
        """As `read`, remembered for the next query."""
        missing = [i for i in ids if i not in self.bases]
        if missing:
            found = await self.read(missing)
            if len(self.bases) + len(missing) > BASES_MAX:
                self.bases.clear()
            self.bases.update({i: found.get(i) for i in missing})
        bases = ((i, self.bases.get(i)) for i in ids)
        return {i: base for i, base in bases if base is not None}


class ManifestCache:
    """For one event loop. News makes it read the new manifest in the background; queries go on with
    the old one.
    """

    def __init__(self, manifests: ManifestStore, files: FileCache, clock: Clock) -> None:
        self._manifests = manifests
        self._files = files
        self._clock = clock
        self._states: OrderedDict[NamespaceKey, NamespaceState] = OrderedDict()
        self._states_bytes = 0
        # One is there as long as somebody holds it or waits for it.
        self._locks: WeakValueDictionary[NamespaceKey, asyncio.Lock] = WeakValueDictionary()
        self._refreshing: dict[NamespaceKey, asyncio.Task[None]] = {}

    async def get(self, index_id: str, namespace: str) -> NamespaceState:
        key = (index_id, namespace)
        state = self._states.get(key)
        if state is None:
            async with self._lock(key):
                state = self._states.get(key) or await self._load_recent(key)
        if key in self._states:
            self._states.move_to_end(key)
        return state

    async def prove(self, index_id: str, namespace: str, floor_lsn: int) -> NamespaceState:
        """A state complete up to `floor_lsn` at least: all entries up to there were in published
        manifests before this call, and the manifest is found to be the newest during it.
        """
        key = (index_id, namespace)
        async with self._lock(key):
            state = self._states.get(key)
            if state is not None and state.complete_lsn >= floor_lsn:
                return state
            if state is None or not await self._still_newest(key, state):
                state = await self._load(key, None if state is None else state.version)
            state.complete_lsn = max(state.complete_lsn, floor_lsn)
            return state

    async def refresh(self, index_id: str, namespace: str) -> NamespaceState:
        """The newest manifest as of this call."""
        key = (index_id, namespace)
        async with self._lock(key):
            known = self._states.get(key)
            return await self._load(key, None if known is None else known.version)

    async def with_files(
        self, index_id: str, namespace: str, read: Callable[[], Awaitable[T]]
    ) -> T:
        """What `read` gives, tried again with the newest manifest if a file is missing: a
        compaction without new writes moves no LSN, so when its news got lost the known manifest may
        outlive its files; and a purge takes them at once. `CorruptData` if the newest one names a
        missing file.
        """
        newest: int | None = None
        for _ in range(MISSING_MAX):
            try:
                return await read()
            except ObjectNotFound as error:
                found = (await self.refresh(index_id, namespace)).version
                if found == newest:
                    raise CorruptData(
                        f"a file of the newest manifest is missing: {error}"
                    ) from error
                newest = found
        raise Unavailable(f"the files of {namespace!r} change faster than they are read")

    def hear(self, event: FeedEvent) -> None:
        if not isinstance(event, ManifestEvent):
            return
        key = (event.index_id, event.namespace)
        state = self._states.get(key)
        if state is None or state.version >= event.version or key in self._refreshing:
            return
        task = asyncio.create_task(self._refresh(key, event.version))
        self._refreshing[key] = task

    async def close(self) -> None:
        tasks = list(self._refreshing.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _refresh(self, key: NamespaceKey, version: int) -> None:
        try:
            asked_s = self._clock.monotonic()
            manifest = await self._manifests.newest(*key, at_least=version)
            if manifest is not None:
                await self._open_new_files(key, manifest)
            async with self._lock(key):
                if (state := self._states.get(key)) is not None and state.version < version:
                    self._install(key, manifest, asked_s)
        except FirnError:
            # the old one is good until freshness sends a reader back; then the error is the
            # reader's
            return
        finally:
            del self._refreshing[key]

    async def _still_newest(self, key: NamespaceKey, state: NamespaceState) -> bool:
        recent = self._clock.monotonic() - state.read_s < TRUSTED_S
        if state.manifest is None or not recent:
            return False
        return await self._manifests.is_newest(*key, state.version)

    async def _load(self, key: NamespaceKey, at_least: int | None) -> NamespaceState:
        """Reads and keeps; the lock is held."""
        asked_s = self._clock.monotonic()
        manifest = await self._manifests.newest(*key, at_least=at_least or None)
        return self._install(key, manifest, asked_s)

    async def _load_recent(self, key: NamespaceKey) -> NamespaceState:
        """As `_load`, in one round of requests. What freshness says tells whether it is good
        enough, and who needs it to be the newest reads it again.
        """
        return self._install(key, await self._manifests.recent(*key), LONG_AGO_S)

    async def _open_new_files(self, key: NamespaceKey, manifest: Manifest) -> None:
        """Fetches what the known manifest has not, so that the first query after a compaction finds
        it in the cache; only for namespaces that are being queried.
        """
        known = self._states.get(key)
        if known is None or known.manifest is None:
            return
        old = {file.uuid for file in known.manifest.files}
        new = [place for place, file in enumerate(manifest.files) if file.uuid not in old]
        size = sum(_size(manifest.files[place]) for place in new)
        if new and size <= PREFETCH_BYTES_MAX:
            await NamespaceReader(self._files, manifest).files(new)

    def _install(
        self, key: NamespaceKey, manifest: Manifest | None, asked_s: float
    ) -> NamespaceState:
        known = self._states.get(key)
        if known is not None and manifest is not None and known.version == manifest.version:
            known.read_s = asked_s
            return known
        if known is not None and known.manifest is not None:
            # Nobody asks for them again; and what a purge takes must be gone here as well.
            self._files.forget(_without(known.manifest, manifest))
        reader = None
        if manifest is not None and manifest.files:
            reader = NamespaceReader(self._files, manifest)
        complete = NO_LSN if manifest is None else manifest.indexed_lsn
        if known is not None:
            complete = max(complete, known.complete_lsn)
        state = NamespaceState(manifest, reader, complete, asked_s)
        self._keep(key, state)
        return state

    def _keep(self, key: NamespaceKey, state: NamespaceState) -> None:
        self._drop(key)
        self._states[key] = state
        self._states_bytes += state.size_bytes
        while len(self._states) > NAMESPACES_MAX or (
            self._states_bytes > MANIFESTS_BYTES_MAX and len(self._states) > 1
        ):
            self._drop(next(iter(self._states)))

    def _drop(self, key: NamespaceKey) -> None:
        state = self._states.pop(key, None)
        if state is not None:
            self._states_bytes -= state.size_bytes

    def _lock(self, key: NamespaceKey) -> asyncio.Lock:
        return self._locks.setdefault(key, asyncio.Lock())


def _size(file: DataFile) -> int:
    return file.columns.size + (0 if file.vectors is None else file.vectors.size)


def _without(known: Manifest, following: Manifest | None) -> list[str]:
    """Names of the objects of files and id runs that only the first one has."""
    files = set() if following is None else {file.uuid for file in following.files}
    runs = set() if following is None else {run.object.name for run in following.id_runs}
    gone = objects_of(
        [file for file in known.files if file.uuid not in files],
        [run for run in known.id_runs if run.object.name not in runs],
    )
    return [ref.name for _, ref in gone]
