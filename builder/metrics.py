"""What the builder counts."""

from prometheus_client import Counter, Gauge

from infra.telemetry import Metrics


class BuilderMetrics:
    """The builder's part of the process's metrics."""

    def __init__(self, metrics: Metrics) -> None:
        def counter(name: str, meaning: str) -> Counter:
            return metrics.counter(f"firndb_builder_{name}", meaning)

        def gauge(name: str, meaning: str) -> Gauge:
            return metrics.gauge(f"firndb_builder_{name}", meaning)

        by_partition = ("partition",)
        self.flushes = counter("flushes", "Flushes committed")
        self.flush_seconds = metrics.latency(
            "firndb_builder_flush_seconds", "Time of one flush, its reads and its commit"
        )
        self.compactions = metrics.counter(
            "firndb_builder_compactions", "Compaction jobs committed", ("job",)
        )
        self.compactions_dropped = counter(
            "compactions_dropped", "Compaction jobs whose input was gone at commit"
        )
        self.failures = metrics.counter(
            "firndb_builder_failures", "Flushes and compactions that failed", ("error",)
        )
        self.ingested_bytes = counter("ingested_bytes", "Bytes of log records accepted")
        self.ingested_records = counter("ingested_log_records", "Log records accepted")
        self.written_bytes = metrics.counter(
            "firndb_builder_written_bytes", "Bytes of data files and id runs written", ("by",)
        )
        self.dead_letters = counter("dead_letters", "Log records or entries rejected")
        self.attaches_refused = metrics.counter(
            "firndb_builder_attaches_refused", "Attach entries that did nothing", ("reason",)
        )
        self.skipped = counter("skipped", "Log records of deleted indexes")
        self.buffered_bytes = gauge("buffered_bytes", "Bytes accepted and not yet flushed")
        self.buffered_records = gauge("buffered_records", "Records accepted and not yet flushed")
        self.oldest_seconds = gauge("oldest_pending_seconds", "Age of the oldest unflushed entry")
        self.compaction_queue = gauge("compaction_queue", "Namespaces that wait for compaction")
        self.lag = metrics.gauge(
            "firndb_builder_lag_log_records",
            "From the checkpoint to the end of the log",
            by_partition,
        )
        self.debt_bytes = gauge(
            "debt_bytes", "Rows in deltas and dead rows where compaction has a job to do"
        )
        self.unfolded_bytes = gauge("unfolded_bytes", "Live rows in deltas")
        self.deltas = gauge("deltas", "Deltas of all namespaces worked on lately")
        self.deltas_most = gauge("deltas_most", "Deltas of the namespace that has most")
        self.clusters = metrics.gauge(
            "firndb_builder_clusters", "Clusters of at most so many bytes of vectors", ("le",)
        )
        self.collected_objects = counter("collected_objects", "Objects deleted as garbage")
        self.collected_bytes = counter("collected_bytes", "Bytes of objects deleted as garbage")
        self.collection_rounds = counter("collection_rounds", "Rounds of garbage collection")
        self.collection_failures = metrics.counter(
            "firndb_builder_collection_failures", "Looks for garbage that failed", ("error",)
        )
        self.garbage_objects = gauge("garbage_objects", "Garbage too young to go, as last seen")
        self.garbage_bytes = gauge("garbage_bytes", "Bytes of garbage too young to go")
        self.paused = gauge("paused_namespaces", "Namespaces that wait for a person")
        self.applied = metrics.gauge(
            "firndb_builder_applied_offset", "Next offset wanted", by_partition
        )
        self.checkpoint = metrics.gauge(
            "firndb_builder_checkpoint_offset", "Durable up to this offset", by_partition
        )
