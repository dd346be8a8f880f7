"""What one namespace's memory says above m, frozen at one moment, and the search in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from heapq import nsmallest

import numpy as np

from core.records import StoredRecord
from core.scan import Candidates, Place, Target, best_first, cutoff, exact, scan
from freshness.protocol import (
    FreshAnswer,
    FreshHit,
    FreshRequest,
    FreshStatus,
    Hashes,
    Listing,
    Outcome,
    Pending,
    Search,
)
from freshness.segments import SegmentView, row_count

# Ids that are written again and again make the touch log longer than their number; sorting more
# than this many times the cap to find out is not worth it.
REPEATS_MAX = 8


@dataclass(frozen=True, slots=True, eq=False)
class Shadow:
    """`views` hold all complete versions; `touched` is in log order and may repeat; the rest is
    above m already.
    """

    request: FreshRequest
    floor_lsn: int
    cleared: bool
    exists: bool | None
    views: tuple[SegmentView, ...]
    touched: Hashes
    current: Mapping[str, StoredRecord | None]
    patches: Mapping[str, tuple[Pending, ...]]
    filter_ops: tuple[Pending, ...]

    @property
    def rows(self) -> int:
        """How much an answer has to look at: beyond some thousands it belongs in a thread."""
        asked = self.request
        rows = row_count(self.views) if asked.search or asked.listing else 0
        return rows + (len(self.touched) if asked.touched_max else 0)

    def answer(
        self,
        applied_lsn: int,
        overflowed_from: int | None = None,
        outcome: Outcome | None = None,
    ) -> FreshAnswer:
        """The whole answer; pure, safe in any thread."""
        m, search, listing = (
            self.request.manifest_lsn,
            self.request.search,
            self.request.listing,
        )
        return FreshAnswer(
            status=FreshStatus.OK,
            applied_lsn=applied_lsn,
            floor_lsn=self.floor_lsn,
            overflowed_from=overflowed_from,
            cleared=self.cleared,
            exists=self.exists,
            live=sum(int(np.count_nonzero(view.above(m))) for view in self.views),
            hits=_search(self.views, m, self.request, search) if search else (),
            touched=self._touched_hashes(),
            current=self.current,
            patches=self.patches,
            filter_ops=self.filter_ops,
            listed=_listed(self.views, m, listing) if listing else (),
            outcome=outcome,
            scanned=row_count(self.views) if search else 0,
        )

    def _touched_hashes(self) -> Hashes | None:
        most = self.request.touched_max
        if most == 0:
            return self.touched[:0]
        if len(self.touched) > REPEATS_MAX * most:
            return None
        unique = np.unique(self.touched)
        return unique if len(unique) <= most else None


def _search(
    views: tuple[SegmentView, ...], m: int, request: FreshRequest, search: Search
) -> tuple[FreshHit, ...]:
    target = Target(request.metric, search.vector, search.sparse)
    found: list[tuple[SegmentView, Place, Candidates]] = []
    for view in views:
        mask = view.above(m)
        if search.filter is not None and mask.any():
            mask &= view.segment.metadata_columns(view.count).mask(search.filter)
        if not mask.any():
            continue
        place = view.place(target.metric, with_sparse=target.sparse is not None)
        found.append((view, place, scan(target, place, mask).best(search.k)))
    if not found:
        return ()
    goodness = np.concatenate([c.goodness for _, _, c in found])
    least = cutoff(goodness, search.k, max(c.slack for _, _, c in found))
    chosen: list[tuple[SegmentView, int]] = []
    scores: list[float] = []
    for view, place, candidates in found:
        rows = candidates.rows[candidates.goodness >= least]
        chosen += [(view, row) for row in rows.tolist()]
        scores += exact(target, place, rows).tolist()
    ids = [view.segment.ids[row] for view, row in chosen]
    hits = []
    for at in best_first(target.metric, scores, ids)[: search.k]:
        view, row = chosen[at]
        stored = view.stored(row, include_values=search.include_values)
        hits.append(FreshHit(stored, scores[at]))
    return tuple(hits)


def _listed(views: tuple[SegmentView, ...], m: int, listing: Listing) -> tuple[str, ...]:
    ids = (
        view.segment.ids[row]
        for view in views
        for row in np.flatnonzero(view.above(m)).tolist()
        if view.segment.ids[row].startswith(listing.prefix)
        and view.segment.ids[row] > listing.after
    )
    return tuple(nsmallest(listing.limit, ids))
