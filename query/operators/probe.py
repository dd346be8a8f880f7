"""probe: open and scan the rows of a plan, nearest first, until enough have been seen."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from core.scan import Mask
from core.turns import step_aside, step_aside_in_thread
from freshness.protocol import Pending
from query.layout import Piece
from query.model import Cost
from query.operators.open_files import Opening
from query.operators.replay import Overlay, OverlayCache
from query.operators.scan_file import FileScan, Question, scan_file
from query.plan import Plan, enough_rows, has_enough
from storage.file_cache import FileCache
from storage.file_reader import FileReader
from storage.namespace import NamespaceReader

# numpy gives the GIL away while it multiplies: a few threads use a few cores; more would only
# switch.
THREADS = 4


@dataclass(frozen=True, slots=True, eq=False)
class _Opened:
    place: int
    reader: FileReader
    live: Mask
    overlay: Overlay | None


class Probe:
    """One query's way through the files of one manifest."""

    def __init__(
        self,
        reader: NamespaceReader,
        cache: FileCache,
        overlays: OverlayCache,
        filter_ops: Sequence[Pending],
        cost: Cost,
    ) -> None:
        self._reader = reader
        self._opening = Opening(reader, cache, overlays, filter_ops, cost)
        self._cost = cost

    async def run(self, plan: Plan, question: Question) -> list[FileScan]:
        """Scans everything in `always`, and of `ranked` as many as needed."""
        cost = self._cost
        cost.clusters_considered, cost.clusters_pruned = plan.considered, plan.pruned
        cost.rows_considered = plan.total_live
        question = replace(question, trees=question.trees and not plan.everything)
        wanted = enough_rows(plan.total_live, question.k, question.share)
        ranked = list(plan.ranked)
        wave = list(plan.always)
        cost.clusters_probed += len({piece.place for piece in wave})
        wave += self._take(plan, ranked, wanted - sum(piece.live for piece in wave))
        scans: list[FileScan] = []
        while wave:
            scans += await self._scan(wave, question)
            live, selected = sum(s.live for s in scans), sum(s.selected for s in scans)
            if not ranked or has_enough(
                plan.total_live, live, selected, question.k, question.share
            ):
                break
            # a filter lets few rows pass: each wave doubles what has been seen
            wave = self._take(plan, ranked, max(live, wanted))
        return scans

    def _take(self, plan: Plan, ranked: list[int], rows: int) -> list[Piece]:
        """Removes clusters from the front of `ranked` until their live rows reach `rows`."""
        taken: list[Piece] = []
        while ranked and rows > 0:
            pieces = plan.pieces(ranked.pop(0))
            rows -= sum(piece.live for piece in pieces)
            self._cost.clusters_probed += len(pieces) > 0
            taken += pieces
        return taken

    async def _scan(self, wave: Sequence[Piece], question: Question) -> list[FileScan]:
        by_place: dict[int, list[Piece]] = {}
        for piece in wave:
            by_place.setdefault(piece.place, []).append(piece)
        opened = [
            _Opened(place, reader, self._live(pieces), overlay)
            for (place, pieces), (reader, overlay) in zip(
                by_place.items(), await self._opening.open(list(by_place)), strict=True
            )
        ]
        await step_aside()
        share = -(-len(opened) // THREADS)
        groups = [opened[at : at + share] for at in range(0, len(opened), share)]
        done = await asyncio.gather(
            *(asyncio.to_thread(_scan_all, group, question) for group in groups)
        )
        scans = [scan for group in done for scan in group]
        for found in scans:
            self._cost.rows_scanned += found.scanned
            vectors = found.rows.vectors
            width = 0 if vectors is None else 4 * vectors.shape[1]
            self._cost.bytes_scanned += found.scanned * width
        return scans

    def _live(self, pieces: Sequence[Piece]) -> Mask:
        """True for the live rows of those pieces, which are of one file."""
        live = self._reader.live_mask(pieces[0].place)
        if sum(piece.end - piece.first for piece in pieces) == len(live):
            return live
        mask = np.zeros(len(live), dtype=np.bool_)
        for piece in pieces:
            mask[piece.first : piece.end] = live[piece.first : piece.end]
        return mask


def _scan_all(group: Sequence[_Opened], question: Question) -> list[FileScan]:
    return list(_scans(group, question))


def _scans(group: Sequence[_Opened], question: Question) -> Iterator[FileScan]:
    for opened in group:
        step_aside_in_thread()
        yield scan_file(opened.place, opened.reader, opened.live, opened.overlay, question)
