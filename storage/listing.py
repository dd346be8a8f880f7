"""Live ids in order, page by page: a walk along the id runs that opens no data file.

A page costs its ids and the dead entries between them. Runs hold at rest about as many of these as
there are live records (`builder.compaction.run_policy`), so in the worst place a page passes over
that many, some 20 ns each.
"""

import asyncio
import heapq
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from pyroaring import BitMap

from storage.file_reader import FileReader
from storage.id_run import IdRunReader
from storage.manifest import IdRun, Manifest

# Entries looked at together: the first of a page, and at most (1 MB of work).
_CHUNK_MIN = 128
_CHUNK_MAX = 16_384


class Source(Protocol):
    """What a listing needs of a `NamespaceReader`."""

    manifest: Manifest

    @property
    def bare(self) -> list[int]: ...
    async def runs(self, runs: Sequence[IdRun]) -> list[IdRunReader]: ...
    async def files(self, places: Sequence[int] | None = None) -> list[FileReader]: ...
    def dead(self, place: int) -> BitMap: ...
    def dead_of(self, uuid: str) -> BitMap | None: ...


async def list_ids(source: Source, prefix: str, after: str | None, limit: int) -> list[str]:
    """The first `limit` live ids that start with `prefix` and are > `after`, ascending.

    Opens bare files, and of the runs those that the page lies in: first the ones around its
    beginning, which bound where it can end, then all others that begin before that.
    """
    start, end = _bounds(prefix, after)
    waiting = sorted(
        (run for run in source.manifest.id_runs if _meets(run, start, end)),
        key=lambda run: run.first,
    )
    bare = source.bare
    files = list(zip(bare, await source.files(bare), strict=True))
    opened: list[IdRunReader] = []
    begun = sum(run.first.encode() <= start for run in waiting)
    more = waiting[: max(begun, 1)]
    at_once = 1
    while True:
        waiting = waiting[len(more) :]
        opened += await source.runs(more)
        page = await asyncio.to_thread(_page, source, opened, files, (start, end), limit)
        if len(page) == limit:
            more = [run for run in waiting if run.first.encode() <= page[-1]]
        else:  # all that is open is used up
            more = waiting[:at_once]
            at_once *= 2
        if not more:
            return [name.decode() for name in page]


def _bounds(prefix: str, after: str | None) -> tuple[bytes, bytes | None]:
    """[start, end) of the ids that count, as UTF-8; None: no end."""
    low = prefix.encode()
    # No byte of UTF-8 is 0xff, so the last one can be counted up.
    end = low[:-1] + bytes([low[-1] + 1]) if low else None
    return (low if after is None else max(low, after.encode() + b"\0")), end


def _meets(run: IdRun, start: bytes, end: bytes | None) -> bool:
    return run.last.encode() >= start and (end is None or run.first.encode() < end)


def _page(
    source: Source,
    runs: Sequence[IdRunReader],
    files: Sequence[tuple[int, FileReader]],
    bounds: tuple[bytes, bytes | None],
    limit: int,
) -> list[bytes]:
    streams = [_of_run(source, run, *bounds) for run in runs]
    streams += [_of_file(reader, source.dead(place), *bounds) for place, reader in files]
    page: list[bytes] = []
    for name in heapq.merge(*streams):
        if len(page) == limit:
            break
        if not page or page[-1] != name:  # two runs may name one row
            page.append(name)
    return page


def _of_run(source: Source, run: IdRunReader, start: bytes, end: bytes | None) -> Iterator[bytes]:
    at = run.ids.first_from(start)
    stop = len(run) if end is None else run.ids.first_from(end)
    chunk = _CHUNK_MIN
    while at < stop:
        entries = np.arange(at, min(at + chunk, stop), dtype=np.int64)
        yield from run.ids.take(entries[run.alive(entries, source.dead_of)]).bytes_of()
        at += chunk
        chunk = min(2 * chunk, _CHUNK_MAX)


def _of_file(reader: FileReader, dead: BitMap, start: bytes, end: bytes | None) -> Iterator[bytes]:
    order = reader.by_id

    def id_at(place: int) -> bytes:
        return reader.id(int(order[place])).encode()

    for row in order[bisect_left(range(len(order)), start, key=id_at) :].tolist():
        name = reader.id(row).encode()
        if end is not None and name >= end:
            return
        if row not in dead:
            yield name
