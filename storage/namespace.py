"""One manifest and its files together: which rows are live, where an id is, ids in order."""

import asyncio
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from core.errors import CorruptData
from core.metric import Metric
from core.records import StoredRecord
from core.turns import step_aside_in_thread
from storage.file_cache import FileCache
from storage.file_reader import FileReader
from storage.id_run import AskedIds, IdRunReader
from storage.layout import namespace_prefix
from storage.listing import list_ids
from storage.lookup import NOTHING, Found, Location, live, of_file, of_run
from storage.manifest import IdRun, Manifest
from storage.rows import Rows

# Files of a few megabytes: enough in flight to fill a network, few enough to bound memory.
OPEN_AT_ONCE = 64

I64 = npt.NDArray[np.int64]


class NamespaceReader:
    """For one event loop; costs nothing until it is asked. Errors are those of `FileCache.open`."""

    def __init__(self, cache: FileCache, manifest: Manifest) -> None:
        self.manifest = manifest
        self.prefix = namespace_prefix(manifest.index_id, manifest.namespace)
        self._cache = cache
        self._places = {file.uuid: place for place, file in enumerate(manifest.files)}
        self._dead: dict[int, BitMap] = {}

    async def file(self, place: int) -> FileReader:
        """The reader of `manifest.files[place]`."""
        manifest = self.manifest
        return await self._cache.open(
            self.prefix,
            manifest.files[place],
            Metric(manifest.metric),
            manifest.dimension or None,
        )

    async def files(self, places: Sequence[int] | None = None) -> list[FileReader]:
        """Those files (all if None), in that order."""
        asked = range(len(self.manifest.files)) if places is None else places
        readers: list[FileReader] = []
        for start in range(0, len(asked), OPEN_AT_ONCE):
            part = asked[start : start + OPEN_AT_ONCE]
            readers += await asyncio.gather(*(self.file(place) for place in part))
        return readers

    async def runs(self, runs: Sequence[IdRun]) -> list[IdRunReader]:
        """The readers of those runs of the manifest, in that order."""
        readers: list[IdRunReader] = []
        for start in range(0, len(runs), OPEN_AT_ONCE):
            part = runs[start : start + OPEN_AT_ONCE]
            readers += await asyncio.gather(
                *(self._cache.open_run(self.prefix, run) for run in part)
            )
        return readers

    @property
    def bare(self) -> list[int]:
        """The files whose ids are in no run: they are looked up in the files themselves."""
        return [place for place, file in enumerate(self.manifest.files) if not file.in_runs]

    def place_of(self, uuid: str) -> int | None:
        """Of a file in the manifest's `files`; None if it is not there."""
        return self._places.get(uuid)

    def dead_of(self, uuid: str) -> BitMap | None:
        """The dead rows of a file, not to be changed; None: the manifest does not name it."""
        place = self._places.get(uuid)
        return None if place is None else self.dead(place)

    def dead(self, place: int) -> BitMap:
        """The dead rows of a file; not to be changed."""
        found = self._dead.get(place)
        if found is None:
            found = self._dead[place] = self.manifest.files[place].dead_rows()
        return found

    def live_rows(self, place: int) -> I64:
        """int64, ascending: the live row numbers of a file."""
        return np.flatnonzero(self.live_mask(place))

    def live_mask(self, place: int) -> npt.NDArray[np.bool_]:
        """bool (n,), true where live: the caller's own array."""
        mask = np.ones(self.manifest.files[place].rows, dtype=np.bool_)
        dead = self.dead(place)
        if dead:
            mask[np.frombuffer(dead.to_array(), dtype=np.uint32)] = False
        return mask

    async def live(self, place: int) -> Rows:
        """Copies of the live rows of a file, in row order."""
        reader = await self.file(place)
        return await asyncio.to_thread(reader.take, self.live_rows(place))

    async def find(self, ids: Sequence[str]) -> Found:
        """The live rows of these ids; ids that have none are left out.

        Opens the runs whose range has one of the ids, and bare files; no other.
        """
        if not ids or not self.manifest.files:
            return NOTHING
        asked = await asyncio.to_thread(AskedIds, ids)
        spans = [(run, asked.within(run)) for run in self.manifest.id_runs]
        spans = [(run, (start, end)) for run, (start, end) in spans if start < end]
        bare = self.bare
        runs, files = await asyncio.gather(self.runs([run for run, _ in spans]), self.files(bare))

        def find() -> Found:
            hits = []
            for run, (_, span) in zip(runs, spans, strict=True):
                step_aside_in_thread()
                hits.append(of_run(run, asked, span, self._places))
            hits += [of_file(n, file, asked) for n, file in zip(bare, files, strict=True)]
            return live(hits, self.dead, asked)

        try:
            return await asyncio.to_thread(find)
        except CorruptData as error:
            where = f"{self.prefix}, manifest {self.manifest.version}"
            raise CorruptData(f"{where}: {error}") from error

    async def locate(self, ids: Sequence[str]) -> dict[str, Location]:
        """As `find`, by id."""
        found = await self.find(ids)
        places = zip(found.files.tolist(), found.rows.tolist(), strict=True)
        return {name: Location(*at) for name, at in zip(found.ids, places, strict=True)}

    async def read(self, ids: Sequence[str]) -> dict[str, StoredRecord]:
        """The live record of each id; ids that have none are left out."""
        parts = list((await self.find(ids)).by_file())
        readers = await self.files([place for place, _, _ in parts])

        def read() -> dict[str, StoredRecord]:
            found: dict[str, StoredRecord] = {}
            for (_, names, rows), reader in zip(parts, readers, strict=True):
                taken = reader.take(rows)
                found.update((name, taken.stored(at)) for at, name in enumerate(names))
            return found

        return await asyncio.to_thread(read)

    async def list_ids(
        self, prefix: str = "", after: str | None = None, limit: int = 100
    ) -> list[str]:
        """The first `limit` live ids that start with `prefix` and are > `after`, ascending (by code
        point).
        """
        return await list_ids(self, prefix, after, limit)
