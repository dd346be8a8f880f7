"""merge: candidates of files, fresh hits and replayed records into one top k without an id twice.
Pure.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from core.metric import Metric
from core.records import StoredRecord
from core.scan import best_first, cutoff, exact
from core.turns import step_aside_in_thread
from query.operators.scan_file import FileScan, Question


@dataclass(frozen=True, slots=True, eq=False)
class FileRow:
    """A row of a scanned file."""

    scan: FileScan
    row: int


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """A version of a record with its exact score. lsn: None for a file row, which is older than any
    fresh version.
    """

    id: str
    score: float
    lsn: int | None
    source: FileRow | StoredRecord


def score_rows(scans: Sequence[FileScan], question: Question) -> list[Scored]:
    """The rows of all files that may be among the best `question.k`, with exact scores. In a
    thread.
    """
    if not scans:
        return []
    goodness = np.concatenate([s.candidates.goodness for s in scans])
    least = cutoff(goodness, question.k, max(s.candidates.slack for s in scans))
    scored: list[Scored] = []
    for found in scans:
        rows = found.candidates.rows[found.candidates.goodness >= least]
        if len(rows) == 0:
            continue
        step_aside_in_thread()
        scores = exact(question.target, found.rows, rows).tolist()
        ids = found.reader.ids(rows)
        scored += [
            Scored(i, score, None, FileRow(found, row))
            for i, score, row in zip(ids, scores, rows.tolist(), strict=True)
        ]
    return scored


def top(metric: Metric, candidates: Iterable[Scored], k: int) -> list[Scored]:
    """Best first, equal scores by id; of two versions of an id the newer one counts."""
    newest: dict[str, Scored] = {}
    for candidate in candidates:
        known = newest.get(candidate.id)
        if known is None or _age(candidate) > _age(known):
            newest[candidate.id] = candidate
    step_aside_in_thread()
    chosen = list(newest.values())
    order = best_first(metric, [c.score for c in chosen], [c.id for c in chosen])
    return [chosen[at] for at in order[:k]]


def _age(candidate: Scored) -> int:
    return -1 if candidate.lsn is None else candidate.lsn
