"""select: the records that match a filter in one sight, in the order of their ids, and how many
they are. Nothing is ranked; vectors are read only of what a page holds.
"""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.filters.model import Filter
from core.filters.row import matches
from core.records import Record, StoredRecord, record_bytes
from core.scan import Mask
from query.model import Cost
from query.operators.open_files import Opening
from query.operators.read_records import read_patched
from query.operators.replay import Overlay, OverlayCache
from query.operators.scan_file import keep_passing, stored_rows
from query.plan import changed_fields, may_match_file
from query.sight import Sight
from storage.file_cache import FileCache
from storage.file_reader import FileReader

# Files open at the same time: some megabytes each, so a page stays below 100 MB.
FILES_AT_ONCE = 16


@dataclass(frozen=True, slots=True, eq=False)
class _File:
    """One file and which of its rows match."""

    place: int
    reader: FileReader
    overlay: Overlay | None
    mask: Mask


@dataclass(frozen=True, slots=True, eq=False)
class _Match:
    """A record of the page that is being made: complete, or a row to be read at last."""

    id: str
    size: int
    stored: StoredRecord | None = None
    place: int = -1
    row: int = -1


class MatchingRecords:
    """One filter over one sight, whose answer has the fresh selection, all touched hashes and all
    patches.
    """

    def __init__(
        self, sight: Sight, cache: FileCache, overlays: OverlayCache, condition: Filter, cost: Cost
    ) -> None:
        self._sight = sight
        self._condition = condition
        self._cost = cost
        reader, answer = sight.state.reader, sight.answer
        self._opening = None
        if reader is not None and not sight.reader_hidden:
            self._opening = Opening(reader, cache, overlays, answer.filter_ops, cost)

    async def count(self) -> int:
        total = self._sight.answer.selected.count + len(await self._patched())
        async for file in self._files():
            total += int(np.count_nonzero(file.mask))
        return total

    async def page(
        self, after: str, limit: int, bytes_max: int
    ) -> tuple[dict[str, Record], str | None]:
        """(the first `limit` of those with ids > `after`, by id, fewer if they take `bytes_max`,
        but at least one; the last id if others follow).
        """
        fresh = self._sight.answer.selected
        kept = [_of(stored) for stored in fresh.records]
        kept += [_of(s) for s in await self._patched() if s.record.id > after]
        kept = _smallest(kept, limit + 1)
        async for file in self._files():
            below = kept[-1].id if len(kept) > limit else None
            found = await asyncio.to_thread(_of_file, file, after, below, limit + 1)
            if found:
                kept = _smallest([*kept, *found], limit + 1)
        if fresh.more:  # what freshness held back comes after the last it gave
            last = fresh.records[-1].record.id
            kept = [match for match in kept if match.id <= last]
        page = _fitting(kept[:limit], bytes_max)
        more = fresh.more or len(page) < len(kept)
        records = await self._read(page)
        self._cost.bytes_scanned += sum(map(record_bytes, records.values()))
        return records, page[-1].id if more else None

    async def _patched(self) -> list[StoredRecord]:
        patched = await read_patched(self._sight, self._cost)
        return [s for s in patched if matches(self._condition, s.record.metadata)]

    async def _files(self) -> AsyncIterator[_File]:
        """Those that may have a match."""
        reader, opening = self._sight.state.reader, self._opening
        if reader is None or opening is None:
            return
        cost, touched = self._cost, self._sight.answer.touched
        assert touched is not None
        unknown = changed_fields(self._sight.answer.filter_ops)
        living = [(place, f) for place, f in enumerate(reader.manifest.files) if f.live > 0]
        kept = [(p, f) for p, f in living if may_match_file(f, self._condition, unknown)]
        cost.clusters_considered, cost.clusters_pruned = len(living), len(living) - len(kept)
        cost.rows_considered = sum(f.live for _, f in kept)
        for at in range(0, len(kept), FILES_AT_ONCE):
            places = [place for place, _ in kept[at : at + FILES_AT_ONCE]]
            opened = await opening.open(places)
            for place, (file, overlay) in zip(places, opened, strict=True):
                live = reader.live_mask(place)
                await asyncio.to_thread(keep_passing, live, file, overlay, touched, self._condition)
                cost.rows_scanned += file.rows
                cost.bytes_scanned += file.metadata_bytes
                yield _File(place, file, overlay, live)

    async def _read(self, page: Sequence[_Match]) -> dict[str, Record]:
        """In the page's order."""
        found: dict[str, Record] = {}
        by_place: dict[int, list[int]] = {}
        for match in page:
            if match.stored is not None:
                found[match.id] = match.stored.record
            else:
                by_place.setdefault(match.place, []).append(match.row)
        places = list(by_place)
        for at in range(0, len(places), FILES_AT_ONCE):
            assert self._opening is not None, "rows come from files"
            some = places[at : at + FILES_AT_ONCE]
            opened = await self._opening.open(some)
            for place, (reader, overlay) in zip(some, opened, strict=True):
                rows = await asyncio.to_thread(stored_rows, reader, overlay, by_place[place])
                for stored in rows:
                    found[stored.record.id] = stored.record
        return {match.id: found[match.id] for match in page}


def _of(stored: StoredRecord) -> _Match:
    return _Match(stored.record.id, record_bytes(stored.record), stored)


def _smallest(found: list[_Match], count: int) -> list[_Match]:
    """By id, which are unique: a sight shows an id in one place."""
    return sorted(found, key=lambda match: match.id)[:count]


def _fitting(page: Sequence[_Match], bytes_max: int) -> Sequence[_Match]:
    size = 0
    for at, match in enumerate(page):
        size += match.size
        if at and size > bytes_max:
            return page[:at]
    return page


def _of_file(file: _File, after: str, below: str | None, count: int) -> list[_Match]:
    """In a thread. The first `count` matches with after < id < below, ascending."""
    reader = file.reader
    order = reader.by_id
    order = order[bisect_right(order, after, key=lambda row: reader.id(int(row))) :]
    rows: npt.NDArray[np.int64] = order[file.mask[order]][:count].astype(np.int64)
    ids = reader.ids(rows)
    if below is not None:
        ids = ids[: bisect_right(ids, below)]
        rows = rows[: len(ids)]
    sizes = _sizes(file, rows)
    return [
        _Match(*of, place=file.place, row=row)
        for of, row in zip(zip(ids, sizes, strict=True), rows.tolist(), strict=True)
    ]


def _sizes(file: _File, rows: npt.NDArray[np.int64]) -> list[int]:
    """With what pending filter operations added."""
    sizes = file.reader.sizes(rows)
    if file.overlay is None:
        return sizes
    metadata = dict(zip(file.overlay.changed.tolist(), file.overlay.metadata, strict=True))
    for at, row in enumerate(rows.tolist()):
        if row in metadata:
            sizes[at] += record_bytes(Record("", None, None, metadata[row]))
    return sizes
