"""Where the rows of each cluster of a manifest lie: in its file, and in a range of each delta."""

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from core.metric import F32
from storage.groups import UNGROUPED, groups_of
from storage.namespace import NamespaceReader


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows [first, end) of the file at that place of the manifest, so many of them live."""

    place: int
    first: int
    end: int
    live: int


class Layout:
    """Costs a little once for a manifest; what is asked of a cluster is kept.

    centroids: float32 (k, d); used: int64, the numbers of those that are not vacant. loose: rows
    that no centroid stands for, which every query looks at.
    """

    def __init__(self, reader: NamespaceReader) -> None:
        self._reader = reader
        self.centroids: F32 = reader.manifest.centroid_matrix()
        self.used = np.flatnonzero(~np.isnan(self.centroids).any(axis=1))
        used = set(self.used.tolist())
        self._ranges: dict[int, list[tuple[int, int, int]]] = {UNGROUPED: []}
        self._pieces: dict[int, tuple[Piece, ...]] = {}
        for place, file in enumerate(reader.manifest.files):
            for number, first, end in groups_of(file):
                known = number if number in used else UNGROUPED
                self._ranges.setdefault(known, []).append((place, first, end))
        self.loose = self.pieces(UNGROUPED)

    def pieces(self, cluster: int) -> tuple[Piece, ...]:
        """Those with live rows."""
        found = self._pieces.get(cluster)
        if found is None:
            made = (self._piece(*at) for at in self._ranges.get(cluster, ()))
            found = self._pieces[cluster] = tuple(piece for piece in made if piece.live)
        return found

    def _piece(self, place: int, first: int, end: int) -> Piece:
        dead = self._reader.dead(place)
        gone = dead.range_cardinality(first, end) if dead else 0
        return Piece(place, first, end, end - first - gone)


_layouts: WeakKeyDictionary[NamespaceReader, Layout] = WeakKeyDictionary()


def layout_of(reader: NamespaceReader) -> Layout:
    """Of one manifest for all its queries."""
    found = _layouts.get(reader)
    if found is None:
        found = _layouts[reader] = Layout(reader)
    return found


def whole(reader: NamespaceReader, places: Sequence[int]) -> tuple[Piece, ...]:
    """All rows of those files."""
    files = reader.manifest.files
    return tuple(Piece(place, 0, files[place].rows, files[place].live) for place in places)
