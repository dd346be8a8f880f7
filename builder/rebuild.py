"""`firndb rebuild`: the log replayed into new files aside, then swapped in as the next manifest.

Queries, writes and the live builder go on meanwhile. The swap is a commit like any other: under the
owner's epoch, so that the owner is not fenced, and only if nothing is lost by it. The owner meets a
conflict, reads again and follows.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from builder.chain import (
    MemoryChain,
    Target,
    Workshop,
    blank,
    check_log,
    committed_as,
    event_of,
    uninterrupted,
    were_collected,
)
from builder.compaction.at_rest import compact_to_rest
from builder.flush import flush
from builder.intake import Intake
from builder.parts import BuilderParts
from builder.pending import PendingWrites
from builder.settings import BuilderSettings
from core.errors import FailedPrecondition, Fenced, LogMismatch, NotFound, Unavailable
from core.indexes import IndexInfo
from core.log import Log
from core.operations import NamespaceWrite
from core.partition import partition_of, wal_key
from storage.commit import ManifestConflict
from storage.layout import NamespaceSchema
from storage.manifest import Manifest
from storage.references import objects_of

# Each round replays what came since the last one, far less than a second's worth of writes; the
# live builder commits about once a second.
SWAP_ROUNDS = 100


@dataclass(frozen=True, slots=True)
class RebuildProgress:
    """Of one partition: offsets from `start` to `end` are replayed, `at` is the next one."""

    partition: int
    start: int
    at: int
    end: int


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """One namespace: the manifest version that was swapped in."""

    namespace: str
    version: int
    indexed_lsn: int
    records: int


async def rebuild(
    parts: BuilderParts,
    log: Log,
    index: IndexInfo,
    namespace: str | None = None,
    *,
    settings: BuilderSettings | None = None,
    progress: Callable[[RebuildProgress], None] | None = None,
) -> tuple[Rebuilt, ...]:
    """Rebuild one namespace (canonical name), or all of the index; those that were swapped in.

    A namespace that is deleted meanwhile is left out. `NotFound`: no such namespace; `LogMismatch`:
    the log does not hold the namespaces' whole lives any more, or a snapshot that it builds on is
    gone; nothing is changed then.
    """
    if not index.state.living:
        raise NotFound(f"index {index.name} is {index.state.value}")
    by_partition = await namespaces_of(parts, index, namespace)
    replays: list[_Replay] = []
    for partition, manifests in sorted(by_partition.items()):
        kept_from = await log.start_offset(partition)
        for manifest in manifests:
            if manifest.generation < kept_from:
                raise LogMismatch(
                    f"namespace {manifest.namespace!r} began at LSN {manifest.generation}, but the "
                    f"log of partition {partition} is kept from {kept_from} on"
                )
        replays.append(_Replay.of(parts, log, index, partition, manifests, settings))
    rebuilt: list[Rebuilt] = []
    for replay in replays:
        await replay.to_end(progress)
        for name in replay.namespaces:
            swapped = await replay.swap_in(name)
            if swapped is not None:
                rebuilt.append(swapped)
    return tuple(rebuilt)


async def namespaces_of(
    parts: BuilderParts, index: IndexInfo, namespace: str | None
) -> dict[int, list[Manifest]]:
    """Outlines of the newest manifests of what is to be rebuilt, by partition."""
    named: list[tuple[int, str]] = []
    if namespace is not None:
        key = wal_key(index.index_id, namespace)
        named.append((partition_of(key, parts.partitions), namespace))
    else:
        for partition in range(parts.partitions):
            registry = await parts.registry.newest(partition)
            if registry is not None:
                rows = parts.registry.walk(registry, index.index_id)
                named += [(partition, name) async for (_, name), _ in rows]
    found: dict[int, list[Manifest]] = {}
    for partition, name in named:
        manifest = await parts.manifests.outline(index.index_id, name)
        if manifest is not None and not manifest.deleted:
            check_log(parts, manifest)
            found.setdefault(partition, []).append(manifest)
    if namespace is not None and not found:
        raise NotFound(f"index {index.name} has no namespace {namespace!r} in its files")
    return found


@dataclass(slots=True, eq=False)
class _Aside:
    """One namespace being built. first_lsn: entries below are of earlier lives. boundary: of the
    manifest that was the newest before the first file was put.
    """

    target: Target
    first_lsn: int
    boundary: int
    pending: PendingWrites = field(default_factory=PendingWrites)
    manifest: Manifest | None = None


@dataclass(slots=True, eq=False)
class _Replay:
    """One partition's log, read once for all its namespaces. at: the next offset."""

    parts: BuilderParts
    shop: Workshop
    intake: Intake
    log: Log
    index: IndexInfo
    partition: int
    settings: BuilderSettings
    namespaces: dict[str, _Aside]
    at: int

    @classmethod
    def of(
        cls,
        parts: BuilderParts,
        log: Log,
        index: IndexInfo,
        partition: int,
        manifests: Sequence[Manifest],
        settings: BuilderSettings | None,
    ) -> "_Replay":
        settings = settings or BuilderSettings()
        attached = frozenset(manifest.attached for manifest in manifests)
        shop = replace(parts.workshop(settings), chain=MemoryChain(), attached=attached)
        asides: dict[str, _Aside] = {}
        for manifest in manifests:
            name = manifest.namespace
            schema = NamespaceSchema(index.index_id, name, index.metric, index.dimension)
            asides[name] = _Aside(
                Target(schema, owner_epoch=0), manifest.generation, manifest.boundary
            )
        return cls(
            parts=parts,
            shop=shop,
            intake=Intake(
                *(parts.directory, None, parts.clock, parts.partitions),
                metrics=shop.metrics,
                retry_s=settings.directory_retry_s,
            ),
            log=log,
            index=index,
            partition=partition,
            settings=settings,
            namespaces=asides,
            at=min(manifest.generation for manifest in manifests),
        )

    async def to_end(self, progress: Callable[[RebuildProgress], None] | None) -> None:
        """Up to the log's end as of now."""
        start, end = self.at, await self.log.end_offset(self.partition)
        while self.at < end:
            await self._read(end)
            if progress is not None:
                progress(RebuildProgress(self.partition, start, self.at, end))
        await self._flush_all()
        for aside in self.namespaces.values():
            await self._compact(aside)

    async def swap_in(self, name: str) -> Rebuilt | None:
        """Commit what was built as the next version; None if the namespace is deleted by now."""
        aside = self.namespaces[name]
        for _ in range(SWAP_ROUNDS):
            live = await self.parts.manifests.outline(self.index.index_id, name)
            if live is None:
                raise LogMismatch(f"the manifests of namespace {name!r} vanished")
            await self._reach(live.indexed_lsn)
            built = aside.manifest
            if built is None or built.indexed_lsn < live.indexed_lsn:
                raise LogMismatch(
                    f"namespace {name!r} is indexed up to LSN {live.indexed_lsn}, but the log's "
                    "entries do not lead there"
                )
            if built.deleted:
                return None
            prefix = aside.target.schema.prefix
            names = {ref.name for _, ref in objects_of(built.files, built.id_runs)}
            if await were_collected(self.shop, prefix, names, aside.boundary, live):
                raise FailedPrecondition(
                    f"garbage collection took files of namespace {name!r} before they were swapped "
                    "in: set FIRNDB_GC_GRACE_S above what a rebuild takes, then try again"
                )
            target = Target(aside.target.schema, live.owner_epoch)
            following = committed_as(built, blank(self.shop, target, live))
            try:
                following = await uninterrupted(self.parts.manifests.commit(following))
            except (ManifestConflict, Fenced):
                continue  # the live builder was first, or has a new owner
            await self._publish(following)
            return Rebuilt(name, following.version, following.indexed_lsn, following.record_count)
        raise Unavailable(f"namespace {name!r} changes too fast to be swapped, try again later")

    async def _reach(self, lsn: int) -> None:
        """Replay on until the entry at `lsn` is applied."""
        if self.at <= lsn:
            while self.at <= lsn:
                await self._read(lsn + 1)
            await self._flush_all()

    async def _read(self, end: int) -> None:
        """The next records below `end`; at least one, or the end."""
        records = await self.log.read(self.partition, self.at, max_bytes=8 << 20)
        for record in records:
            if record.offset < end:
                self._accept(await self.intake.take(record))
                self.at = record.offset + 1
        if not records or records[-1].offset >= end:
            self.at = max(self.at, end)
        pending = sum(aside.pending.bytes for aside in self.namespaces.values())
        if pending >= self.settings.batch_bytes:
            await self._flush_all()

    def _accept(self, write: NamespaceWrite | None) -> None:
        if write is None or write.index_id != self.index.index_id:
            return
        aside = self.namespaces.get(write.namespace)
        if aside is not None and write.lsn >= aside.first_lsn:
            aside.pending.add(write, 0.0)

    async def _flush_all(self) -> None:
        for aside in self.namespaces.values():
            while len(aside.pending):
                batch = aside.pending.batch(self.settings.batch_bytes)
                aside.manifest = await flush(self.shop, aside.target, aside.manifest, batch)
                aside.pending.done(batch[-1].lsn)
                await self._compact(aside)

    async def _compact(self, aside: _Aside) -> None:
        if aside.manifest is not None:
            limits = self.settings.compaction
            aside.manifest = await compact_to_rest(self.shop, aside.target, aside.manifest, limits)

    async def _publish(self, manifest: Manifest) -> None:
        with suppress(Unavailable):  # news may be missed
            await self.parts.feed.publish(event_of(manifest, self.partition))
