"""Id runs: entries id -> (file, row) sorted by id, for finding a record's one live row.

Layout, little-endian, each section at a multiple of 8 bytes: magic `FIRNIDS2`, uint32 entries n,
uint32 files f, uint64 bytes of text t; uint32[n + 1] offsets of the ids in the text; uint32[n]
rows; uint32[n] hashes, ascending, and uint32[n] the entry of each; uint16[n] file numbers; f uuids
of 16 bytes; the text, ids in UTF-8. A hash is the upper half of the id's XXH3-64; it finds many ids
at once, and the id itself decides. Entries never change: who reads leaves out those of files that
the manifest does not name and of dead rows.
"""

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from core.clock import new_uuid
from core.errors import CorruptData
from storage.checksum import IdHashes, id_hashes
from storage.encoded_file import EncodedObject
from storage.id_column import IdColumn
from storage.layout import id_run_name
from storage.manifest import DataFile, IdRun

MAGIC = b"FIRNIDS2"
# A cold lookup fetches whole runs; merging rewrites whole runs; 10 million ids are 80 of them.
OBJECT_BYTES = 4 << 20
# Beside its text: offset, row, hash, its entry, file number.
ENTRY_BYTES = 4 + 4 + 4 + 4 + 2
# More are not named in the manifest: a run of a big namespace points into all of its files.
FILES_NAMED_MAX = 8
_FILES_MAX = 1 << 16  # file numbers are 16 bits
_HEADER = struct.Struct("<8sIIQ")
_UUID_BYTES = 16

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
# The dead rows of a file by its uuid; None: the manifest does not name the file.
DeadOf = Callable[[str], BitMap | None]


@dataclass(frozen=True, slots=True, eq=False)
class EncodedRun:
    """`run` goes into the manifest once `object` is in the store."""

    object: EncodedObject
    run: IdRun


@dataclass(frozen=True, slots=True, eq=False)
class FileIds:
    """Ids of rows of one file; rows: uint32 (n,), None for 0 .. n - 1."""

    uuid: str
    ids: Sequence[str]
    rows: U32 | None = None


class AskedIds:
    """Ids to look up, ascending and unique, and what every run needs of them, made once."""

    def __init__(self, ids: Iterable[str]) -> None:
        self.ids = sorted(set(ids))
        self.hashes = id_hashes(self.ids)
        self.column = IdColumn.of(self.ids)

    def within(self, run: IdRun) -> tuple[int, int]:
        """[start, end) of those that the run may have."""
        return bisect_left(self.ids, run.first), bisect_right(self.ids, run.last)


class IdRunReader:
    """An opened run: views into `data`, which stays alive as long as the reader does.

    ids: ascending. rows: uint32 (n,). numbers: uint16 (n,), what `uuid` takes.
    """

    heap_bytes = 0  # all of it is mapped

    def __init__(self, data: U8, run: IdRun) -> None:
        """`CorruptData` naming the run if the bytes are not what the manifest says."""
        name = run.object.name
        if len(data) < _HEADER.size:
            raise CorruptData(f"id run {name} is cut off")
        magic, entries, files, text = _HEADER.unpack(data[: _HEADER.size].tobytes())
        if magic != MAGIC:
            raise CorruptData(f"id run {name} has an unknown format {magic!r}")
        sizes = _sizes(entries, files, text)
        if entries != run.entries or entries == 0 or len(data) != _HEADER.size + sum(sizes):
            raise CorruptData(f"id run {name} has {len(data)} bytes for {run.entries} entries")
        ends = np.cumsum([_HEADER.size, *sizes]).tolist()
        parts = [data[start:] for start in ends[:-1]]
        self.ids = IdColumn.over(parts[0][: 4 * (entries + 1)].view("<u4"), parts[6][:text])
        self.rows: U32 = parts[1][: 4 * entries].view("<u4")
        self._hashes: U32 = parts[2][: 4 * entries].view("<u4")
        self._places: U32 = parts[3][: 4 * entries].view("<u4")
        self.numbers: U16 = parts[4][: 2 * entries].view("<u2")
        self._uuids = parts[5][: _UUID_BYTES * files]
        if (self.ids[0].decode(), self.ids[entries - 1].decode()) != (run.first, run.last):
            raise CorruptData(f"id run {name} does not hold the range that the manifest says")

    def __len__(self) -> int:
        return len(self.rows)

    def uuid(self, number: int) -> str:
        at = _UUID_BYTES * number
        return self._uuids[at : at + _UUID_BYTES].tobytes().hex()

    def find(self, asked: AskedIds, start: int, end: int) -> tuple[I64, I64]:
        """(places in `asked`, entries) of all entries with one of the ids [start, end); places
        repeat where an id has several entries.
        """
        which, places = self._candidates(asked.hashes[start:end])
        which += start
        same = self.ids.take(places).equal(asked.column.take(which))
        return which[same], places[same]

    def with_hashes(self, hashes: IdHashes) -> I64:
        """The entries whose id has one of these hashes; uint64, of all 64 bits."""
        _, places = self._candidates(hashes)
        places = np.unique(places)
        exact = np.isin(id_hashes(self.ids.take(places).strings()), hashes)
        return places[exact]

    def alive(self, entries: I64, dead_of: DeadOf) -> Mask:
        """bool (n,): which of these entries are live."""
        numbers, rows = self.numbers[entries], self.rows[entries]
        alive = np.zeros(len(entries), dtype=np.bool_)
        for number, part in grouped(numbers):
            dead = dead_of(self.uuid(number))
            if dead is not None:
                alive[part] = ~rows_in(dead, rows[part]) if dead else True
        return alive

    def hashes_by_entry(self) -> U32:
        """uint32 (n,), in the order of the ids."""
        hashes = np.empty(len(self), dtype=np.uint32)
        hashes[self._places] = self._hashes
        return hashes

    def _candidates(self, hashes: IdHashes) -> tuple[I64, I64]:
        """(places in `hashes`, entries) that agree in 32 bits."""
        upper = (hashes >> np.uint64(32)).astype(np.uint32)
        first = np.searchsorted(self._hashes, upper, side="left")
        counts = np.searchsorted(self._hashes, upper, side="right") - first
        which = np.repeat(np.arange(len(hashes), dtype=np.int64), counts)
        # [first, first + count) of every hash, one after the other
        before = np.cumsum(counts) - counts
        at = np.arange(len(which)) + np.repeat(first - before, counts)
        return which, self._places[at].astype(np.int64)


def write_runs(
    parts: Sequence[FileIds], as_of: int, *, object_bytes: int = OBJECT_BYTES
) -> tuple[EncodedRun, ...]:
    """Runs of these rows, which are live in the manifest of version `as_of`; their ranges are
    disjoint, but where ids are equal, and each has about `object_bytes` at most. None for no rows.
    """
    parts = [part for part in parts if len(part.ids)]
    if not parts:
        return ()
    rows = [
        np.arange(len(part.ids), dtype=np.uint32) if part.rows is None else part.rows
        for part in parts
    ]
    numbers = np.repeat(np.arange(len(parts), dtype=np.int64), [len(part.ids) for part in parts])
    entries = _Entries(
        ids=IdColumn.concat([IdColumn.of(part.ids) for part in parts]),
        hashes=np.concatenate([_upper(part.ids) for part in parts]),
        numbers=numbers,
        rows=np.concatenate(rows),
        uuids=[part.uuid for part in parts],
    )
    return _encoded(entries, as_of, object_bytes)


def merge_runs(
    runs: Sequence[IdRunReader],
    files: Mapping[str, DataFile],
    as_of: int,
    *,
    object_bytes: int = OBJECT_BYTES,
) -> tuple[EncodedRun, ...]:
    """All entries that are live in `files` (uuid -> the file in the manifest of version `as_of`),
    as `write_runs` has them.
    """
    dead: dict[str, BitMap | None] = {}

    def dead_of(uuid: str) -> BitMap | None:
        if uuid not in dead:
            dead[uuid] = files[uuid].dead_rows() if uuid in files else None
        return dead[uuid]

    place: dict[str, int] = {}
    parts: list[_Entries] = []
    for run in runs:
        everything = np.arange(len(run), dtype=np.int64)
        keep = everything[run.alive(everything, dead_of)]
        used, numbers = np.unique(run.numbers[keep], return_inverse=True)
        renumbered = [place.setdefault(run.uuid(number), len(place)) for number in used.tolist()]
        parts.append(
            _Entries(
                ids=run.ids.take(keep),
                hashes=run.hashes_by_entry()[keep],
                numbers=np.array(renumbered, dtype=np.int64)[numbers],
                rows=run.rows[keep],
                uuids=[],
            )
        )
    entries = _Entries(
        ids=IdColumn.concat([part.ids for part in parts]),
        hashes=np.concatenate([part.hashes for part in parts]),
        numbers=np.concatenate([part.numbers for part in parts]),
        rows=np.concatenate([part.rows for part in parts]),
        uuids=list(place),
    )
    return _encoded(entries, as_of, object_bytes)


@dataclass(frozen=True, slots=True, eq=False)
class _Entries:
    """n entries in columns. numbers: int64 (n,), places in `uuids`."""

    ids: IdColumn
    hashes: U32
    numbers: I64
    rows: U32
    uuids: list[str]

    def in_order(self) -> "_Entries":
        """Ascending; what two runs say of one row, once."""
        ordered = self.take(self.ids.order())
        count = len(ordered.rows)
        same = ordered.ids.slice(0, count - 1).equal(ordered.ids.slice(1, count))
        for column in (ordered.numbers, ordered.rows):
            same &= column[:-1] == column[1:]
        return ordered.take(np.flatnonzero(np.append(~same, True))) if same.any() else ordered

    def take(self, places: I64) -> "_Entries":
        ids, hashes = self.ids.take(places), self.hashes[places]
        return _Entries(ids, hashes, self.numbers[places], self.rows[places], self.uuids)

    def slice(self, start: int, end: int) -> "_Entries":
        part = slice(start, end)
        ids, hashes = self.ids.slice(start, end), self.hashes[part]
        return _Entries(ids, hashes, self.numbers[part], self.rows[part], self.uuids)


def _encoded(entries: _Entries, as_of: int, object_bytes: int) -> tuple[EncodedRun, ...]:
    if not len(entries.rows):
        return ()
    return tuple(_encode(part, as_of) for part in _cut(entries.in_order(), object_bytes))


def _cut(entries: _Entries, object_bytes: int) -> Iterator[_Entries]:
    """Into parts of about equal size, none of which needs more than 16 bits to number its files."""
    count = len(entries.rows)
    ends = entries.ids.offsets[1:].astype(np.int64) + ENTRY_BYTES * np.arange(1, count + 1)
    parts = -(-int(ends[-1]) // object_bytes)
    cuts = np.searchsorted(ends, ends[-1] * np.arange(1, parts) // parts, side="left") + 1
    bounds = {0, *cuts.tolist(), count}
    if len(entries.uuids) > _FILES_MAX:
        bounds.update(range(0, count, _FILES_MAX))
    for start, end in pairwise(sorted(bounds)):
        yield entries.slice(start, end)


def _encode(entries: _Entries, as_of: int) -> EncodedRun:
    used, numbers = np.unique(entries.numbers, return_inverse=True)
    uuids = [entries.uuids[number] for number in used.tolist()]
    by_hash = np.argsort(entries.hashes, kind="stable")
    text = entries.ids.text
    sections = (
        entries.ids.offsets.astype("<u4").tobytes(),
        entries.rows.astype("<u4").tobytes(),
        entries.hashes[by_hash].astype("<u4").tobytes(),
        by_hash.astype("<u4").tobytes(),
        numbers.astype("<u2").tobytes(),
        b"".join(bytes.fromhex(uuid) for uuid in uuids),
        text,
    )
    count = len(entries.rows)
    sizes = _sizes(count, len(uuids), len(text))
    data = _HEADER.pack(MAGIC, count, len(uuids), len(text)) + b"".join(
        section.ljust(size, b"\0") for section, size in zip(sections, sizes, strict=True)
    )
    encoded = EncodedObject.of(id_run_name(new_uuid()), data)
    run = IdRun(
        object=encoded.ref,
        entries=count,
        files=tuple(uuids) if len(uuids) <= FILES_NAMED_MAX else (),
        first=entries.ids[0].decode(),
        last=entries.ids[count - 1].decode(),
        as_of=as_of,
    )
    return EncodedRun(encoded, run)


def _sizes(entries: int, files: int, text: int) -> tuple[int, ...]:
    """Of the sections after the header, in bytes, with what fills them up."""
    plain = (4 * (entries + 1), *(4 * entries,) * 3, 2 * entries, _UUID_BYTES * files, text)
    return tuple(-(-size // 8) * 8 for size in plain)


def _upper(ids: Sequence[str]) -> U32:
    return (id_hashes(ids) >> np.uint64(32)).astype(np.uint32)


def grouped(keys: npt.NDArray[np.integer]) -> Iterator[tuple[int, I64]]:
    """(key, the places that have it), ascending by key."""
    if len(keys):
        order = np.argsort(keys, kind="stable")
        used, first = np.unique(keys[order], return_index=True)
        yield from zip(used.tolist(), np.split(order, first[1:]), strict=True)


def rows_in(bitmap: BitMap, rows: npt.NDArray[np.integer]) -> Mask:
    """bool (n,): which of the rows the bitmap has."""
    if len(rows) < 64:  # one look-up takes 0.1 us; unpacking the bitmap, 1 us for 1,000 rows
        return np.array([row in bitmap for row in rows.tolist()], dtype=np.bool_)
    return np.isin(rows, np.frombuffer(bitmap.to_array(), dtype=np.uint32))
