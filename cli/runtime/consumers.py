"""The two consumers of the log and the query service, put together from the parts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from api.writes import LogWrites
from builder.builder import IndexBuilder
from builder.parts import BuilderParts
from builder.policy import CompactionLimits, FlushLimits
from builder.settings import BuilderSettings
from cli.runtime.folder import claimed
from cli.runtime.parts import Parts
from freshness.budget import MemoryLimits
from freshness.layer import FreshnessLayer, FreshnessParts, FreshnessSettings
from freshness.protocol import FreshReader
from freshness.sweep import SweepSettings
from infra.settings import Settings
from ingest.dead_letters import DeadLetters
from ingest.writer import LogWriter
from query.export import Exporter, ExportParts
from query.positions import LogPositions
from query.service import QueryParts, QueryService, QuerySettings
from storage.annoy_file import assert_annoy_layout
from storage.commit import ManifestStore
from storage.file_cache import FileCache
from storage.registry import RegistryStore
from storage.snapshots import SnapshotStore


@asynccontextmanager
async def opened_cache(parts: Parts, role: str) -> AsyncIterator[FileCache]:
    """Files cached from the object store, in a folder that this process has for itself.

    `ConfigError` if the installed Annoy lays its files out in another way than we read them.
    """
    assert_annoy_layout()
    with claimed(parts.settings.cache_folder, role) as folder:
        cache = FileCache(parts.store, folder, parts.settings.cache_bytes)
        parts.caches.append(cache)
        try:
            yield cache
        finally:
            parts.caches.remove(cache)
            await cache.close()


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds that are no settings of a deployment; None: as the settings say. With tiny ones a few
    rows make many files, and memory forgets at once.
    """

    building: BuilderSettings | None = None
    sweeping: SweepSettings | None = None
    reading: QuerySettings | None = None


USUAL = Bounds()


def make_builder(parts: Parts, cache: FileCache, bounds: Bounds = USUAL) -> IndexBuilder:
    settings = bounds.building or builder_settings(parts.settings)
    return IndexBuilder(builder_parts(parts, cache), settings)


def builder_parts(parts: Parts, cache: FileCache) -> BuilderParts:
    return BuilderParts(
        store=parts.store,
        manifests=ManifestStore(parts.store),
        registry=RegistryStore(parts.store),
        cache=cache,
        directory=parts.directory,
        feed=parts.feed,
        dead_letters=DeadLetters(parts.dead),
        clock=parts.clock,
        log=parts.wal,
        log_id=parts.epoch.log_id,
        log_epoch=parts.epoch.epoch,
        partitions=parts.partitions,
        metrics=parts.metrics,
    )


def builder_settings(settings: Settings) -> BuilderSettings:
    return BuilderSettings(
        flush=FlushLimits(
            records=settings.flush_records,
            bytes=settings.flush_bytes,
            age_s=settings.flush_age_s,
        ),
        compaction=CompactionLimits(
            cluster_bytes=settings.cluster_bytes, split_bytes=settings.cluster_bytes * 3 // 2
        ),
        gc_grace_s=settings.gc_grace_s,
        gc_period_s=settings.gc_period_s,
    )


def make_freshness(parts: Parts, bounds: Bounds = USUAL) -> FreshnessLayer:
    return FreshnessLayer(
        FreshnessParts(
            log=parts.wal,
            directory=parts.directory,
            manifests=ManifestStore(parts.store),
            registries=RegistryStore(parts.store),
            feed=parts.feed,
            clock=parts.clock,
            log_epoch=parts.epoch.epoch,
        ),
        FreshnessSettings(
            limits=MemoryLimits(size_bytes=parts.settings.freshness_memory_bytes),
            sweep=bounds.sweeping or SweepSettings(grace_s=parts.settings.freshness_grace_s),
        ),
    )


def make_queries(
    parts: Parts, cache: FileCache, fresh: FreshReader, bounds: Bounds = USUAL
) -> QueryService:
    return QueryService(
        QueryParts(
            manifests=ManifestStore(parts.store),
            registries=RegistryStore(parts.store),
            store=parts.store,
            cache=cache,
            fresh=fresh,
            positions=LogPositions(parts.wal),
            feed=parts.feed,
            clock=parts.clock,
            partitions=parts.partitions,
        ),
        bounds.reading or QuerySettings(deadline_s=parts.settings.consistency_deadline_s),
    )


def make_exporter(parts: Parts, cache: FileCache) -> Exporter:
    manifests = ManifestStore(parts.store)
    return Exporter(
        ExportParts(
            manifests=manifests,
            snapshots=SnapshotStore(parts.store, manifests),
            registries=RegistryStore(parts.store),
            cache=cache,
            positions=LogPositions(parts.wal),
            clock=parts.clock,
            partitions=parts.partitions,
        )
    )


def make_writes(parts: Parts, writer: LogWriter, fresh: FreshReader) -> LogWrites:
    return LogWrites(writer, fresh, parts.partitions, parts.clock)
