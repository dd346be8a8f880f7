"""What an `IndexBuilder` is put together from."""

from dataclasses import dataclass, field

from builder.chain import ManifestChain, Workshop
from builder.metrics import BuilderMetrics
from builder.settings import BuilderSettings
from core.clock import Clock
from core.feed import ManifestFeed
from core.indexes import IndexDirectory
from core.log import Log
from core.object_store import ObjectStore
from infra.telemetry import Metrics
from ingest.dead_letters import DeadLetters
from storage.file_cache import FileCache
from storage.registry import RegistryStore


@dataclass(frozen=True, slots=True)
class BuilderParts:
    """log: a driver reads it; here it is asked for its end, and read again for namespaces that were
    held. log_id, log_epoch, partitions: of it."""

    store: ObjectStore
    manifests: ManifestChain
    registry: RegistryStore
    cache: FileCache
    directory: IndexDirectory
    feed: ManifestFeed
    dead_letters: DeadLetters
    clock: Clock
    log: Log
    log_id: str
    log_epoch: int
    partitions: int
    metrics: Metrics = field(default_factory=Metrics)

    def workshop(self, settings: BuilderSettings) -> Workshop:
        return Workshop(
            store=self.store,
            chain=self.manifests,
            cache=self.cache,
            clock=self.clock,
            log_id=self.log_id,
            log_epoch=self.log_epoch,
            fold_bytes=settings.fold_bytes,
            inline_bytes=settings.inline_bytes,
            metrics=BuilderMetrics(self.metrics),
        )
