"""A namespace as one Parquet file, streamed: exact as of one LSN, whatever is written, compacted or
collected meanwhile.

The rows are those of one manifest, which covers everything that was acknowledged before the export
began; its files are pinned until the end. Memory holds one row group. The file is what an import
takes.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from core.clock import Clock
from core.errors import CorruptData, DeadlineExceeded, FirnError, NotFound, Overloaded
from core.indexes import IndexInfo
from core.log import NO_LSN
from core.partition import partition_of, wal_key
from query.parquet_writer import GroupWriter
from query.positions import Positions
from storage.commit import ManifestStore
from storage.file_cache import FileCache
from storage.manifest import Manifest
from storage.namespace import NamespaceReader
from storage.registry import RegistryStore
from storage.snapshots import Snapshot, SnapshotKind, SnapshotStore

log = logging.getLogger(__name__)

# A builder at work has everything in files within seconds.
WAIT_S = 60.0
POLL_S = 0.2
# A row group: about so many bytes of vectors, and at most so many records.
GROUP_BYTES = 16 << 20
GROUP_RECORDS = 5_000
# Of one process: each reads its files as fast as they come.
EXPORTS_MAX = 4
# A client that reads slowly keeps its place: those of one project must not have them all.
PROJECT_EXPORTS_MAX = 2
# A pin holds for the grace time of garbage collection after it was made; made anew so often, it
# outlives every grace time above this.
RENEW_S = 300.0
# Nobody's index: garbage collection frees a pin whose holder is not there.
_HOLDER = ("export", "")


@dataclass(frozen=True, slots=True)
class ExportParts:
    """`partitions`: of the log."""

    manifests: ManifestStore
    snapshots: SnapshotStore
    registries: RegistryStore
    cache: FileCache
    positions: Positions
    clock: Clock
    partitions: int


@dataclass(frozen=True, slots=True, eq=False)
class Export:
    """lsn: every write up to it (inclusive) is in it, and none above. changed_at: the LSN of the
    last write that the namespace had by then.
    """

    lsn: int
    changed_at: int
    records: int
    chunks: AsyncIterator[bytes]


class Exporter:
    """For one event loop."""

    def __init__(self, parts: ExportParts, wait_s: float = WAIT_S) -> None:
        self._parts = parts
        self._wait_s = wait_s
        self._running: Counter[str] = Counter()  # by project

    @asynccontextmanager
    async def export(
        self, index: IndexInfo, namespace: str, told: Callable[[int], None] = lambda rows: None
    ) -> AsyncIterator[Export]:
        """Read its chunks within the block; `told` hears how many rows are read.

        `NotFound`: no such namespace. `DeadlineExceeded`: not all of it is in files. `Overloaded`.
        """
        running, project = self._running, index.project_id
        if running[project] >= PROJECT_EXPORTS_MAX or running.total() >= EXPORTS_MAX:
            raise Overloaded(
                f"{running[project]} exports of this project are running here, {running.total()} "
                "in all; try again when one is done"
            )
        running[project] += 1
        try:
            lsn = await self._indexed(index.index_id, namespace)
            pin = _Pin(self._parts, await self._pinned(index.index_id, namespace))
            renewing = asyncio.create_task(pin.keep())
            try:
                manifest = await self._parts.snapshots.manifest(pin.snapshot)
                lsn = max(lsn, manifest.indexed_lsn)
                chunks = _chunks(self._parts.cache, index, manifest, lsn, told)
                yield Export(lsn, manifest.indexed_lsn, manifest.record_count, chunks)
            finally:
                renewing.cancel()
                await asyncio.gather(renewing, return_exceptions=True)
                await asyncio.shield(pin.release())
        finally:
            running[project] -= 1
            if not running[project]:
                del running[project]

    async def _indexed(self, index_id: str, namespace: str) -> int:
        """Waits until all that is in the log now is in manifests; the LSN up to which."""
        parts, key = self._parts, (index_id, namespace)
        partition = partition_of(wal_key(*key), parts.partitions)
        lsn = await parts.positions.end_lsn(partition)
        until_s = parts.clock.monotonic() + self._wait_s
        while True:
            manifest = await parts.manifests.outline(*key)
            if manifest is not None and manifest.indexed_lsn >= lsn:
                return lsn
            if await self._checkpointed(partition, key, lsn):
                return lsn
            if parts.clock.monotonic() >= until_s:
                raise DeadlineExceeded(
                    f"not all of namespace {namespace!r} is in files after {self._wait_s:.0f} s; "
                    "see whether the index builder runs (`firndb status`)"
                )
            await parts.clock.sleep(POLL_S)

    async def _checkpointed(self, partition: int, key: tuple[str, str], lsn: int) -> bool:
        state = await self._parts.registries.newest(partition)
        if state is None:
            return lsn == NO_LSN
        summary = await self._parts.registries.get(state, key)
        if summary is not None and NO_LSN < summary.held_from <= lsn:
            return False
        return state.checkpoint > lsn

    async def _pinned(self, index_id: str, namespace: str) -> Snapshot:
        try:
            return await self._parts.snapshots.take(
                *(index_id, namespace),
                name="",
                kind=SnapshotKind.BRANCH,
                created_ms=self._parts.clock.now_ms(),
                holder=_HOLDER,
            )
        except NotFound:
            raise NotFound(f"Namespace {namespace!r} not found") from None


class _Pin:
    """What keeps the files of one export."""

    def __init__(self, parts: ExportParts, snapshot: Snapshot) -> None:
        self._parts = parts
        self.snapshot = snapshot

    async def keep(self) -> None:
        """Until cancelled: a new one for the old one, in that order."""
        while True:
            await self._parts.clock.sleep(RENEW_S)
            old = self.snapshot
            now_ms = self._parts.clock.now_ms()
            try:
                self.snapshot = await self._parts.snapshots.take_again(
                    old, created_ms=now_ms, holder=_HOLDER
                )
                await self._parts.snapshots.delete(old)
            except FirnError as error:
                log.warning("an export's files are not pinned anew: %s", error)

    async def release(self) -> None:
        try:
            await self._parts.snapshots.delete(self.snapshot)
        except FirnError as error:  # garbage collection frees it after its grace time
            log.warning("the pin %s of an export is left: %s", self.snapshot.id, error)


async def _chunks(
    cache: FileCache,
    index: IndexInfo,
    manifest: Manifest,
    lsn: int,
    told: Callable[[int], None],
) -> AsyncIterator[bytes]:
    reader = NamespaceReader(cache, manifest)
    writer = GroupWriter(
        index.dimension,
        {
            "firndb.index": index.name,
            "firndb.namespace": manifest.namespace,
            "firndb.lsn": str(lsn),
        },
    )
    size = GROUP_BYTES // (4 * (index.dimension or 0) + 256)
    size = max(1, min(GROUP_RECORDS, size))
    done = 0
    for place, file in enumerate(manifest.files):
        if not file.live:
            continue
        opened = await reader.file(place)
        live = reader.live_rows(place)
        for start in range(0, len(live), size):
            rows = await asyncio.to_thread(opened.take, live[start : start + size])
            yield await asyncio.to_thread(writer.group, rows)
            done += len(rows)
            told(done)
    if done != manifest.record_count:
        raise CorruptData(
            f"namespace {manifest.namespace!r} has {manifest.record_count} records, not {done}"
        )
    yield await asyncio.to_thread(writer.end)
