"""Work that took long, on a namespace that others have compacted meanwhile: which of its rows are
still somebody's.

A record's version is known by its id and LSN wherever a compaction has put it. So a row of the work
lives on if the newest manifest has the same version live in any file, and then it takes its place.
Pure.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from builder.compaction.successor import Moved, Rewrite, with_dead, with_files, with_written
from storage.checksum import IdHashes
from storage.groups import UNGROUPED
from storage.manifest import DataFile, Manifest

I64 = npt.NDArray[np.int64]


class Versions:
    """Where the rows of the work are, by id hash and LSN: 28 bytes a row."""

    def __init__(self, outputs: Sequence[tuple[IdHashes, I64]]) -> None:
        """Of each output the uint64 (n,) hashes and int64 (n,) LSNs of its rows."""
        sizes = [len(lsns) for _, lsns in outputs]
        hashes = np.concatenate([hashes for hashes, _ in outputs])
        lsns = np.concatenate([lsns for _, lsns in outputs])
        outputs_of = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
        rows = np.concatenate([np.arange(size, dtype=np.int32) for size in sizes])
        order = np.lexsort((lsns, hashes))
        self._hashes, self._lsns = hashes[order], lsns[order]
        self._outputs, self._rows = outputs_of[order], rows[order]

    def find(self, hashes: IdHashes, lsns: I64) -> tuple[I64, npt.NDArray[np.int32], I64]:
        """(place in `hashes`, output, row of it) of every row with that hash and LSN; a place comes
        twice where two ids have the same hash, so whoever asks compares the ids.
        """
        first = np.searchsorted(self._hashes, hashes, side="left")
        counts = np.searchsorted(self._hashes, hashes, side="right") - first
        asked = np.repeat(np.arange(len(hashes), dtype=np.int64), counts)
        before = np.cumsum(counts) - counts
        at = np.arange(len(asked)) + np.repeat(first - before, counts)
        same = self._lsns[at] == lsns[asked]
        at, asked = at[same], asked[same]
        return asked, self._outputs[at], self._rows[at].astype(np.int64)


def after_recluster(newest: Manifest, rewrite: Rewrite, copies: Sequence[Moved]) -> Manifest:
    """`newest` with the rewrite of everything in it. `copies`: rows of files that the work has not
    read, which are the same versions as rows of its outputs.

    What is newer than the work stays in its files, which belong to no cluster of the new ones.
    """
    parts = {part.uuid: part for part in (*rewrite.moved, *copies)}
    lives = [BitMap() for _ in rewrite.outputs]
    files: list[DataFile] = []
    for file in newest.files:
        part = parts.get(file.uuid)
        if part is not None:
            dead = file.dead_rows()
            late = np.array(dead.to_array(), dtype=np.int64)
            alive = ~np.isin(part.rows, late)
            _add(lives, part.outputs[alive], part.output_rows[alive])
            file = with_dead(file, dead | BitMap(part.rows.tolist()))
        files.append(msgspec.structs.replace(file, cluster=UNGROUPED, groups=(), radius=0.0))
    for file, live in zip(rewrite.outputs, lives, strict=True):
        files.append(with_dead(file, BitMap(range(file.rows)) - live))
    runs = [*newest.id_runs, *rewrite.runs]
    result = with_files(with_written(newest, rewrite), files, runs, rewrite.centroids)
    assert result.record_count == newest.record_count, "a clustering keeps every record"
    return result


def _add(lives: list[BitMap], outputs: npt.NDArray[np.int32], rows: I64) -> None:
    order = np.argsort(outputs, kind="stable")
    outputs, rows = outputs[order], rows[order]
    for number in np.unique(outputs).tolist():
        start, end = np.searchsorted(outputs, (number, number + 1))
        lives[number] |= BitMap(rows[start:end].tolist())
