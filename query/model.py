"""What a reader asks of a namespace and what it gets: requests, results and the counters of their
cost.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from core.filters.model import Filter
from core.log import NO_LSN
from core.records import Metadata, Record, SparseValues, Vector


class Consistency(StrEnum):
    """How an answer relates to writes that were acknowledged before the question.

    DEFAULT: sees them; if they are not applied within the deadline, answers without and says so
    (`stale`). STRONG: sees them, or `DeadlineExceeded`. EVENTUAL: never waits.
    """

    DEFAULT = "default"
    STRONG = "strong"
    EVENTUAL = "eventual"


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """`min_lsn`: wait for this write (inclusive) instead of the log's end. `deadline_s` None: the
    service's default.
    """

    consistency: Consistency = Consistency.DEFAULT
    min_lsn: int | None = None
    deadline_s: float | None = None


DEFAULT_READ = ReadOptions()


@dataclass(frozen=True, slots=True, eq=False)
class QueryRequest:
    """Exactly one of `vector`, `id` in a dense index (plus `sparse` if its metric is dotproduct);
    of `sparse`, `id` in a sparse one.

    exhaustive: probe every cluster, so recall is 1.0. explain: fill the plan's texts in the cost.
    scan_share: how much to look at of what good recall needs, in (0, 1]; no less than everything in
    a small namespace.
    """

    top_k: int
    vector: Vector | None = None
    id: str | None = None
    sparse: SparseValues | None = None
    filter: Filter | None = None
    include_values: bool = False
    include_metadata: bool = False
    exhaustive: bool = False
    explain: bool = False
    scan_share: float = 1.0
    options: ReadOptions = DEFAULT_READ


@dataclass(frozen=True, slots=True, eq=False)
class Match:
    """Parts that were not asked for are None; so is metadata of a record that has none."""

    id: str
    score: float
    lsn: int
    values: Vector | None = None
    sparse: SparseValues | None = None
    metadata: Metadata | None = None


@dataclass(slots=True)
class Cost:
    """Counted work of one read. Steps are wall milliseconds by name."""

    clusters_considered: int = 0
    clusters_pruned: int = 0
    clusters_probed: int = 0
    deltas_scanned: int = 0
    rows_considered: int = 0
    rows_scanned: int = 0
    bytes_scanned: int = 0
    files_opened: int = 0
    cache_hits: int = 0
    gets: int = 0
    fresh_rows: int = 0
    fresh_hits: int = 0
    rounds: int = 0
    replayed_rows: int = 0
    steps_ms: dict[str, float] = field(default_factory=dict)
    plan: list[str] = field(default_factory=list)

    @property
    def read_units(self) -> int:
        """At least 1, and one per MiB of vectors that the answer had to look at."""
        return max(1, -(-self.bytes_scanned // (1 << 20)))


@dataclass(frozen=True, slots=True)
class Freshness:
    """What an answer has seen: every write up to `lsn` (inclusive).

    stale: it could not wait for all that it promised. overflowed: this namespace has more unindexed
    data than memory.
    """

    lsn: int = NO_LSN
    stale: bool = False
    overflowed: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class QueryResult:
    """Matches, best first; equal scores by id."""

    matches: tuple[Match, ...]
    freshness: Freshness
    cost: Cost


@dataclass(frozen=True, slots=True, eq=False)
class FetchResult:
    """Only ids that exist."""

    records: Mapping[str, Record]
    freshness: Freshness
    cost: Cost


@dataclass(frozen=True, slots=True, eq=False)
class MetadataRequest:
    """The first `limit` (at least 1) records that match, by id, after those of the page that gave
    `token`.
    """

    filter: Filter
    limit: int
    token: str | None = None
    options: ReadOptions = DEFAULT_READ


@dataclass(frozen=True, slots=True, eq=False)
class FetchPageResult:
    """In ascending code point order of ids. A page may be shorter than asked for, and is the last
    only if `next_token` is None.
    """

    records: Mapping[str, Record]
    next_token: str | None
    freshness: Freshness
    cost: Cost


@dataclass(frozen=True, slots=True)
class CountResult:
    """How many records match, exactly, as of `freshness.lsn`."""

    count: int
    freshness: Freshness
    cost: Cost


@dataclass(frozen=True, slots=True)
class ListResult:
    """Ids in ascending code point order; `next_token` is None on the last page."""

    ids: tuple[str, ...]
    next_token: str | None
    freshness: Freshness
    cost: Cost


@dataclass(frozen=True, slots=True)
class NamespaceStats:
    """declared: fields of the schema that it was created with; None: without one."""

    name: str
    record_count: int
    size_bytes: int
    declared: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class StatsResult:
    """Exact counts of every namespace. `freshness.lsn` is NO_LSN where the namespaces span
    partitions; see `lsns`.
    """

    namespaces: Mapping[str, NamespaceStats]
    total: int
    freshness: Freshness
    lsns: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class NamespacesResult:
    """In ascending order of names. `total` counts all that match the prefix."""

    namespaces: tuple[NamespaceStats, ...]
    next_token: str | None
    total: int
    freshness: Freshness


@dataclass(frozen=True, slots=True)
class NamespaceResult:
    namespace: NamespaceStats
    freshness: Freshness


@dataclass(frozen=True, slots=True)
class WriteOutcome:
    """The deterministic result of the write at `lsn`: did its namespace exist just before it?

    None: not known within the deadline; the write itself stands.
    """

    lsn: int
    existed: bool | None
