"""Local copies of the objects of data files and id runs: verified, mapped, size-bounded, fetched
once.

Where the store is a local folder its own files are mapped and nothing is copied. One process per
folder. Names are uuids, so a copy is never stale; copies that an earlier process left are used
again after their checksum is verified.
"""

import asyncio
import os
import weakref
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from core.clock import new_uuid
from core.errors import CorruptData, Unavailable
from core.metric import Metric
from core.object_store import ObjectStore
from storage.checksum import checksum
from storage.file_reader import FileReader, as_bytes, map_file
from storage.id_run import IdRunReader
from storage.manifest import DataFile, IdRun, ObjectRef

# A reader maps at most 2 files, and Linux gives a process 65,530 mappings.
READERS_MAX = 8_192
# Objects of a few megabytes each are in memory while they arrive: some 100 MB in all.
FETCHES_MAX = 32
_TEMPORARY = ".part"

R = TypeVar("R", FileReader, IdRunReader)


@dataclass(slots=True)
class CacheCounters:
    """Since the start of the process. A hit is a file that was open already."""

    hits: int = 0
    misses: int = 0
    fetches: int = 0
    fetched_bytes: int = 0
    corrupt: int = 0
    evictions: int = 0


class FileCache:
    """`open` and `open_run` give readers that stay valid for as long as they are held, evicted or
    not.

    Both raise `CorruptData` naming the object whose bytes are wrong twice, `ObjectNotFound`, and
    `Unavailable`.
    """

    def __init__(
        self,
        store: ObjectStore,
        folder: Path,
        max_bytes: int,
        *,
        readers_max: int = READERS_MAX,
    ) -> None:
        """Makes the folder, sweeps what a killed process left half-written, and counts the rest as
        present.
        """
        self._store = store
        self._folder = folder
        self._max_bytes = max_bytes
        self._readers_max = readers_max
        self._readers: OrderedDict[str, FileReader | IdRunReader] = OrderedDict()
        # Evicted readers that a query still holds: asked for again, they need no second mapping.
        self._held: weakref.WeakValueDictionary[str, FileReader | IdRunReader] = (
            weakref.WeakValueDictionary()
        )
        self._opening: dict[str, asyncio.Task[FileReader | IdRunReader]] = {}
        self._fetches = asyncio.Semaphore(FETCHES_MAX)
        self._verified: set[str] = set()
        self._copies: OrderedDict[str, int] = OrderedDict()
        self.bytes = 0
        self.counters = CacheCounters()
        self._sweep()

    async def open(
        self, prefix: str, file: DataFile, metric: Metric, dimension: int | None
    ) -> FileReader:
        """The reader of a manifest's file; `dimension` None (or 0) for a sparse index."""
        name = file.columns.name
        found = self._find(name)
        if found is None:

            async def load() -> FileReader:
                refs = [file.columns] if file.vectors is None else [file.columns, file.vectors]
                paths = await asyncio.gather(*(self._local(prefix, ref) for ref in refs))
                vectors = paths[1] if file.vectors is not None else None
                return await asyncio.to_thread(
                    FileReader, file, prefix, metric, dimension, paths[0], vectors
                )

            found = await self._single_flight(name, load)
        assert isinstance(found, FileReader)
        return found

    async def open_run(self, prefix: str, run: IdRun) -> IdRunReader:
        name = run.object.name
        found = self._find(name)
        if found is None:

            async def load() -> IdRunReader:
                path = await self._local(prefix, run.object)
                return await asyncio.to_thread(_open_run, path, run)

            found = await self._single_flight(name, load)
        assert isinstance(found, IdRunReader)
        return found

    def holds(self, file: DataFile) -> bool:
        """Whether `open` would answer at once; for planning and for counting hits per query."""
        return file.columns.name in self._readers or file.columns.name in self._held

    @property
    def readers(self) -> int:
        return len(self._readers)

    @property
    def heap_bytes(self) -> int:
        """What the open readers built on the heap, estimated; without mappings."""
        return sum(r.heap_bytes for r in self._readers.values() if isinstance(r, FileReader))

    async def close(self) -> None:
        """Ends what is being opened. Readers that are held stay valid; copies stay for the next
        process.
        """
        for task in self._opening.values():
            task.cancel()
        await asyncio.gather(*self._opening.values(), return_exceptions=True)
        self._readers.clear()

    def _find(self, name: str) -> FileReader | IdRunReader | None:
        found = self._readers.get(name) or self._held.get(name)
        if found is not None:
            self.counters.hits += 1
            self._keep(name, found)
        return found

    def _keep(self, name: str, reader: FileReader | IdRunReader) -> None:
        self._readers[name] = reader
        self._readers.move_to_end(name)
        self._held[name] = reader
        while len(self._readers) > self._readers_max:
            self._readers.popitem(last=False)

    async def _single_flight(
        self, name: str, load: Callable[[], Awaitable[R]]
    ) -> FileReader | IdRunReader:
        """One load per file, however many ask; a caller that is cancelled does not cancel the
        others'.
        """
        task = self._opening.get(name)
        if task is None:
            self.counters.misses += 1

            async def run() -> FileReader | IdRunReader:
                try:
                    reader = await load()
                    self._keep(name, reader)
                    return reader
                finally:
                    del self._opening[name]

            task = self._opening[name] = asyncio.create_task(run())
            # Nobody may be left to see its error; then it is seen here.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def _local(self, prefix: str, ref: ObjectRef) -> Path:
        """A file with the object's verified bytes."""
        own = self._store.local_path(prefix + ref.name)
        if own is not None:
            await self._verify_own(own, prefix, ref)
            return own
        path = self._copy_path(ref)
        if path.name in self._copies:
            self._copies.move_to_end(path.name)
            if path.name in self._verified:
                return path
            if await asyncio.to_thread(_matches, path, ref):
                self._verified.add(path.name)
                return path
            self._corrupt_copy(path)
        await self._fetch(prefix, ref, path)
        return path

    async def _verify_own(self, path: Path, prefix: str, ref: ObjectRef) -> None:
        """The store's own file, once per process; read twice before it is called corrupt."""
        if ref.name in self._verified:
            return
        for _ in range(2):
            if await asyncio.to_thread(_matches, path, ref):
                self._verified.add(ref.name)
                return
            self.counters.corrupt += 1
        await self._store.stat(prefix + ref.name)
        raise _corrupt(prefix, ref)

    async def _fetch(self, prefix: str, ref: ObjectRef, path: Path) -> None:
        async with self._fetches:
            for _ in range(2):
                data = await self._store.get(prefix + ref.name)
                self.counters.fetches += 1
                self.counters.fetched_bytes += len(data)
                if (
                    len(data) == ref.size
                    and await asyncio.to_thread(checksum, data) == ref.checksum
                ):
                    self._make_room(ref.size)
                    await asyncio.to_thread(_write, path, data)
                    self._copies[path.name] = ref.size
                    self.bytes += ref.size
                    self._verified.add(path.name)
                    return
                self.counters.corrupt += 1
        raise _corrupt(prefix, ref)

    def _make_room(self, size: int) -> None:
        """Least recently used copies go first. A file larger than the whole cache is kept alone."""
        while self._copies and self.bytes + size > self._max_bytes:
            name = next(iter(self._copies))
            self._forget(name)
            self.counters.evictions += 1

    def _forget(self, name: str) -> None:
        """Readers go with their copy, or the disk's space would not come back; held ones stay
        mapped.
        """
        self.bytes -= self._copies.pop(name)
        self._verified.discard(name)
        (self._folder / name).unlink(missing_ok=True)
        for reader in _reader_names(name):
            self._readers.pop(reader, None)

    def _corrupt_copy(self, path: Path) -> None:
        self.counters.corrupt += 1
        self._forget(path.name)

    def _copy_path(self, ref: ObjectRef) -> Path:
        return self._folder / ref.name.replace("/", "-")

    def _sweep(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        found = []
        for entry in os.scandir(self._folder):
            if entry.name.endswith(_TEMPORARY):
                os.unlink(entry.path)
            elif entry.is_file():
                status = entry.stat()
                found.append((status.st_mtime_ns, entry.name, status.st_size))
        for _, name, size in sorted(found):
            self._copies[name] = size
            self.bytes += size
        self._make_room(0)


def _reader_names(copy: str) -> tuple[str, ...]:
    """The reader that uses a copy is known by the name of its Arrow object or id run."""
    name = copy.replace("-", "/", 1)
    return (name.removesuffix(".ann") + ".arrow",) if name.endswith(".ann") else (name,)


def _matches(path: Path, ref: ObjectRef) -> bool:
    try:
        return path.stat().st_size == ref.size and checksum(path.read_bytes()) == ref.checksum
    except FileNotFoundError:
        return False


def _write(path: Path, data: bytes) -> None:
    """Appears complete or not at all. Not synced: after a crash the checksum decides."""
    temporary = path.with_name(f"{path.name}-{new_uuid()}{_TEMPORARY}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise Unavailable(f"cannot write to the cache folder {path.parent}: {error}") from error


def _open_run(path: Path, run: IdRun) -> IdRunReader:
    return IdRunReader(as_bytes(map_file(path)), run)


def _corrupt(prefix: str, ref: ObjectRef) -> CorruptData:
    return CorruptData(f"object {prefix}{ref.name} does not match its checksum {ref.checksum}")
