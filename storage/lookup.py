"""Where the live records of many ids are: what runs and bare files say, as arrays."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from core.errors import CorruptData
from storage.file_reader import FileReader
from storage.id_run import AskedIds, IdRunReader, grouped, rows_in

I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """`file` is a place in the manifest's `files`."""

    file: int
    row: int


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """`ids[i]` is live in row `rows[i]` of file `files[i]`, a place in the manifest's `files`.

    Each id once, ascending.
    """

    ids: list[str]
    files: I64
    rows: I64

    def by_file(self) -> Iterator[tuple[int, list[str], I64]]:
        """(file, ids, their rows)."""
        for file, part in grouped(self.files):
            yield file, [self.ids[at] for at in part.tolist()], self.rows[part]


NOTHING = Found([], np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """Rows that say they have an id: asked: its place among those asked for; places: of the file in
    the manifest's `files`; rows. All int64 (n,).
    """

    asked: I64
    places: I64
    rows: I64


def of_run(
    run: IdRunReader, asked: AskedIds, span: tuple[int, int], places: dict[str, int]
) -> Hits:
    """Of the ids [start, end) in files of the manifest (uuid -> place)."""
    which, entries = run.find(asked, *span)
    used, inverse = np.unique(run.numbers[entries], return_inverse=True)
    known = np.array([places.get(run.uuid(n), -1) for n in used.tolist()], dtype=np.int64)
    files = known[inverse]
    kept = files >= 0
    return Hits(which[kept], files[kept], run.rows[entries[kept]].astype(np.int64))


def of_file(place: int, reader: FileReader, asked: AskedIds) -> Hits:
    """Of a file that no run covers."""
    rows = np.flatnonzero(np.isin(reader.hashes, asked.hashes)).astype(np.int64)
    names = {name: at for at, name in enumerate(asked.ids)} if len(rows) else {}
    which = np.array([names.get(name, -1) for name in reader.ids(rows)], dtype=np.int64)
    kept = which >= 0
    return Hits(which[kept], np.full(kept.sum(), place, dtype=np.int64), rows[kept])


def live(parts: Sequence[Hits], dead_of: Callable[[int], BitMap], asked: AskedIds) -> Found:
    """What is live of them, `dead_of` by place. `CorruptData`: an id is live in two rows."""
    if not parts:
        return NOTHING
    which = np.concatenate([part.asked for part in parts])
    places = np.concatenate([part.places for part in parts])
    rows = np.concatenate([part.rows for part in parts])
    alive = np.ones(len(which), dtype=np.bool_)
    for place, part in grouped(places):
        dead = dead_of(place)
        if dead:
            alive[part] = ~rows_in(dead, rows[part])
    order = np.flatnonzero(alive)
    order = order[np.lexsort((rows[order], places[order], which[order]))]
    which, places, rows = which[order], places[order], rows[order]
    again = which[1:] == which[:-1]
    twice = again & ((places[1:] != places[:-1]) | (rows[1:] != rows[:-1]))
    for at in np.flatnonzero(twice)[:1].tolist():
        both = [Location(int(places[n]), int(rows[n])) for n in (at, at + 1)]
        raise CorruptData(f"id {asked.ids[which[at]]!r} is live twice: {both[0]} and {both[1]}")
    first = np.flatnonzero(np.append(True, ~again)) if len(which) else np.arange(0)
    return Found([asked.ids[at] for at in which[first].tolist()], places[first], rows[first])
