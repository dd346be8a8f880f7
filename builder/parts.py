"""What an `IndexBuilder` is put together from."""

from dataclasses import dataclass

from builder.chain import ManifestChain, Workshop
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

    def workshop(self) -> Workshop:
        return Workshop(
            self.store, self.manifests, self.cache, self.clock, self.log_id, self.log_epoch
        )
