"""A search: see the namespace, plan, probe its files, ask freshness, merge."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ParamSpec, TypeVar

from core.errors import Unavailable
from core.indexes import IndexInfo
from core.records import StoredRecord
from core.scan import Target
from core.turns import step_aside
from freshness.protocol import TOUCHED_MAX, FreshReader, FreshStatus, Search
from query.merge import FileRow, Scored, score_rows, top
from query.model import Cost, Match, QueryRequest, QueryResult
from query.operators.probe import Probe
from query.operators.read_records import read_patched, read_records
from query.operators.replay import OverlayCache
from query.operators.scan_file import FileScan, Question, stored_rows
from query.operators.score_records import score_records
from query.plan import Plan, plan
from query.sight import Sight, Wanted, Watch
from storage.file_cache import FileCache

# With more touched ids than one answer holds, candidates are checked by name: so many more than k
# at first.
CHECKED_EXTRA = 64
# Exact scores and columns of so few rows take some 0.2 ms; handing them to a thread takes 0.1.
INLINE_ROWS = 32
# A sight is lost when freshness drops entries between two questions of one query: once in a grace
# time.
SIGHTS_MAX = 4


P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class SearchParts:
    watch: Watch
    fresh: FreshReader
    cache: FileCache
    overlays: OverlayCache
    touched_max: int = TOUCHED_MAX


class Searcher:
    def __init__(self, parts: SearchParts) -> None:
        self._parts = parts

    async def search(self, index: IndexInfo, namespace: str, asked: QueryRequest) -> QueryResult:
        """`asked` fits the index already."""
        cost = Cost()
        timer = _Timer(cost)
        watch = self._parts.watch
        wanted = await watch.wanted_of(index, namespace, asked.options)
        timer.lap("position")
        target: Target | None = Target(index.metric, asked.vector, asked.sparse)
        if asked.id is not None:
            target, sight = await self._target_of(index, namespace, asked.id, wanted, cost)
            timer.lap("id")
            if target is None:
                return QueryResult((), sight.seen, cost)
        assert target is not None
        for _ in range(SIGHTS_MAX):
            sight = await self._see(index, namespace, asked, target, wanted)
            cost.fresh_rows += sight.answer.scanned
            cost.fresh_hits = len(sight.answer.hits)
            timer.lap("freshness")
            await step_aside()
            try:
                winners = await self._winners(index, namespace, asked, target, sight, cost)
            except _SightLost:
                continue
            timer.lap("files")
            await step_aside()
            break
        else:
            raise Unavailable(f"namespace {namespace!r} changes faster than it is read")
        matches = await _apart(len(winners), _matches, winners, asked)
        timer.lap("results")
        if asked.explain:
            cost.plan += _explained(sight, cost)
        return QueryResult(matches, sight.seen, cost)

    async def _target_of(
        self, index: IndexInfo, namespace: str, record_id: str, wanted: Wanted, cost: Cost
    ) -> tuple[Target | None, Sight]:
        """What the record with that id is compared by: dense values, in a sparse index sparse ones;
        None if it is absent.
        """
        request = replace(self._parts.watch.request(index, namespace), ids=(record_id,))
        sight = await self._parts.watch.see(request, wanted)
        stored = (await read_records(sight, [record_id], cost)).get(record_id)
        if stored is None:
            return None, sight
        if index.dimension is None:
            return Target(index.metric, None, stored.record.sparse), sight
        return Target(index.metric, stored.record.values), sight

    async def _see(
        self, index: IndexInfo, namespace: str, asked: QueryRequest, target: Target, wanted: Wanted
    ) -> Sight:
        search = Search(
            k=asked.top_k,
            vector=target.vector,
            sparse=target.sparse,
            filter=asked.filter,
            include_values=asked.include_values,
        )
        request = replace(
            self._parts.watch.request(index, namespace),
            search=search,
            touched_max=self._parts.touched_max,
            patches_of_all=True,
        )
        return await self._parts.watch.see(request, wanted)

    async def _winners(
        self,
        index: IndexInfo,
        namespace: str,
        asked: QueryRequest,
        target: Target,
        sight: Sight,
        cost: Cost,
    ) -> list[Scored]:
        answer, reader = sight.answer, sight.state.reader
        fresh = [Scored(h.stored.record.id, h.score, h.stored.lsn, h.stored) for h in answer.hits]
        if reader is None or sight.reader_hidden:
            return top(index.metric, fresh, asked.top_k)
        question = Question(
            target,
            asked.filter,
            asked.top_k,
            answer.touched,
            not asked.exhaustive,
            asked.scan_share,
        )
        if asked.filter is not None or target.sparse is not None:
            question = replace(question, trees=False)
        patched = await read_patched(sight, cost)
        fresh += await _apart(len(patched), score_records, patched, question)
        chosen = plan(reader, target, asked.filter, answer.filter_ops, asked.exhaustive)
        probe = Probe(reader, self._parts.cache, self._parts.overlays, answer.filter_ops, cost)
        if question.touched is not None:
            scans = await probe.run(chosen, question)
            return await _apart(question.k, _best, scans, question, fresh, asked.top_k)
        return await self._checked(index, namespace, sight, probe, chosen, question, fresh)

    async def _checked(
        self,
        index: IndexInfo,
        namespace: str,
        sight: Sight,
        probe: Probe,
        chosen: Plan,
        question: Question,
        fresh: Sequence[Scored],
    ) -> list[Scored]:
        """Too many ids are touched to mask them in the files: candidates are asked for by id, more
        of them until k are left or there are no more.
        """
        answer = sight.answer
        k, wider = question.k, 2 * question.k + CHECKED_EXTRA
        while True:
            question = replace(question, k=wider)
            scans = await probe.run(chosen, question)
            rows = await asyncio.to_thread(_best, scans, question, (), wider)
            request = replace(
                self._parts.watch.request(index, namespace),
                ids=tuple(row.id for row in rows),
                manifest_lsn=sight.state.complete_lsn,
            )
            now = await self._parts.fresh.read(request)
            if now.status is not FreshStatus.OK or now.overflowed_from != answer.overflowed_from:
                raise _SightLost
            if now.cleared:
                # emptied since the sight, and with that what was written above the manifest is
                # forgotten: nobody knows any more which of these rows were old already
                raise _SightLost
            current = score_records((c for c in now.current.values() if c is not None), question)
            # an id that was patched only after the sight was as in the file at that time
            kept = [r for r in rows if r.id not in now.current and r.id not in answer.patches]
            if len(kept) >= k or len(rows) < wider:
                return top(index.metric, [*fresh, *current, *kept], k)
            wider *= 4


def _best(
    scans: Sequence[FileScan], question: Question, fresh: Sequence[Scored], k: int
) -> list[Scored]:
    return top(question.target.metric, [*fresh, *score_rows(scans, question)], k)


def _matches(winners: Sequence[Scored], asked: QueryRequest) -> tuple[Match, ...]:
    """In a thread: reads the winners' columns, file by file."""
    by_file: dict[int, tuple[FileScan, list[int]]] = {}
    for place, winner in enumerate(winners):
        if isinstance(winner.source, FileRow):
            scan = winner.source.scan
            by_file.setdefault(id(scan), (scan, []))[1].append(place)
    matches: list[Match | None] = [None] * len(winners)
    for scan, places in by_file.values():
        rows = [w.source.row for w in (winners[p] for p in places) if isinstance(w.source, FileRow)]
        for place, stored in zip(places, stored_rows(scan.reader, scan.overlay, rows), strict=True):
            matches[place] = _match(winners[place], stored, asked)
    for place, winner in enumerate(winners):
        if isinstance(winner.source, StoredRecord):
            matches[place] = _match(winner, winner.source, asked)
    return tuple(m for m in matches if m is not None)


def _match(winner: Scored, stored: StoredRecord, asked: QueryRequest) -> Match:
    record = stored.record
    return Match(
        id=record.id,
        score=winner.score,
        lsn=stored.lsn,
        values=record.values if asked.include_values else None,
        sparse=record.sparse if asked.include_values else None,
        metadata=(record.metadata or None) if asked.include_metadata else None,
    )


def _explained(sight: Sight, cost: Cost) -> list[str]:
    state, answer = sight.state, sight.answer
    return [
        f"manifest version {state.version}, complete up to LSN {state.complete_lsn}",
        f"freshness {answer.status.value}: applied {answer.applied_lsn}, "
        f"{answer.live} live versions, "
        f"{'too many' if answer.touched is None else len(answer.touched)} ids touched, "
        f"{len(answer.patches)} patched, {len(answer.filter_ops)} filter operations"
        + (", files hidden" if answer.cleared else ""),
        f"files: {cost.clusters_considered} considered, "
        f"{cost.clusters_pruned} pruned by statistics, "
        f"{cost.clusters_probed} probed in {cost.rounds} rounds, {cost.rows_scanned} of "
        f"{cost.rows_considered} rows scanned",
    ]


async def _apart(rows: int, work: Callable[P, T], *given: P.args, **named: P.kwargs) -> T:
    """In a thread if it is about more than a few rows."""
    if rows <= INLINE_ROWS:
        return work(*given, **named)
    return await asyncio.to_thread(work, *given, **named)


class _SightLost(Exception):
    """Freshness no longer answers for the manifest that this query began with: begin again."""


class _Timer:
    """Wall milliseconds between laps, into the cost's steps."""

    def __init__(self, cost: Cost) -> None:
        self._cost = cost
        self._last = time.perf_counter()

    def lap(self, step: str) -> None:
        now = time.perf_counter()
        self._cost.steps_ms[step] = round((now - self._last) * 1000, 3)
        self._last = now
