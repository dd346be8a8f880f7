"""scan: one file's candidates for the top k, filtered and shadowed before anything is ranked."""

from dataclasses import dataclass, replace

import numpy as np

from core.filters.model import Filter
from core.records import StoredRecord
from core.scan import GATHER_BELOW, Candidates, Mask, Place, Target, scan
from core.turns import step_aside_in_thread
from freshness.protocol import Hashes
from query.operators.place_file import place_of, rows_with
from query.operators.replay import Overlay
from storage.file_reader import FileReader

# Trees beat a float32 scan of the whole file only beyond this (measured at 384 dimensions), and
# need no filter.
TREES_ABOVE_ROWS = 20_000
# Nodes that the trees look at per match asked for: recall@10 of 0.97 at 5 trees on 20k real rows,
# or better.
TREE_NODES_PER_MATCH = 400
# Stored rows are read in half a millisecond.
ROWS_AT_ONCE = 64


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """k: candidates wanted of each file. touched: sorted unique id hashes above the manifest, None
    if too many to know. trees: whether Annoy may choose candidates. share: as `enough_rows` has it.
    """

    target: Target
    condition: Filter | None
    k: int
    touched: Hashes | None
    trees: bool
    share: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class FileScan:
    """live: rows of the manifest that are live; selected: those that passed shadow and filter;
    scanned: scored ones.
    """

    place: int
    reader: FileReader
    rows: Place
    overlay: Overlay | None
    candidates: Candidates
    live: int
    selected: int
    scanned: int


def scan_file(
    place: int, reader: FileReader, live: Mask, overlay: Overlay | None, question: Question
) -> FileScan:
    """In a thread. `live` is changed."""
    alive = int(np.count_nonzero(live))
    keep_passing(live, reader, overlay, question.touched, question.condition)
    selected = int(np.count_nonzero(live))
    rows = place_of(reader, with_sparse=question.target.sparse is not None)
    if selected == 0:
        candidates, scanned = _nothing(), 0
    elif question.trees and _has_trees(reader):
        candidates, scanned = _by_trees(reader, rows, live, question)
    else:
        candidates = scan(question.target, rows, live).best(question.k)
        scanned = selected if selected < GATHER_BELOW * reader.rows else reader.rows
    return FileScan(place, reader, rows, overlay, candidates, alive, selected, scanned)


def keep_passing(
    live: Mask,
    reader: FileReader,
    overlay: Overlay | None,
    touched: Hashes | None,
    condition: Filter | None,
) -> None:
    """In a thread. Leaves of the `live` rows those that nothing above the manifest hides and that
    match as pending filter operations left them.
    """
    if touched is not None:
        live[rows_with(reader, touched)] = False
    if overlay is not None:
        live[overlay.gone] = False
    if condition is not None and live.any():
        mask = reader.matching(condition, live)
        if overlay is not None:
            mask = overlay.mask(mask, overlay.columns.mask(condition))
        live &= mask


def stored_rows(reader: FileReader, overlay: Overlay | None, rows: list[int]) -> list[StoredRecord]:
    """In a thread. The rows as they are now, filter operations included."""
    taken = reader.take(rows)
    changed = {} if overlay is None else {int(r): i for i, r in enumerate(overlay.changed)}
    records = []
    for at, row in enumerate(rows):
        if at % ROWS_AT_ONCE == 0:
            step_aside_in_thread()
        stored = taken.stored(at)
        if overlay is not None and row in changed:
            change = changed[row]
            record = replace(stored.record, metadata=overlay.metadata[change])
            stored = StoredRecord(record, overlay.lsns[change])
        records.append(stored)
    return records


def _has_trees(reader: FileReader) -> bool:
    return reader.rows > TREES_ABOVE_ROWS and not reader.is_delta and reader.vectors is not None


def _by_trees(
    reader: FileReader, rows: Place, live: Mask, question: Question
) -> tuple[Candidates, int]:
    """Falls back to the scan where the trees' candidates are mostly dead or shadowed."""
    assert question.target.vector is not None
    wanted = 2 * question.k + 64
    nodes = TREE_NODES_PER_MATCH * wanted
    near = reader.annoy().get_nns_by_vector(question.target.vector.tolist(), wanted, nodes)
    chosen = np.zeros(reader.rows, dtype=np.bool_)
    chosen[np.array(near, dtype=np.int64)] = True
    chosen &= live
    if np.count_nonzero(chosen) < min(question.k, int(np.count_nonzero(live))):
        return scan(question.target, rows, live).best(question.k), reader.rows
    return scan(question.target, rows, chosen).best(question.k), nodes


def _nothing() -> Candidates:
    return Candidates(np.empty(0, dtype=np.int64), np.empty(0), 0.0)
