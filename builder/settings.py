"""The builder's plain settings, apart from its parts."""

from dataclasses import dataclass, field

from builder.policy import CompactionLimits, FlushLimits


@dataclass(frozen=True, slots=True)
class BuilderSettings:
    """Bounds are for one process.

    buffer_bytes, buffer_records: entries accepted and not yet flushed, over all namespaces; beyond,
    `apply` waits. batch_bytes: the most that one flush takes (a log record is never divided).
    fold_bytes: the most that one flush holds of records that it changes; beyond, a flush writes
    several deltas (a small update by filter may change a whole namespace). inline_bytes: a
    namespace whose rows take no more, encoded, lies in its manifest. flushes, compactions:
    how many run at once. tick_s: how often ages are looked at.
    registry_s: the least time between two checkpoints of a partition. stop_s: bound of the last
    flush at `stop` and at an orderly revocation. idle_namespaces, idle_bytes: how many manifests of
    namespaces without work are kept in memory, and about how much they take.
    gc_grace_s: what nothing names any more stays for so long; above the longest query and the
    longest job. gc_period_s: between two looks at a namespace with garbage. gc_patrol_per_s: how
    many namespaces are looked at after an assignment. collections: how many at once.
    """

    flush: FlushLimits = field(default_factory=FlushLimits)
    compaction: CompactionLimits = field(default_factory=CompactionLimits)
    buffer_bytes: int = 256 << 20
    buffer_records: int = 500_000
    batch_bytes: int = 64 << 20
    fold_bytes: int = 256 << 20
    # 10 records of 1,536 dimensions. Each flush writes them twice, in the manifest and its hint.
    inline_bytes: int = 64 << 10
    flushes: int = 4
    compactions: int = 1
    tick_s: float = 0.1
    registry_s: float = 1.0
    stop_s: float = 20.0
    idle_namespaces: int = 1000
    idle_bytes: int = 32 << 20
    paused_retry_s: float = 30.0
    backoff_first_s: float = 0.1
    backoff_max_s: float = 10.0
    directory_retry_s: float = 0.5
    gc_grace_s: float = 3600.0
    gc_period_s: float = 600.0
    gc_patrol_per_s: float = 10.0
    collections: int = 1
