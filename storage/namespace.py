"""One manifest and its files together: which rows are live, where an id is, ids in order."""

import asyncio
import heapq
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from core.errors import CorruptData
from core.metric import Metric
from core.records import StoredRecord
from storage.checksum import IdHashes, id_hashes
from storage.file_cache import FileCache
from storage.file_reader import FileReader
from storage.id_run import IdRunReader, uncovered
from storage.layout import namespace_prefix
from storage.manifest import Manifest
from storage.rows import Rows

# Files of a few megabytes: enough in flight to fill a network, few enough to bound memory.
OPEN_AT_ONCE = 64

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """`file` is a place in the manifest's `files`."""

    file: int
    row: int


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

    async def locate(self, ids: Sequence[str]) -> dict[str, Location]:
        """Where the live record of each id is; ids that have none are left out."""
        names = list(dict.fromkeys(ids))
        if not names or not self.manifest.files:
            return {}
        runs = await asyncio.gather(
            *(self._cache.open_run(self.prefix, run) for run in self.manifest.id_runs)
        )
        bare = uncovered(self.manifest.id_runs, self.manifest.files)
        bare_places = [self._places[file.uuid] for file in bare]
        bare_readers = await self.files(bare_places)
        scanned = list(zip(bare_places, bare_readers, strict=True))
        candidates = await asyncio.to_thread(self._candidates, names, runs, scanned)
        readers = await self.files(list(candidates))
        return await asyncio.to_thread(self._exact, names, candidates, readers)

    async def read(self, ids: Sequence[str]) -> dict[str, StoredRecord]:
        """The live record of each id; ids that have none are left out."""
        located = await self.locate(ids)
        by_file: dict[int, list[tuple[str, int]]] = {}
        for record_id, at in located.items():
            by_file.setdefault(at.file, []).append((record_id, at.row))
        readers = await self.files(list(by_file))
        return await asyncio.to_thread(_read, list(by_file.values()), readers)

    async def list_ids(
        self, prefix: str = "", after: str | None = None, limit: int = 100
    ) -> list[str]:
        """The first `limit` live ids that start with `prefix` and are > `after`, ascending (by code
        point).
        """
        readers = await self.files()
        return await asyncio.to_thread(self._ids_in_order, readers, prefix, after, limit)

    def _candidates(
        self,
        names: list[str],
        runs: Sequence[IdRunReader],
        scanned: Sequence[tuple[int, FileReader]],
    ) -> dict[int, set[tuple[int, int]]]:
        """Per file: (place in `names`, row) of live rows whose hash is that of the name."""
        hashes = id_hashes(names)
        found: dict[int, set[tuple[int, int]]] = {}

        def add(place: int | None, asked: int, row: int) -> None:
            if place is not None and row not in self.dead(place):
                found.setdefault(place, set()).add((asked, row))

        for run in runs:
            places = [self._places.get(uuid) for uuid in run.uuids]
            hits = run.lookup(hashes)
            for asked, number, row in zip(
                hits.asked.tolist(), hits.files.tolist(), hits.rows.tolist(), strict=True
            ):
                add(places[number], asked, row)
        for place, reader in scanned:
            for asked, row in _scan(hashes, reader):
                add(place, asked, row)
        return found

    def _exact(
        self,
        names: list[str],
        candidates: dict[int, set[tuple[int, int]]],
        readers: Sequence[FileReader],
    ) -> dict[str, Location]:
        located: dict[str, Location] = {}
        for (place, pairs), reader in zip(candidates.items(), readers, strict=True):
            for asked, row in pairs:
                name = names[asked]
                if reader.id(row) != name:
                    continue
                if name in located:
                    raise CorruptData(
                        f"{self.prefix}: id {name!r} is live twice in manifest "
                        f"{self.manifest.version}: {located[name]} and {Location(place, row)}"
                    )
                located[name] = Location(place, row)
        return located

    def _ids_in_order(
        self, readers: Sequence[FileReader], prefix: str, after: str | None, limit: int
    ) -> list[str]:
        streams = [
            self._ids_of(place, reader, prefix, after) for place, reader in enumerate(readers)
        ]
        return list(islice(heapq.merge(*streams), limit))

    def _ids_of(
        self, place: int, reader: FileReader, prefix: str, after: str | None
    ) -> Iterator[str]:
        order, dead = reader.by_id, self.dead(place)
        start = prefix if after is None else max(prefix, after)
        for at in range(bisect_left(order, start, key=reader.id), len(order)):
            row = int(order[at])
            record_id = reader.id(row)
            if not record_id.startswith(prefix):
                return
            if record_id != after and row not in dead:
                yield record_id


def _scan(hashes: IdHashes, reader: FileReader) -> Iterator[tuple[int, int]]:
    """(place in `hashes`, row) of the rows of a file that no id run covers."""
    asked = {value: place for place, value in enumerate(hashes.tolist())}
    for row in np.flatnonzero(np.isin(reader.hashes, hashes)).tolist():
        yield asked[int(reader.hashes[row])], row


def _read(
    asked: Sequence[list[tuple[str, int]]], readers: Sequence[FileReader]
) -> dict[str, StoredRecord]:
    found: dict[str, StoredRecord] = {}
    for pairs, reader in zip(asked, readers, strict=True):
        rows = reader.take([row for _, row in pairs])
        for place, (record_id, _) in enumerate(pairs):
            found[record_id] = rows.stored(place)
    return found
