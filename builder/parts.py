"""What an `IndexBuilder` is put together from."""

from dataclasses import dataclass

from builder.chain import ManifestChain, Workshop
from builder.settings import BuilderSettings
from core.clock import Clock
from core.feed import ManifestFeed
from core.indexes import IndexDirectory
from core.object_store import ObjectStore
from ingest.dead_letters import DeadLetters
from storage.file_cache import FileCache
from storage.registry import RegistryStore


@dataclass(frozen=True, slots=True)
class BuilderParts:
    """log_id, log_epoch, partitions: the identity of the log that is consumed."""

    store: ObjectStore
    manifests: ManifestChain
    registry: RegistryStore
    cache: FileCache
    directory: IndexDirectory
    feed: ManifestFeed
    dead_letters: DeadLetters
    clock: Clock
    log_id: str
    log_epoch: int
    partitions: int

    def workshop(self, settings: BuilderSettings) -> Workshop:
        return Workshop(
            store=self.store,
            chain=self.manifests,
            cache=self.cache,
            clock=self.clock,
            log_id=self.log_id,
            log_epoch=self.log_epoch,
            fold_bytes=settings.fold_bytes,
        )
