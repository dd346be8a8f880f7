"""Id runs: sorted (id hash -> file, row) entries, for finding a record's one live row.

Layout, little-endian: magic `FIRNIDS1`, uint64 n, then uint64[n] hashes ascending, uint32[n] file
numbers, uint32[n] rows. A file number is a place in the manifest's `IdRun.files`. Entries are never
taken out: who looks up drops those of files that the manifest does not name and of dead rows, and
compares the exact id, hashes being only hashes.
"""

import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.clock import new_uuid
from core.errors import CorruptData
from storage.checksum import IdHashes
from storage.encoded_file import EncodedObject
from storage.layout import id_run_name
from storage.manifest import DataFile, IdRun

MAGIC = b"FIRNIDS1"
_HEADER = struct.Struct("<8sQ")
_ENTRY_BYTES = 8 + 4 + 4

U32 = npt.NDArray[np.uint32]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class EncodedRun:
    """`run` goes into the manifest once `object` is in the store."""

    object: EncodedObject
    run: IdRun


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What a lookup found: `asked[i]` is the place of the asked hash, then file number and row.
    Places repeat.
    """

    asked: I64
    files: U32
    rows: U32


class IdRunReader:
    """An opened run: views into `data`, which stays alive as long as the reader does."""

    heap_bytes = 0  # all of it is mapped

    def __init__(self, data: npt.NDArray[np.uint8], run: IdRun) -> None:
        name = run.object.name
        if len(data) < _HEADER.size:
            raise CorruptData(f"id run {name} is cut off")
        magic, entries = _HEADER.unpack(data[: _HEADER.size].tobytes())
        if magic != MAGIC:
            raise CorruptData(f"id run {name} has an unknown format {magic!r}")
        if entries != run.entries or len(data) != _HEADER.size + entries * _ENTRY_BYTES:
            raise CorruptData(f"id run {name} has {len(data)} bytes for {run.entries} entries")
        split = _HEADER.size + 8 * entries
        numbers = data[split:].view("<u4")
        self.uuids = run.files
        self.hashes: IdHashes = data[_HEADER.size : split].view("<u8")
        self.files: U32 = numbers[:entries]
        self.rows: U32 = numbers[entries:]

    def __len__(self) -> int:
        return len(self.hashes)

    def lookup(self, hashes: IdHashes) -> Candidates:
        """Every entry of every asked hash; `hashes` uint64 (m,), in any order."""
        first = np.searchsorted(self.hashes, hashes, side="left")
        counts = np.searchsorted(self.hashes, hashes, side="right") - first
        asked = np.repeat(np.arange(len(hashes), dtype=np.int64), counts)
        # [first, first + count) of every asked hash, one after the other
        before = np.cumsum(counts) - counts
        places = np.arange(len(asked)) + np.repeat(first - before, counts)
        return Candidates(asked, self.files[places], self.rows[places])


def write_run(entries: Sequence[tuple[str, IdHashes]], *, uuid: str | None = None) -> EncodedRun:
    """A run of whole files: (file uuid, uint64 (n,) hashes of its rows in row order); at least one
    row in all.
    """
    sizes = [len(hashes) for _, hashes in entries]
    return _encode(
        files=tuple(file for file, _ in entries),
        hashes=np.concatenate([hashes for _, hashes in entries]),
        numbers=np.repeat(np.arange(len(entries), dtype=np.uint32), sizes),
        rows=np.concatenate([np.arange(size, dtype=np.uint32) for size in sizes]),
        uuid=uuid,
    )


def merge_runs(
    runs: Sequence[IdRunReader], files: Mapping[str, DataFile], *, uuid: str | None = None
) -> EncodedRun | None:
    """One run of all entries that are live in `files` (uuid -> the manifest's file); None if none
    is.
    """
    names = tuple(dict.fromkeys(u for run in runs for u in run.uuids if u in files))
    place = {u: i for i, u in enumerate(names)}
    hashes, numbers, rows = [], [], []
    for run in runs:
        keep = _live(run, files)
        renumbered = np.array([place.get(u, 0) for u in run.uuids], dtype=np.uint32)
        hashes.append(run.hashes[keep])
        numbers.append(renumbered[run.files[keep]])
        rows.append(run.rows[keep])
    if not sum(map(len, hashes)):
        return None
    return _encode(
        names, np.concatenate(hashes), np.concatenate(numbers), np.concatenate(rows), uuid
    )


def _live(run: IdRunReader, files: Mapping[str, DataFile]) -> npt.NDArray[np.bool_]:
    known = np.array([u in files for u in run.uuids], dtype=np.bool_)
    keep: npt.NDArray[np.bool_] = known[run.files]
    for number, uuid in enumerate(run.uuids):
        if uuid in files and files[uuid].dead:
            dead = np.frombuffer(files[uuid].dead_rows().to_array(), dtype=np.uint32)
            keep &= ~((run.files == number) & np.isin(run.rows, dead))
    return keep


def uncovered(runs: Collection[IdRun], files: Sequence[DataFile]) -> list[DataFile]:
    """The files whose rows are in no run: their ids are looked up in the files themselves."""
    covered = {uuid for run in runs for uuid in run.files}
    return [file for file in files if file.uuid not in covered]


def _encode(
    files: tuple[str, ...], hashes: IdHashes, numbers: U32, rows: U32, uuid: str | None
) -> EncodedRun:
    if not len(hashes):
        raise ValueError("an id run needs at least one entry")
    order = np.lexsort((rows, numbers, hashes))
    data = b"".join(
        (
            _HEADER.pack(MAGIC, len(hashes)),
            hashes[order].astype("<u8").tobytes(),
            numbers[order].astype("<u4").tobytes(),
            rows[order].astype("<u4").tobytes(),
        )
    )
    encoded = EncodedObject.of(id_run_name(uuid or new_uuid()), data)
    return EncodedRun(encoded, IdRun(object=encoded.ref, entries=len(hashes), files=files))
