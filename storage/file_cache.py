"""The open readers of data files and id runs: each opened once, however many ask, and bounded."""

import asyncio
import weakref
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from core.errors import CorruptData
from core.metric import Metric
from core.object_store import ObjectStore
from storage.checksum import checksum
from storage.file_reader import FileReader, as_bytes
from storage.id_run import IdRunReader
from storage.local_copies import CopyCounters, LocalCopies
from storage.manifest import DataFile, IdRun, ObjectRef

# A reader maps at most 2 files, and Linux gives a process 65,530 mappings.
READERS_MAX = 8_192
# Metadata columns, norms and hashes of the open readers: a filter over 1M records with 5 fields
# takes some 300 MB.
HEAP_BYTES_MAX = 1 << 30
# Readers grow while they are in use, so their sum is taken every so many uses; it costs 1 us a
# reader.
HEAP_CHECK_USES = 1_024

Reader = FileReader | IdRunReader
R = TypeVar("R", FileReader, IdRunReader)


@dataclass(frozen=True, slots=True, eq=False)
class _Opened:
    """A kept reader, and where the bytes are that it reads."""

    reader: Reader
    heap_bytes: int
    mapped_bytes: int

    @property
    def all_heap_bytes(self) -> int:
        return self.heap_bytes + self.reader.heap_bytes


class FileCache:
    """Readers stay valid for as long as they are held, whether the cache keeps them or not.

    For one event loop; one process per folder. `open` and `open_run` raise `CorruptData` naming the
    object whose bytes are wrong, `ObjectNotFound` (a collected file: read a newer manifest) and
    `Unavailable`.
    """

    def __init__(
        self,
        store: ObjectStore,
        folder: Path,
        max_bytes: int,
        *,
        readers_max: int = READERS_MAX,
        heap_bytes_max: int = HEAP_BYTES_MAX,
    ) -> None:
        """`folder` (made if missing) takes at most `max_bytes`: half for copies that outlive the
        process, half for the nameless ones of open readers; all for these over a local store.
        """
        self._max_mapped_bytes = max_bytes if store.local_path("a") else max_bytes // 2
        self._copies = LocalCopies(store, folder, max_bytes // 2, self._copy_evicted)
        self._mapped_bytes = 0
        self._readers_max = readers_max
        self._heap_bytes_max = heap_bytes_max
        # By the name of the Arrow object or id run, least recently used first.
        self._readers: OrderedDict[str, _Opened] = OrderedDict()
        # Evicted readers that a query still holds: asked for again, they need no second copy.
        # They are not kept again, or a copy removed for want of room would never free its space.
        self._held: weakref.WeakValueDictionary[str, Reader] = weakref.WeakValueDictionary()
        self._opening: dict[str, asyncio.Task[Reader]] = {}
        self.hits = 0
        self.misses = 0

    async def open(
        self, prefix: str, file: DataFile, metric: Metric, dimension: int | None
    ) -> FileReader:
        """The reader of a file that the manifest of the namespace at `prefix` names; `dimension`
        None (or 0) for a sparse index.
        """
        prefix = file.origin or prefix
        refs = (file.columns,) if file.vectors is None else (file.columns, file.vectors)
        found = self._find(refs)
        if found is None:

            def read(data: list[pa.Buffer]) -> FileReader:
                vectors = data[1] if file.vectors is not None else None
                return FileReader(file, prefix, metric, dimension, data[0], vectors)

            def load() -> Awaitable[_Opened]:
                if file.inline:
                    return _opened_inline(prefix, file, read)
                return self._load(prefix, refs, read)

            found = await self._single_flight(refs, load)
        assert isinstance(found, FileReader)
        return found.counted_as(file.lsn_as)

    async def open_run(self, prefix: str, run: IdRun) -> IdRunReader:
        """The reader of an id run that the manifest of the namespace at `prefix` names."""
        prefix = run.origin or prefix
        refs = (run.object,)
        found = self._find(refs)
        if found is None:

            def read(data: list[pa.Buffer]) -> IdRunReader:
                return IdRunReader(as_bytes(data[0]), run)

            found = await self._single_flight(refs, lambda: self._load(prefix, refs, read))
        assert isinstance(found, IdRunReader)
        return found

    def forget(self, names: Iterable[str]) -> None:
        """Drop the readers and copies of objects that are gone from the store; names as in the
        manifest. Readers that are held stay valid.
        """
        for name in names:
            self._drop(name)
            self._copies.remove((name,))

    def holds(self, file: DataFile) -> bool:
        """Whether `open` would answer at once; for planning and for counting hits of one query."""
        return (
            bool(file.inline)
            or file.columns.name in self._readers
            or file.columns.name in self._held
        )

    @property
    def readers(self) -> int:
        return len(self._readers)

    @property
    def heap_bytes(self) -> int:
        """What the kept readers have on the heap, estimated: small files, and what was built."""
        return sum(opened.all_heap_bytes for opened in self._readers.values())

    @property
    def mapped_bytes(self) -> int:
        """What the kept readers have in nameless files: disk, and memory while it is there."""
        return self._mapped_bytes

    @property
    def copied_bytes(self) -> int:
        """What the copies in the folder take."""
        return self._copies.bytes

    @property
    def copies(self) -> CopyCounters:
        return self._copies.counters

    async def close(self) -> None:
        """Ends what is being opened. Held readers stay valid, copies stay in the folder."""
        opening = list(self._opening.values())
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        for name in list(self._readers):
            self._drop(name)

    def _find(self, refs: tuple[ObjectRef, ...]) -> Reader | None:
        name = refs[0].name
        found = self._held.get(name)
        if name in self._readers:
            self._readers.move_to_end(name)
            self._copies.touch(ref.name for ref in refs)
        if found is not None:
            self.hits += 1
            self._shed()
        return found

    def _keep(self, name: str, opened: _Opened) -> None:
        self._readers[name] = opened
        self._held[name] = opened.reader
        self._mapped_bytes += opened.mapped_bytes
        self._shed()

    def _drop(self, name: str) -> None:
        opened = self._readers.pop(name, None)
        if opened is not None:
            self._mapped_bytes -= opened.mapped_bytes

    def _shed(self) -> None:
        """Lets go of the least recently used readers until the rest are within the bounds."""
        while len(self._readers) > self._readers_max or self._mapped_bytes > self._max_mapped_bytes:
            self._drop(next(iter(self._readers)))
        if (self.hits + self.misses) % HEAP_CHECK_USES:
            return
        excess = self.heap_bytes - self._heap_bytes_max
        while excess > 0 and len(self._readers) > 1:
            name, opened = next(iter(self._readers.items()))
            self._drop(name)
            excess -= opened.all_heap_bytes

    def _copy_evicted(self, name: str) -> None:
        self._drop(name.removesuffix(".ann") + ".arrow")
        self._drop(name)

    async def _single_flight(
        self, refs: tuple[ObjectRef, ...], load: Callable[[], Awaitable[_Opened]]
    ) -> Reader:
        """One load per file; a caller that is cancelled does not cancel it for the others."""
        name = refs[0].name
        task = self._opening.get(name)
        if task is None:
            self.misses += 1

            async def run() -> Reader:
                try:
                    opened = await load()
                    self._keep(name, opened)
                    return opened.reader
                finally:
                    del self._opening[name]

            task = self._opening[name] = asyncio.create_task(run())
            # Nobody may be left to see its error; then it is seen here.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def _load(
        self,
        prefix: str,
        refs: tuple[ObjectRef, ...],
        read: Callable[[list[pa.Buffer]], R],
    ) -> _Opened:
        copies = await asyncio.gather(*(self._copies.read(prefix, ref) for ref in refs))
        return _Opened(
            await asyncio.to_thread(read, [copy.data for copy in copies]),
            sum(copy.heap_bytes for copy in copies),
            sum(copy.mapped_bytes for copy in copies),
        )


async def _opened_inline(
    prefix: str, file: DataFile, read: Callable[[list[pa.Buffer]], FileReader]
) -> _Opened:
    """A file whose bytes are in the manifest: nothing is fetched."""
    ref = file.columns
    if len(file.inline) != ref.size or checksum(file.inline) != ref.checksum:
        raise CorruptData(f"{prefix}{ref.name}, inline, does not match its size and checksum")
    return _Opened(read([pa.py_buffer(file.inline)]), len(file.inline), 0)
