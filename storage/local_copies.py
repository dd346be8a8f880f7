"""Verified files on this machine with the bytes of immutable objects, bounded by size.

Where the store is a local folder, its own files are verified and used, and nothing is copied. Names
are uuids, so a copy is never stale; copies that an earlier process left are used again once their
checksum is verified.
"""

import asyncio
import os
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from core.clock import new_uuid
from core.errors import ConfigError, CorruptData, ObjectNotFound, Unavailable
from core.object_store import ObjectStore
from storage.checksum import checksum
from storage.manifest import ObjectRef

# Objects of a few megabytes each are in memory while they arrive: some 100 MB in all.
FETCHES_MAX = 32
# Names, some 200 bytes each; one that fell out is verified again at its next opening.
VERIFIED_MAX = 65_536
_PARTIAL = ".part"
_COPY_NAME = re.compile(r"(clusters|deltas|ids)-\w+(\.ann|\.arrow)?")


@dataclass(slots=True)
class CopyCounters:
    """Since the start of the process. corrupt: times that bytes did not match their checksum."""

    fetches: int = 0
    fetched_bytes: int = 0
    corrupt: int = 0
    evictions: int = 0


class LocalCopies:
    """For one event loop; one process per folder.

    The bound holds except for a copy that is larger than all of it, and for those pinned.
    """

    def __init__(
        self, store: ObjectStore, folder: Path, max_bytes: int, evicted: Callable[[str], None]
    ) -> None:
        """Sweeps what a killed process left half-written and takes the other copies over.

        `evicted` is told the name of each object whose copy is removed. `ConfigError` if the folder
        cannot be used.
        """
        self._store = store
        self._folder = folder
        self._max_bytes = max_bytes
        self._evicted = evicted
        self._sizes: OrderedDict[str, int] = OrderedDict()  # by object name, least recent first
        self._verified: OrderedDict[str, None] = OrderedDict()
        self._pins: Counter[str] = Counter()
        self._fetches = asyncio.Semaphore(FETCHES_MAX)
        self.bytes = 0
        self.counters = CopyCounters()
        try:
            self._take_over()
        except OSError as error:
            raise ConfigError(f"the cache folder {folder} cannot be used: {error}") from error

    async def path(self, prefix: str, ref: ObjectRef) -> Path:
        """A file with the object's verified bytes; stays there while it is pinned.

        `CorruptData` naming the object when its bytes were wrong twice; `ObjectNotFound`;
        `Unavailable`. One call at a time for one object.
        """
        own = self._store.local_path(prefix + ref.name)
        if own is not None:
            await self._verify_own(own, prefix, ref)
            return own
        path = self._folder / _copy_name(ref.name)
        if ref.name in self._sizes:
            self.touch((ref.name,))
            if ref.name in self._verified:
                return path
            if await asyncio.to_thread(_matches, path, ref):
                self._mark_verified(ref.name)
                return path
            self.counters.corrupt += 1
            self.remove((ref.name,))
        await self._fetch(prefix, ref, path)
        return path

    @contextmanager
    def pinned(self, names: Iterable[str]) -> Iterator[None]:
        """Within it, the copies of these objects are not removed for want of room."""
        pins = Counter(names)
        self._pins += pins
        try:
            yield
        finally:
            self._pins -= pins
            self._make_room(0)

    def touch(self, names: Iterable[str]) -> None:
        """These were used just now."""
        for name in names:
            if name in self._sizes:
                self._sizes.move_to_end(name)

    def remove(self, names: Iterable[str]) -> None:
        """Forget these, and whether they were verified. What is mapped stays valid."""
        for name in names:
            self._verified.pop(name, None)
            size = self._sizes.pop(name, None)
            if size is not None:
                self.bytes -= size
                (self._folder / _copy_name(name)).unlink(missing_ok=True)
                self._evicted(name)

    async def _verify_own(self, path: Path, prefix: str, ref: ObjectRef) -> None:
        """The store's own file, once per process; read twice before it is called corrupt."""
        if ref.name in self._verified:
            return
        for _ in range(2):
            if await asyncio.to_thread(_matches, path, ref):
                self._mark_verified(ref.name)
                return
            if await self._store.stat(prefix + ref.name) is None:
                raise ObjectNotFound(f"there is no object {prefix}{ref.name}")
            self.counters.corrupt += 1
        raise _corrupt(prefix, ref)

    async def _fetch(self, prefix: str, ref: ObjectRef, path: Path) -> None:
        async with self._fetches:
            for _ in range(2):
                data = await self._store.get(prefix + ref.name)
                self.counters.fetches += 1
                self.counters.fetched_bytes += len(data)
                if await asyncio.to_thread(_are, data, ref):
                    self._make_room(ref.size)
                    await asyncio.to_thread(_write, path, data)
                    self._sizes[ref.name] = ref.size
                    self.bytes += ref.size
                    self._mark_verified(ref.name)
                    return
                self.counters.corrupt += 1
        raise _corrupt(prefix, ref)

    def _mark_verified(self, name: str) -> None:
        self._verified[name] = None
        if len(self._verified) > VERIFIED_MAX:
            self._verified.popitem(last=False)

    def _make_room(self, size: int) -> None:
        """Removes unpinned copies, least recently used first, until `size` more bytes fit."""
        if self.bytes + size <= self._max_bytes:
            return
        for name in [name for name in self._sizes if name not in self._pins]:
            self.remove((name,))
            self.counters.evictions += 1
            if self.bytes + size <= self._max_bytes:
                return

    def _take_over(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        found = []
        for entry in os.scandir(self._folder):
            if entry.name.endswith(_PARTIAL):
                os.unlink(entry.path)
            elif _COPY_NAME.fullmatch(entry.name):
                status = entry.stat()
                found.append((status.st_mtime_ns, entry.name, status.st_size))
        for _, name, size in sorted(found):
            self._sizes[name.replace("-", "/", 1)] = size
            self.bytes += size
        self._make_room(0)


def _copy_name(object_name: str) -> str:
    return object_name.replace("/", "-", 1)


def _are(data: bytes, ref: ObjectRef) -> bool:
    return checksum(data) == ref.checksum


def _matches(path: Path, ref: ObjectRef) -> bool:
    try:
        return path.stat().st_size == ref.size and _are(path.read_bytes(), ref)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise Unavailable(f"cannot read {path}: {error}") from error


def _write(path: Path, data: bytes) -> None:
    """Appears complete or not at all. Not synced: after a crash the checksum decides."""
    partial = path.with_name(f"{path.name}-{new_uuid()}{_PARTIAL}")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise Unavailable(f"cannot write to the cache folder {path.parent}: {error}") from error


def _corrupt(prefix: str, ref: ObjectRef) -> CorruptData:
    return CorruptData(f"object {prefix}{ref.name} does not match its checksum {ref.checksum}")
