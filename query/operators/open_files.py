"""open: files of a manifest, each with what pending filter operations make of it, counted once a
read.
"""

from collections.abc import Sequence

from freshness.protocol import Pending
from query.model import Cost
from query.operators.replay import Overlay, OverlayCache, filters_of
from query.plan import may_match_file
from storage.file_cache import FileCache
from storage.file_reader import FileReader
from storage.namespace import NamespaceReader


class Opening:
    """For one read. `NamespaceReader.files` says what it raises."""

    def __init__(
        self,
        reader: NamespaceReader,
        cache: FileCache,
        overlays: OverlayCache,
        filter_ops: Sequence[Pending],
        cost: Cost,
    ) -> None:
        self._reader = reader
        self._cache = cache
        self._overlays = overlays
        self._filter_ops = filter_ops
        self._cost = cost
        self._seen: set[int] = set()

    async def open(self, places: Sequence[int]) -> list[tuple[FileReader, Overlay | None]]:
        """Those files, in that order."""
        self._count(places)
        readers = await self._reader.files(places)
        return [
            (reader, await self._overlay(place, reader))
            for place, reader in zip(places, readers, strict=True)
        ]

    def _count(self, places: Sequence[int]) -> None:
        """Each file counts once, however often rows of it are read."""
        cost, files = self._cost, self._reader.manifest.files
        cost.rounds += 1
        for place in set(places) - self._seen:
            held = self._cache.holds(files[place])
            cost.cache_hits += held
            cost.gets += 0 if held else 1 + (files[place].vectors is not None)
            cost.deltas_scanned += files[place].is_delta
            cost.files_opened += 1
        self._seen.update(places)

    async def _overlay(self, place: int, reader: FileReader) -> Overlay | None:
        file = self._reader.manifest.files[place]
        operations = filters_of(self._filter_ops)
        if not any(may_match_file(file, op.filter, frozenset()) for op in operations):
            return None
        return await self._overlays.get(self._reader.prefix, reader, self._filter_ops)
