"""score: records that are not rows of a file, one by one: filter, then exact score."""

from collections.abc import Iterable

import numpy as np

from core.filters.row import matches
from core.metric import exact_scores
from core.records import StoredRecord
from core.scan import Target
from core.sparse import sparse_score
from query.merge import Scored
from query.operators.scan_file import Question


def score_records(records: Iterable[StoredRecord], question: Question) -> list[Scored]:
    """Those that match, with the same scores as rows of a file would have."""
    scored = []
    for stored in records:
        if question.condition is not None and not matches(
            question.condition, stored.record.metadata
        ):
            continue
        score = _score(stored, question.target)
        if score is not None:
            scored.append(Scored(stored.record.id, score, stored.lsn, stored))
    return scored


def _score(stored: StoredRecord, target: Target) -> float | None:
    """None: no match in a sparse index."""
    sparse = 0.0
    if target.sparse is not None and stored.record.sparse is not None:
        sparse = sparse_score(stored.record.sparse, target.sparse)
    if target.vector is None:
        return sparse or None
    assert stored.record.values is not None
    values = stored.record.values[np.newaxis, :]
    return float(exact_scores(target.metric, values, target.vector)[0]) + sparse
