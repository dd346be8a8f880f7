"""What flushes and compactions work with: a namespace's chain of manifests, store and cache."""

import asyncio
from collections.abc import Collection, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import msgspec

from builder.metrics import BuilderMetrics
from core.clock import Clock, new_uuid
from core.errors import Fenced, LogMismatch
from core.feed import ManifestEvent
from core.object_store import ObjectStore
from storage.boundary import BoundaryStore
from storage.commit import ManifestConflict
from storage.file_cache import FileCache
from storage.layout import FIRST_VERSION, NamespaceSchema
from storage.manifest import Manifest

T = TypeVar("T")


class ManifestChain(Protocol):
    """`storage.commit.ManifestStore`, or one held in memory."""

    async def newest(
        self, index_id: str, namespace: str, at_least: int | None = None
    ) -> Manifest | None: ...

    async def outline(self, index_id: str, namespace: str) -> Manifest | None: ...

    async def commit(self, manifest: Manifest) -> Manifest: ...


class MemoryChain:
    """Manifests that nobody else sees: a rebuild's, until it swaps its files in."""

    def __init__(self) -> None:
        self._newest: dict[tuple[str, str], Manifest] = {}

    async def newest(
        self, index_id: str, namespace: str, at_least: int | None = None
    ) -> Manifest | None:
        return self._newest.get((index_id, namespace))

    async def outline(self, index_id: str, namespace: str) -> Manifest | None:
        return self._newest.get((index_id, namespace))

    async def commit(self, manifest: Manifest) -> Manifest:
        key = (manifest.index_id, manifest.namespace)
        known = self._newest.get(key)
        if known is not None and manifest.version != known.version + 1:
            raise ManifestConflict(known)
        self._newest[key] = manifest
        return manifest


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where files are made. LSNs are those of epoch `log_epoch` of the log `log_id`.

    fold_bytes: about the most that one flush holds in memory of records that it changes. attached:
    snapshots that are known to have been there when their attach entries were first applied.
    """

    store: ObjectStore
    chain: ManifestChain
    cache: FileCache
    clock: Clock
    log_id: str
    log_epoch: int
    fold_bytes: int
    inline_bytes: int
    metrics: BuilderMetrics
    attached: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Target:
    """The namespace that is worked on, and in whose name."""

    schema: NamespaceSchema
    owner_epoch: int


async def newest(shop: Workshop, schema: NamespaceSchema) -> Manifest | None:
    """The newest manifest. `LogMismatch` if its LSNs are not of our log."""
    manifest = await shop.chain.newest(schema.index_id, schema.namespace)
    if manifest is not None:
        check_log(shop, manifest)
    return manifest


class OfLog(Protocol):
    """What names the log that it works on."""

    @property
    def log_id(self) -> str: ...

    @property
    def log_epoch(self) -> int: ...


def check_log(shop: OfLog, manifest: Manifest) -> None:
    if (manifest.log_id, manifest.log_epoch) != (shop.log_id, shop.log_epoch):
        raise LogMismatch(
            f"namespace {manifest.namespace!r} is indexed from log {manifest.log_id} "
            f"(epoch {manifest.log_epoch}), this is {shop.log_id} (epoch {shop.log_epoch})"
        )


def blank(shop: Workshop, target: Target, newest: Manifest | None) -> Manifest:
    """What follows `newest` (None: there is no manifest yet), without content.

    `Fenced` if a higher owner epoch has written: a zombie that reads the newest manifest would meet
    no conflict.
    """
    schema = target.schema
    if newest is not None and newest.owner_epoch > target.owner_epoch:
        raise Fenced(
            f"owner epoch {newest.owner_epoch} writes {schema.namespace!r}; "
            f"this one, {target.owner_epoch}, must stop"
        )
    return Manifest(
        index_id=schema.index_id,
        namespace=schema.namespace,
        log_id=shop.log_id,
        log_epoch=shop.log_epoch,
        version=FIRST_VERSION if newest is None else newest.version + 1,
        generation=0,
        owner_epoch=target.owner_epoch,
        commit_uuid=new_uuid(),
        dimension=schema.dimension or 0,
        metric=schema.metric.value,
        created_ms=shop.clock.now_ms(),
        boundary=0 if newest is None else newest.boundary,
    )


def committed_as(content: Manifest, own: Manifest) -> Manifest:
    """`content` with the fields of the commit `own`, which `blank` gave."""
    return msgspec.structs.replace(
        content,
        version=own.version,
        owner_epoch=own.owner_epoch,
        commit_uuid=own.commit_uuid,
        created_ms=own.created_ms,
        boundary=own.boundary,
    )


async def were_collected(
    shop: Workshop, prefix: str, names: Collection[str], since: int, newest: Manifest
) -> bool:
    """Whether garbage collection may have deleted an object that a job has put: it began on a
    manifest with boundary `since`, and is to follow `newest`. Exact, whatever the clocks say.
    """
    if newest.boundary == since:
        return False
    gone = await BoundaryStore(shop.store).collected(prefix, since)
    return gone is None or not gone.isdisjoint(names)


def event_of(manifest: Manifest, partition: int) -> ManifestEvent:
    return ManifestEvent(
        index_id=manifest.index_id,
        namespace=manifest.namespace,
        partition=partition,
        generation=manifest.generation,
        version=manifest.version,
        indexed_lsn=manifest.indexed_lsn,
        deleted=manifest.deleted,
        record_count=manifest.record_count,
    )


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Awaits `work` to its end even when cancelled meanwhile, and is cancelled only then.

    A commit that was begun takes effect or fails before its task ends: after a revocation nothing
    is written.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        if not task.cancelled():
            task.exception()  # seen: the cancellation says all that the caller wants to know
        raise
