"""Which files a query looks at, in which order, and when it has seen enough. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.filters.model import Filter, fields
from core.filters.statistics import INCOMPLETE, FieldStatistics, may_match
from core.metric import ranking
from core.operations import UpdateByFilter
from core.scan import Target
from freshness.protocol import Pending
from storage.manifest import DataFile, Manifest

# Up to here every row is scanned: some 5 ms at 384 dimensions, and recall is 1.
SCAN_ALL_ROWS = 25_000
# Measured on 19,700 real embeddings: 40 % of the rows at 1,024 rows a cluster give recall@10 of
# 0.95 (7,830), larger clusters need more. Growth with n was between n**0.4 and n**0.85.
BASE_ROWS = 12_000
BASE_TOTAL = 20_000
GROWTH = 0.6
# A large k reaches into more clusters: about this many candidates per match asked for.
ROWS_PER_MATCH = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """Places in the manifest's `files`. always: deltas and unclustered files; ranked: clusters,
    nearest first.

    total_live: of all files that may match. considered: files with live rows; pruned: those that
    statistics exclude.
    """

    always: tuple[int, ...]
    ranked: tuple[int, ...]
    total_live: int
    considered: int
    pruned: int
    everything: bool


def plan(
    manifest: Manifest,
    target: Target,
    condition: Filter | None,
    filter_ops: Sequence[Pending],
    exhaustive: bool,
) -> Plan:
    """Everything is looked at if `exhaustive`, in sparse indexes, and where there are few rows."""
    unknown = changed_fields(filter_ops)
    files = [(place, f) for place, f in enumerate(manifest.files) if f.live > 0]
    kept = [
        (place, f)
        for place, f in files
        if condition is None or may_match_file(f, condition, unknown)
    ]
    total = sum(f.live for _, f in kept)
    everything = exhaustive or target.vector is None or total <= SCAN_ALL_ROWS
    always = [place for place, f in kept if f.is_delta or f.cluster < 0 or everything]
    clustered = [] if everything else [(p, f) for p, f in kept if not f.is_delta and f.cluster >= 0]
    return Plan(
        always=tuple(always),
        ranked=_nearest_first(manifest, target, clustered),
        total_live=total,
        considered=len(files),
        pruned=len(files) - len(kept),
        everything=everything,
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


def enough_rows(total: int, k: int) -> int:
    """How many of `total` rows to scan for recall@k of about 0.95, nearest clusters first."""
    if total <= SCAN_ALL_ROWS:
        return total
    return int(max(BASE_ROWS * (total / BASE_TOTAL) ** GROWTH, ROWS_PER_MATCH * k))


def has_enough(total_live: int, probed_live: int, selected: int, k: int) -> bool:
    """Whether the probed clusters are enough, `selected` of their `probed_live` rows having passed
    the filter.

    The rows that pass a filter are a data set of their own, of total * selectivity rows: as many of
    *them* are wanted as of an unfiltered set of that size. Where few can match this means every
    cluster.
    """
    if probed_live == 0:
        return total_live == 0
    matching = total_live * selected / probed_live
    return selected > 0 and selected >= min(matching, enough_rows(round(matching), k))


def _nearest_first(
    manifest: Manifest, target: Target, clustered: list[tuple[int, DataFile]]
) -> tuple[int, ...]:
    if not clustered:
        return ()
    assert target.vector is not None
    centroids = manifest.centroid_matrix()
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        goodness = np.nan_to_num(ranking(target.metric, centroids, target.vector), nan=-np.inf)
    return tuple(
        place for place, f in sorted(clustered, key=lambda item: -float(goodness[item[1].cluster]))
    )
