"""What a process shows of its parts on /metrics, read from them when asked."""

from dataclasses import fields
from functools import partial

from cli.runtime.parts import Parts
from freshness.layer import FreshnessLayer
from infra.objects.counting import StoreCounts
from storage.file_cache import FileCache
from storage.layout import OBJECT_KINDS

_BYTES = {"read_bytes": "read", "written_bytes": "written"}


def show_store(parts: Parts) -> None:
    """Requests and bytes asked of the object store, retries included, by verb."""
    requests = parts.metrics.gauge(
        "firndb_object_store_requests", "Requests to the object store since the start", ["verb"]
    )
    sizes = parts.metrics.gauge(
        "firndb_object_store_bytes", "Bytes from and to the object store since the start", ["way"]
    )
    for field in fields(StoreCounts):
        name = field.name

        def now(name: str = name) -> float:
            return float(getattr(parts.counts.counts(), name))

        if name in _BYTES:
            sizes.labels(_BYTES[name]).set_function(now)
        else:
            requests.labels(name).set_function(now)
    kinds = parts.metrics.gauge(
        "firndb_object_store_written_bytes",
        "Bytes written to the object store since the start, by kind of object",
        ["kind"],
    )
    for kind in OBJECT_KINDS:
        kinds.labels(kind).set_function(partial(_written, parts, kind))


def _written(parts: Parts, kind: str) -> float:
    return float(parts.counts.written_by_kind[kind])


def show_amplification(parts: Parts) -> None:
    """For processes with a builder, and nothing else that writes much."""
    parts.metrics.gauge(
        "firndb_builder_write_amplification",
        "Bytes written to the object store over bytes of log records accepted, since the start",
    ).set_function(partial(_amplification, parts))


def _amplification(parts: Parts) -> float:
    accepted = parts.metrics.value("firndb_builder_ingested_bytes_total")
    return parts.counts.counts().written_bytes / accepted if accepted else 0.0


def show_cache(parts: Parts, cache: FileCache) -> None:
    gauge = parts.metrics.gauge
    gauge("firndb_cache_bytes", "Bytes of cached files on disk").set_function(
        lambda: cache.copied_bytes
    )
    gauge("firndb_cache_mapped_bytes", "Bytes of open files, on disk and nameless").set_function(
        lambda: cache.mapped_bytes
    )
    gauge("firndb_cache_heap_bytes", "Memory of small open files and what was built").set_function(
        lambda: cache.heap_bytes
    )
    gauge("firndb_cache_open_files", "Data files and id runs that are open").set_function(
        lambda: cache.readers
    )
    corrupt = gauge(
        "firndb_cache_corrupt_reads", "Reads since the start that failed their checksum", ["source"]
    )
    corrupt.labels("copy").set_function(lambda: cache.copies.corrupt_copies)
    corrupt.labels("store").set_function(lambda: cache.copies.corrupt_objects)


def show_freshness(parts: Parts, freshness: FreshnessLayer) -> None:
    gauge = parts.metrics.gauge
    gauge("firndb_freshness_bytes", "Memory of writes that are held").set_function(
        lambda: freshness.size_bytes
    )
    gauge("firndb_freshness_partitions", "Partitions served").set_function(
        lambda: len(freshness.partitions)
    )
    gauge("firndb_freshness_ready", "1: every assigned partition is recovered").set_function(
        lambda: int(freshness.ready)
    )
