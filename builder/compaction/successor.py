"""The next manifest of a namespace: pure functions from the newest one and what a job has made.

A flush and a compaction both write their files first and then build the successor of whatever
manifest is newest by then.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from storage.groups import UNGROUPED
from storage.manifest import DataFile, IdRun, Manifest


@dataclass(frozen=True, slots=True, eq=False)
class Moved:
    """Rows of one input file that a rewrite has copied.

    rows: int64 (n,), ascending row numbers of the input; outputs: int32 (n,), for each the number
    of the output file; output_rows: int64 (n,), its row there.
    """

    uuid: str
    rows: npt.NDArray[np.int64]
    outputs: npt.NDArray[np.int32]
    output_rows: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Rewrite:
    """What one compaction has made from a manifest of `generation`.

    boundary: the round of garbage collection that the manifest was committed after. outputs: new
    files without dead rows; runs: their ids (or merged runs); replaced_runs: names of runs that
    `runs` stand for. centroids_before: those the work was grouped by. reclustered: the numbers of
    `centroids` have nothing to do with those before. vacated: numbers that stand for no cluster any
    more. covered: files (uuids) whose ids are in `runs` from now on.
    """

    generation: int
    boundary: int
    moved: tuple[Moved, ...]
    outputs: tuple[DataFile, ...]
    runs: tuple[IdRun, ...]
    replaced_runs: frozenset[str]
    centroids_before: bytes
    centroids: bytes
    reclustered: bool = False
    vacated: frozenset[int] = frozenset()
    covered: frozenset[str] = frozenset()


def after_rewrite(newest: Manifest, rewrite: Rewrite) -> Manifest | None:
    """`newest` with the rewrite in it, or None where its input is no longer there: drop the work.

    Rows that died since the rewrite read them are dead in its outputs. The version and the commit's
    own fields are still those of `newest`.
    """
    if newest.deleted or not newest.files or newest.generation != rewrite.generation:
        return None
    if newest.centroids != rewrite.centroids_before:
        return None
    present = {file.uuid for file in newest.files}
    if any(part.uuid not in present for part in rewrite.moved):
        return None
    runs = {run.object.name for run in newest.id_runs}
    if not rewrite.replaced_runs <= runs:
        return None
    died = [BitMap() for _ in rewrite.outputs]
    taken = {part.uuid: part for part in rewrite.moved}
    files: list[DataFile] = []
    for file in newest.files:
        part = taken.get(file.uuid)
        if part is not None:
            dead = file.dead_rows()
            _carry_over(part, dead, died)
            file = with_dead(file, dead | BitMap(part.rows.tolist()))
        file = _regrouped(file, rewrite)
        if file.uuid in rewrite.covered:
            file = msgspec.structs.replace(file, in_runs=True)
        files.append(file)
    files += [with_dead(file, dead) for file, dead in zip(rewrite.outputs, died, strict=True)]
    id_runs = [run for run in newest.id_runs if run.object.name not in rewrite.replaced_runs]
    id_runs += rewrite.runs
    result = with_files(with_written(newest, rewrite), files, id_runs, rewrite.centroids)
    assert result.record_count == newest.record_count, "a rewrite keeps every record"
    return result


def with_written(newest: Manifest, rewrite: Rewrite) -> Manifest:
    """Counts what the rewrite wrote."""
    written = newest.written_bytes + stored_bytes(rewrite.outputs, rewrite.runs)
    return msgspec.structs.replace(newest, written_bytes=written)


def with_files(
    manifest: Manifest, files: Sequence[DataFile], runs: Sequence[IdRun], centroids: bytes
) -> Manifest:
    """Counts made exact; files without a live row and runs without a file are left out."""
    live = tuple(file for file in files if file.live > 0)
    covered = {file.uuid for file in live if file.in_runs}
    kept = tuple(
        run for run in runs if covered and (not run.files or not covered.isdisjoint(run.files))
    )
    return msgspec.structs.replace(
        manifest,
        files=live,
        id_runs=kept,
        centroids=centroids if live else b"",
        record_count=sum(file.live for file in live),
        byte_count=stored_bytes(live, kept),
    )


def with_dead(file: DataFile, dead: BitMap) -> DataFile:
    """The file with exactly these rows dead."""
    if len(dead) == file.dead_count:  # rows only ever die
        return file
    dead.run_optimize()
    return msgspec.structs.replace(file, dead=dead.serialize(), dead_count=len(dead))


def stored_bytes(files: Collection[DataFile], runs: Collection[IdRun]) -> int:
    """Bytes of all objects that make up a namespace, without its manifest."""
    columns = sum(file.columns.size for file in files)
    vectors = sum(file.vectors.size for file in files if file.vectors is not None)
    return columns + vectors + sum(run.object.size for run in runs)


def _regrouped(file: DataFile, rewrite: Rewrite) -> DataFile:
    """The file with groups of clusters that there are. After a split a delta keeps its groups: most
    of their rows belong to the piece that kept the number, and a fold finds out about the others.
    """
    if not file.groups:
        return file
    if rewrite.reclustered:
        return msgspec.structs.replace(file, groups=())
    if not any(number in rewrite.vacated for number, _ in file.groups):
        return file
    groups = tuple((UNGROUPED if n in rewrite.vacated else n, first) for n, first in file.groups)
    return msgspec.structs.replace(file, groups=groups)


def _carry_over(part: Moved, dead: BitMap, died: list[BitMap]) -> None:
    """Mark in `died` (by output) the moved rows that are in `dead` (of the input)."""
    late = np.array(dead.to_array(), dtype=np.int64)
    at = np.searchsorted(part.rows, late)
    found = at < len(part.rows)
    at, late = at[found], late[found]
    for place in at[part.rows[at] == late].tolist():
        died[int(part.outputs[place])].add(int(part.output_rows[place]))
