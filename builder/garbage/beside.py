"""Collecting and rewriting beside a partition's owner, as `firndb gc` and `firndb purge` do.

Every commit is one under the owner's epoch, so that the owner is not fenced: it meets a conflict,
reads again and follows.
"""

from contextlib import suppress
from dataclasses import dataclass, field

from builder.chain import Target, event_of
from builder.compaction.compact import commit_rewrite, execute
from builder.garbage.collection import Collection, Swept, commit_boundary, sweep
from builder.garbage.pins import Pins
from builder.garbage.plan import Grace
from builder.parts import BuilderParts
from builder.policy import Compaction
from builder.settings import BuilderSettings
from core.errors import Fenced, ObjectNotFound, Unavailable
from core.indexes import IndexInfo
from core.partition import partition_of, wal_key
from storage.file_cache import FileCache
from storage.layout import NamespaceSchema
from storage.manifest import Manifest
from storage.store_clock import StoreClock

# A new owner, or an owner that is faster, again and again.
TRIES = 16


@dataclass(slots=True)
class Beside:
    """One namespace of a living index, from outside of its builder. caches: others in this process
    that must not keep what is deleted.
    """

    parts: BuilderParts
    index: IndexInfo
    namespace: str
    settings: BuilderSettings = field(default_factory=BuilderSettings)
    caches: tuple[FileCache, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        return self.index.index_id, self.namespace

    @property
    def schema(self) -> NamespaceSchema:
        return NamespaceSchema(*self.key, self.index.metric, self.index.dimension)

    async def newest(self) -> Manifest | None:
        return await self.parts.manifests.newest(*self.key)

    async def collection(self, grace: Grace) -> Collection:
        store = self.parts.store
        now_ms = await StoreClock(store, self.parts.clock).now_ms()
        return Collection(store, *self.key, now_ms, grace, self.parts.directory)

    async def collect(self, grace: Grace) -> Swept:
        swept = await (await self.collection(grace)).run(self._commit_boundary)
        for cache in (self.parts.cache, *self.caches):
            cache.forget(swept.names)
        return swept

    async def rewrite(self, manifest: Manifest, job: Compaction) -> bool:
        """False: its input changed meanwhile; nothing is lost."""
        shop = self.parts.workshop(self.settings)
        try:
            made = await execute(shop, self.schema, manifest, job, self.settings.compaction)
            committed = await commit_rewrite(shop, self.target(manifest), manifest, made)
        except (Fenced, ObjectNotFound):
            return False
        if committed is not None:
            await self._tell(committed)
        return committed is not None

    async def _commit_boundary(self, newest: Manifest, number: int) -> Manifest | None:
        shop = self.parts.workshop(self.settings)
        for _ in range(TRIES):
            try:
                committed = await commit_boundary(shop, self.target(newest), newest, number)
            except Fenced:  # the partition has a new owner
                found = await self.newest()
                assert found is not None, "a chain of manifests never ends"
                newest = found
                continue
            if committed is not None:
                await self._tell(committed)
            return committed
        raise Unavailable(f"namespace {self.namespace!r} changes its owner all the time")

    def target(self, newest: Manifest) -> Target:
        return Target(self.schema, newest.owner_epoch)

    async def _tell(self, manifest: Manifest) -> None:
        partition = partition_of(wal_key(*self.key), self.parts.partitions)
        with suppress(Unavailable):  # news may be missed
            await self.parts.feed.publish(event_of(manifest, partition))


async def sweep_deleted(parts: BuilderParts, prefix: str, grace: Grace, *, dry_run: bool) -> Swept:
    """What is left of a deleted index, or of one of its namespaces."""
    now_ms = await StoreClock(parts.store, parts.clock).now_ms()
    pins = Pins(parts.store, parts.directory, prefix, now_ms, grace)
    swept = await sweep(parts.store, pins, dry_run=dry_run)
    if not dry_run:
        parts.cache.forget(swept.names)
    return swept
