"""What one namespace's memory says above m, frozen at one moment, and the search in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from heapq import nsmallest

import numpy as np

from core.filters.model import Filter
from core.records import StoredRecord, record_bytes
from core.scan import Candidates, Mask, Place, Target, best_first, cutoff, exact, scan
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
    Selected,
    Selection,
)
from freshness.segments import SegmentView, row_count

# Ids that are written again and again make the touch log longer than their number; sorting more
# than this many times the cap to find out is not worth it.
REPEATS_MAX = 8
# Matches of a selection kept while segments are looked through; only the first by id remain.
KEPT_MAX = 100_000


@dataclass(frozen=True, slots=True, eq=False)
class Shadow:
    """`views` hold all complete versions; `touched` is in log order and may repeat; the rest is
    above m already.
    """

    request: FreshRequest
    floor_lsn: int
    cleared: bool
    exists: bool | None
    ended: bool
    declared: tuple[str, ...] | None
    views: tuple[SegmentView, ...]
    touched: Hashes
    current: Mapping[str, StoredRecord | None]
    patches: Mapping[str, tuple[Pending, ...]]
    filter_ops: tuple[Pending, ...]

    @property
    def rows(self) -> int:
        """How much an answer has to look at: beyond some thousands it belongs in a thread."""
        asked = self.request
        looked_through = asked.search or asked.listing or asked.selection
        rows = row_count(self.views) if looked_through else 0
        return rows + (len(self.touched) if asked.touched_max else 0)

    def answer(
        self,
        applied_lsn: int,
        overflowed_from: int | None = None,
        outcome: Outcome | None = None,
    ) -> FreshAnswer:
        """The whole answer; pure, safe in any thread."""
        asked = self.request
        m, search, listing = asked.manifest_lsn, asked.search, asked.listing
        return FreshAnswer(
            status=FreshStatus.OK,
            applied_lsn=applied_lsn,
            floor_lsn=self.floor_lsn,
            overflowed_from=overflowed_from,
            cleared=self.cleared,
            exists=self.exists,
            ended=self.ended,
            declared=self.declared,
            live=sum(int(np.count_nonzero(view.above(m))) for view in self.views),
            hits=_search(self.views, m, asked, search) if search else (),
            touched=self._touched_hashes(),
            current=self.current,
            patches=self.patches,
            filter_ops=self.filter_ops,
            listed=_listed(self.views, m, listing) if listing else (),
            selected=_selected(self.views, m, asked.selection) if asked.selection else Selected(),
            outcome=outcome,
            scanned=row_count(self.views) if search or asked.selection else 0,
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
        mask = _passing(view, m, search.filter)
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


def _selected(views: tuple[SegmentView, ...], m: int, selection: Selection) -> Selected:
    count = 0
    found: list[tuple[str, SegmentView, int]] = []
    for view in views:
        rows = np.flatnonzero(_passing(view, m, selection.filter)).tolist()
        count += len(rows)
        if not selection.limit:
            continue
        ids = view.segment.ids
        found += [(ids[row], view, row) for row in rows if ids[row] > selection.after]
        if len(found) > KEPT_MAX:
            found = _first(found, selection.limit + 1)
    found = _first(found, selection.limit + 1)
    records: list[StoredRecord] = []
    size = 0
    for _, view, row in found[: selection.limit]:
        stored = view.stored(row)
        size += record_bytes(stored.record)
        if records and size > selection.bytes_max:
            break
        records.append(stored)
    return Selected(count, tuple(records), more=len(records) < len(found))


def _first(
    found: list[tuple[str, SegmentView, int]], limit: int
) -> list[tuple[str, SegmentView, int]]:
    return nsmallest(limit, found, key=lambda one: one[0])


def _passing(view: SegmentView, m: int, condition: Filter | None) -> Mask:
    """bool (count,): the live rows above m that match."""
    mask = view.above(m)
    if condition is not None and mask.any():
        mask &= view.segment.metadata_columns(view.count).mask(condition)
    return mask
