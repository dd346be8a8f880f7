"""Which rows a query looks at, in which order, and when it has seen enough. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from core.filters.model import Filter, fields
from core.filters.statistics import INCOMPLETE, FieldStatistics, may_match
from core.metric import ranking
from core.operations import UpdateByFilter
from core.scan import Target
from freshness.protocol import Pending
from query.layout import Layout, Piece, layout_of, whole
from storage.manifest import DataFile
from storage.namespace import NamespaceReader

# Up to here every row is scanned: some 5 ms at 384 dimensions, and recall is 1.
SCAN_ALL_ROWS = 25_000
# Measured on 19,700 real embeddings: 40 % of the rows at 1,024 rows a cluster give recall@10 of
# 0.95 (7,830), larger clusters need more. Growth with n was between n**0.4 and n**0.85.
BASE_ROWS = 12_000
BASE_TOTAL = 20_000
GROWTH = 0.6
# A large k reaches into more clusters: about this many candidates per match asked for.
ROWS_PER_MATCH = 4


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """always: rows of files without clusters, and of deltas that belong to no cluster. ranked:
    numbers of clusters, nearest first, each with its rows in its file and in the deltas.

    total_live: of all files that may match. considered: files with live rows; pruned: those that
    statistics exclude.
    """

    always: tuple[Piece, ...]
    ranked: tuple[int, ...]
    total_live: int
    considered: int
    pruned: int
    everything: bool
    layout: Layout | None
    kept: frozenset[int]

    def pieces(self, cluster: int) -> list[Piece]:
        """A ranked cluster's rows in files that may match."""
        assert self.layout is not None
        return [piece for piece in self.layout.pieces(cluster) if piece.place in self.kept]


def plan(
    reader: NamespaceReader,
    target: Target,
    condition: Filter | None,
    filter_ops: Sequence[Pending],
    exhaustive: bool,
) -> Plan:
    """Everything is looked at if `exhaustive`, in sparse indexes, and where there are few rows."""
    unknown = changed_fields(filter_ops)
    files = [(place, f) for place, f in enumerate(reader.manifest.files) if f.live > 0]
    kept = [
        (place, f)
        for place, f in files
        if condition is None or may_match_file(f, condition, unknown)
    ]
    total = sum(f.live for _, f in kept)
    places = frozenset(place for place, _ in kept)
    everything = exhaustive or target.vector is None or total <= SCAN_ALL_ROWS
    layout = None if everything else layout_of(reader)
    if layout is None:
        always = whole(reader, [place for place, _ in kept])
    else:
        always = tuple(piece for piece in layout.loose if piece.place in places)
    return Plan(
        always=always,
        ranked=() if layout is None else _nearest_first(layout, target),
        total_live=total,
        considered=len(files),
        pruned=len(files) - len(kept),
        everything=everything,
        layout=layout,
        kept=places,
    )


def changed_fields(filter_ops: Sequence[Pending]) -> frozenset[str]:
    """Metadata fields whose values in the files are no longer the truth."""
    changes = [
        p.operation.set_metadata for p in filter_ops if isinstance(p.operation, UpdateByFilter)
    ]
    return frozenset(name for change in changes for name in change)


def may_match_file(file: DataFile, condition: Filter, unknown: frozenset[str]) -> bool:
    """False only if no row of the file can match, whatever happened to the `unknown` fields."""
    statistics: Mapping[str, FieldStatistics] = file.statistics
    if unknown & fields(condition):
        known = {name: s for name, s in statistics.items() if name not in unknown}
        statistics = {**known, INCOMPLETE: FieldStatistics(rows=file.rows, strings=None)}
    return may_match(condition, statistics, file.rows)


def enough_rows(total: int, k: int, share: float = 1.0) -> int:
    """How many of `total` rows to scan for recall@k of about 0.95, nearest clusters first; `share`
    of that for less recall.
    """
    if total <= SCAN_ALL_ROWS:
        return total
    return int(max(share * BASE_ROWS * (total / BASE_TOTAL) ** GROWTH, ROWS_PER_MATCH * k))


def has_enough(
    total_live: int, probed_live: int, selected: int, k: int, share: float = 1.0
) -> bool:
    """Whether the probed clusters are enough, `selected` of their `probed_live` rows having passed
    the filter.

    The rows that pass a filter are a data set of their own, of total * selectivity rows: as many of
    *them* are wanted as of an unfiltered set of that size. Where few can match this means every
    cluster.
    """
    if probed_live == 0:
        return total_live == 0
    matching = total_live * selected / probed_live
    return selected > 0 and selected >= min(matching, enough_rows(ceil(matching), k, share))


def _nearest_first(layout: Layout, target: Target) -> tuple[int, ...]:
    """The clusters that are not vacant."""
    assert target.vector is not None
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        goodness = ranking(target.metric, layout.centroids, target.vector)
    goodness = np.where(np.isnan(goodness), -np.inf, goodness)  # overflowed
    order = np.argsort(-goodness[layout.used], kind="stable")
    return tuple(layout.used[order].tolist())
