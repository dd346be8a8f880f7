"""Files on this machine with the bytes of immutable objects: bounded, verified at each read.

Where the store is a local folder, no second file is kept. Names are uuids, so a copy is never
stale; copies that an earlier process left are used again.
"""

import asyncio
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from core.clock import new_uuid
from core.errors import ConfigError, CorruptData, Unavailable
from core.object_store import ObjectStore
from storage.checksum import checksum
from storage.manifest import ObjectRef
from storage.private_copy import PARTIAL, PrivateCopy, private_copy, write_whole

# Objects of a few megabytes each are in memory while they arrive: some 100 MB in all.
FETCHES_MAX = 32
_COPY_NAME = re.compile(r"(clusters|deltas|ids)-\w+(\.ann|\.arrow)?")


@dataclass(slots=True)
class CopyCounters:
    """Since the start of the process. corrupt_copies: copies here that were damaged or gone;
    corrupt_objects: times that the store gave bytes that do not match their checksum.
    """

    fetches: int = 0
    fetched_bytes: int = 0
    corrupt_copies: int = 0
    corrupt_objects: int = 0
    evictions: int = 0


class LocalCopies:
    """For one event loop; one process per folder."""

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
        self._fetches = asyncio.Semaphore(FETCHES_MAX)
        self.bytes = 0
        self.counters = CopyCounters()
        try:
            self._take_over()
        except OSError as error:
            raise ConfigError(f"the cache folder {folder} cannot be used: {error}") from error

    async def read(self, prefix: str, ref: ObjectRef) -> PrivateCopy:
        """The object's verified bytes, its copy's if there is one, else the store's.

        `CorruptData` naming the object when its bytes were wrong twice; `ObjectNotFound`;
        `Unavailable`. One call at a time for one object.
        """
        if ref.name in self._sizes:
            self.touch((ref.name,))
            path = self._folder / _copy_name(ref.name)
            found = await asyncio.to_thread(_read_copy, path, ref, self._folder)
            if found is not None:
                return found
            if ref.name in self._sizes:  # else it was evicted just now
                self.counters.corrupt_copies += 1
                self.remove((ref.name,))
        return await self._fetch(prefix, ref)

    def touch(self, names: Iterable[str]) -> None:
        """These were used just now."""
        for name in names:
            if name in self._sizes:
                self._sizes.move_to_end(name)

    def remove(self, names: Iterable[str]) -> None:
        """Forget these copies; what was read of them stays valid."""
        for name in names:
            size = self._sizes.pop(name, None)
            if size is not None:
                self.bytes -= size
                (self._folder / _copy_name(name)).unlink(missing_ok=True)
                self._evicted(name)

    async def _fetch(self, prefix: str, ref: ObjectRef) -> PrivateCopy:
        key = prefix + ref.name
        async with self._fetches:
            for _ in range(2):
                data = await self._store.get(key)
                self.counters.fetches += 1
                self.counters.fetched_bytes += len(data)
                if await asyncio.to_thread(_are, data, ref):
                    # a local store's own file is copy enough
                    if self._store.local_path(key) is None and ref.size <= self._max_bytes:
                        await self._keep(ref, data)
                    return await asyncio.to_thread(private_copy, data, self._folder)
                self.counters.corrupt_objects += 1
        raise CorruptData(f"object {key} does not match its checksum {ref.checksum}")

    async def _keep(self, ref: ObjectRef, data: bytes) -> None:
        self._make_room(ref.size)
        await asyncio.to_thread(_write, self._folder / _copy_name(ref.name), data)
        self._sizes[ref.name] = ref.size
        self.bytes += ref.size
        self._make_room(0)  # others may have come meanwhile

    def _make_room(self, size: int) -> None:
        """Removes copies, least recently used first, until `size` more bytes fit."""
        while self._sizes and self.bytes + size > self._max_bytes:
            self.remove((next(iter(self._sizes)),))
            self.counters.evictions += 1

    def _take_over(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        found = []
        for entry in os.scandir(self._folder):
            if entry.name.endswith(PARTIAL):
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
    return len(data) == ref.size and checksum(data) == ref.checksum


def _read_copy(path: Path, ref: ObjectRef, folder: Path) -> PrivateCopy | None:
    """None if it is not there or not what it was."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unavailable(f"cannot read {path}: {error}") from error
    return private_copy(data, folder) if _are(data, ref) else None


def _write(path: Path, data: bytes) -> None:
    """Appears complete or not at all. Not synced: after a crash the checksum decides."""
    partial = path.with_name(f"{path.name}-{new_uuid()}{PARTIAL}")
    try:
        with partial.open("xb", buffering=0) as file:
            write_whole(file.fileno(), data)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise Unavailable(f"cannot write to the cache folder {path.parent}: {error}") from error
