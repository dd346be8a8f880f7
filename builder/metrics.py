"""What the builder counts, for Prometheus."""

from prometheus_client import Counter, Gauge, Histogram

FLUSHES = Counter("firndb_builder_flushes", "Flushes committed")
FLUSH_SECONDS = Histogram("firndb_builder_flush_seconds", "Time of one flush, reads and commit")
COMPACTIONS = Counter("firndb_builder_compactions", "Compaction jobs committed", ["job"])
COMPACTIONS_DROPPED = Counter(
    "firndb_builder_compactions_dropped", "Compaction jobs whose input was gone at commit"
)
FAILURES = Counter("firndb_builder_failures", "Flushes and compactions that failed", ["error"])
INGESTED_BYTES = Counter("firndb_builder_ingested_bytes", "Bytes of log records accepted")
INGESTED_RECORDS = Counter("firndb_builder_ingested_log_records", "Log records accepted")
WRITTEN_BYTES = Counter(
    "firndb_builder_written_bytes", "Bytes of data files and id runs written", ["by"]
)
DEAD_LETTERS = Counter("firndb_builder_dead_letters", "Log records or entries rejected")
SKIPPED = Counter("firndb_builder_skipped", "Log records of deleted indexes")
BUFFERED_BYTES = Gauge("firndb_builder_buffered_bytes", "Bytes accepted and not yet flushed")
BUFFERED_RECORDS = Gauge("firndb_builder_buffered_records", "Records accepted and not yet flushed")
PAUSED = Gauge("firndb_builder_paused_namespaces", "Namespaces that wait for a person")
APPLIED = Gauge("firndb_builder_applied_offset", "Next offset wanted", ["partition"])
CHECKPOINT = Gauge("firndb_builder_checkpoint_offset", "Durable up to this offset", ["partition"])
