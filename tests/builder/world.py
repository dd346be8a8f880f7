"""A small world for the builder: real objects, a hand-made log, and a dict as the truth."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from builder.builder import IndexBuilder
from builder.compaction.run_policy import RunLimits
from builder.parts import BuilderParts
from builder.policy import CompactionLimits
from builder.settings import BuilderSettings
from core.clock import Clock, SystemClock
from core.feed import FeedEvent
from core.filters.row import matches
from core.indexes import IndexInfo, IndexState, VectorType
from core.log import Headers, Log, LogIdentity, LogRecord
from core.metric import Metric
from core.object_store import ObjectStore
from core.operations import (
    Attach,
    CreateNamespace,
    DeleteAll,
    DeleteByFilter,
    DeleteIds,
    DeleteNamespace,
    Entry,
    Operation,
    UpdateByFilter,
    UpdateById,
    Upsert,
)
from core.records import Metadata, Record, StoredRecord
from infra.objects.local import LocalStore
from ingest.dead_letters import DeadLetters
from ingest.wire import encode
from storage.commit import ManifestStore
from storage.file_cache import FileCache
from storage.manifest import Manifest, check
from storage.namespace import NamespaceReader
from storage.registry import RegistryStore
from storage.snapshots import Snapshot, SnapshotKind, SnapshotStore

DIMENSION = 4
DENSE = IndexInfo(
    "dense", "p", "dense", DIMENSION, Metric.EUCLIDEAN, VectorType.DENSE, IndexState.READY
)
# Of the same schema, to be filled with what the other one has.
RESTORED = replace(DENSE, index_id="restored", name="restored", state=IndexState.INITIALIZING)
COSINE = replace(DENSE, index_id="cosine", metric=Metric.COSINE)
SPARSE = IndexInfo(
    "sparse", "p", "sparse", None, Metric.DOTPRODUCT, VectorType.SPARSE, IndexState.READY
)
# Rows of 16 bytes: a namespace is clustered beyond 40 rows, clusters aim at 20.
SMALL = CompactionLimits(
    cluster_bytes=320,
    split_bytes=640,
    deltas=3,
    dead_rows_min=4,
    sparse_file_rows=16,
    job_bytes=1600,
    id_runs=RunLimits(
        overlap=3,
        object_bytes=400,
        garbage_min=10,
        bare_rows=8,
        merge_bytes=2_000,
        job_bytes=32_000,
    ),
)


class Directory:
    """The catalog: what is in `indexes`."""

    def __init__(self, indexes: Sequence[IndexInfo]) -> None:
        self.indexes = {info.index_id: info for info in indexes}

    async def find(self, index_id: str) -> IndexInfo | None:
        return self.indexes.get(index_id)


class Feed:
    """Remembers the news."""

    def __init__(self) -> None:
        self.events: list[FeedEvent] = []

    async def publish(self, event: FeedEvent) -> None:
        self.events.append(event)

    def subscribe(self, listener: object) -> object:
        raise NotImplementedError


class ListLog(Log):
    """One partition in a list, offsets with gaps, as Kafka's transactions leave them."""

    def __init__(self, gap: int = 1) -> None:
        self.records: list[LogRecord] = []
        self.start = 0
        self.gap = gap

    async def identity(self) -> LogIdentity:
        return LogIdentity("log-1", 1)

    async def append(
        self, partition: int, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> int:
        offset = len(self.records) * self.gap
        self.records.append(LogRecord(partition, offset, key, headers, value, 0))
        return offset

    async def read(
        self,
        partition: int,
        start: int,
        *,
        max_records: int = 500,
        max_bytes: int = 8 << 20,
        wait_s: float = 0.0,
    ) -> Sequence[LogRecord]:
        return [record for record in self.records if record.offset >= start][:max_records]

    async def start_offset(self, partition: int) -> int:
        return self.start

    async def end_offset(self, partition: int) -> int:
        return self.records[-1].offset + 1 if self.records else 0

    async def trim(self, partition: int, before: int) -> None:
        self.start = before

    async def close(self) -> None: ...


@dataclass
class Life:
    """What a namespace should hold: an independent account of the write semantics."""

    exists: bool = False
    records: dict[str, StoredRecord] = field(default_factory=dict)
    last_lsn: int = -1
    declared: tuple[str, ...] | None = None

    def apply(self, lsn: int, operation: Operation) -> None:
        self.last_lsn = lsn
        held = self.records
        match operation:
            case Upsert(records=records):
                self.exists = True
                held.update({r.id: StoredRecord(r, lsn) for r in records})
            case CreateNamespace(declared=declared):
                if not self.exists:
                    self.declared = declared
                self.exists = True
            case DeleteNamespace():
                self.exists, self.declared = False, None
                held.clear()
            case DeleteAll():
                held.clear()
            case DeleteIds(ids=ids):
                for name in ids:
                    held.pop(name, None)
            case DeleteByFilter(filter=wanted):
                for name in [n for n, s in held.items() if matches(wanted, s.record.metadata)]:
                    del held[name]
            case UpdateByFilter(filter=wanted, set_metadata=changes):
                for name, stored in held.items():
                    if matches(wanted, stored.record.metadata):
                        after = _changed(stored.record, None, changes)
                        held[name] = StoredRecord(after, lsn)
            case UpdateById(id=name, values=values, set_metadata=patch):
                if name in held:
                    held[name] = StoredRecord(_changed(held[name].record, values, patch), lsn)


def _changed(record: Record, values: object, changes: Metadata | None) -> Record:
    metadata = {**record.metadata, **(changes or {})}
    vector = record.values if values is None else np.asarray(values, dtype=np.float32)
    return replace(record, metadata=metadata, values=vector)


class World:
    """`write` appends to the log and to the truth; `check` compares the truth with the files."""

    def __init__(
        self,
        folder: Path,
        *,
        store: ObjectStore | None = None,
        settings: BuilderSettings | None = None,
        clock: Clock | None = None,
        gap: int = 3,
    ) -> None:
        self.store = store or LocalStore(folder / "objects")
        self.cache = FileCache(self.store, folder / "cache", 1 << 30)
        self.manifests = ManifestStore(self.store)
        self.snapshots = SnapshotStore(self.store, self.manifests)
        self.registry = RegistryStore(self.store)
        self.directory = Directory([DENSE, RESTORED, COSINE, SPARSE])
        self.feed = Feed()
        self.log = ListLog(gap)
        self.dead_log = ListLog()
        self.clock = clock or SystemClock()
        # Nothing inline: here even what is tiny is to be compacted.
        self.settings = settings or BuilderSettings(
            compaction=SMALL,
            inline_bytes=0,
            tick_s=0.01,
            directory_retry_s=0.01,
            backoff_first_s=0.01,
        )
        self.truth: dict[tuple[str, str], Life] = {}
        self.builders: list[IndexBuilder] = []

    def parts(self, log_id: str = "log-1", log_epoch: int = 1) -> BuilderParts:
        return BuilderParts(
            store=self.store,
            manifests=self.manifests,
            registry=self.registry,
            cache=self.cache,
            directory=self.directory,
            feed=self.feed,  # type: ignore[arg-type]  # nobody subscribes to it
            dead_letters=DeadLetters(self.dead_log),
            clock=self.clock,
            log=self.log,
            log_id=log_id,
            log_epoch=log_epoch,
            partitions=1,
        )

    def builder(self, log_id: str = "log-1", log_epoch: int = 1) -> IndexBuilder:
        self.builders.append(IndexBuilder(self.parts(log_id, log_epoch), self.settings))
        return self.builders[-1]

    async def write(self, *operations: Operation, index: str = "dense", ns: str = "n") -> int:
        """One log record with one entry for each operation; its LSN."""
        encoded = encode(index, ns, [Entry(operation) for operation in operations])
        lsn = await self.log.append(0, encoded.key, encoded.value, encoded.headers)
        life = self.truth.setdefault((index, ns), Life())
        for operation in operations:
            life.apply(lsn, operation)
        return lsn

    async def branch(
        self,
        to: str,
        *,
        index: str = "dense",
        ns: str = "n",
        to_index: str = "",
        of: Snapshot | None = None,
        last_begun: int | None = None,
    ) -> tuple[int, Snapshot]:
        """An attach entry of the namespace as its files are, or of a snapshot of it. The truth is
        that of now: flush before.
        """
        to_index = to_index or index
        holder = (to_index, to)
        if of is None:
            kind = SnapshotKind.BRANCH
            pin = await self.snapshots.take(
                index, ns, name="", kind=kind, created_ms=self.clock.now_ms(), holder=holder
            )
        else:
            now_ms = self.clock.now_ms()
            pin = await self.snapshots.take_again(of, created_ms=now_ms, holder=holder)
        lsn = await self.attach(to, pin, index, ns, to_index, last_begun)
        source, before = self.truth[(index, ns)], self.truth.get((to_index, to), Life())
        held = source.records
        records = {name: StoredRecord(stored.record, lsn) for name, stored in held.items()}
        own = before.declared if before.exists else None
        declared = source.declared if own is None else own
        self.truth[(to_index, to)] = Life(True, records, lsn, declared)
        return lsn, pin

    async def attach(
        self,
        to: str,
        pin: Snapshot,
        index: str,
        ns: str,
        to_index: str = "",
        last_begun: int | None = None,
    ) -> int:
        """Only the entry; the truth is the caller's."""
        entry = Entry(Attach(index, ns, pin.id, pin.checksum(), last_begun))
        encoded = encode(to_index or index, to, [entry])
        return await self.log.append(0, encoded.key, encoded.value, encoded.headers)

    async def feed_all(self, builder: IndexBuilder) -> None:
        """Everything of the log that the builder has not seen."""
        await builder.apply(0, await self.log.read(0, builder.applied(0), max_records=1 << 30))

    async def manifest(self, index: str = "dense", ns: str = "n") -> Manifest | None:
        return await self.manifests.newest(index, ns)

    async def check(self) -> None:
        for index, ns in self.truth:
            await self.check_namespace(index, ns)

    async def check_namespace(self, index: str = "dense", ns: str = "n") -> None:
        """Existence, live rows with all their content and LSNs, counts, and the way by id."""
        life = self.truth[(index, ns)]
        manifest = await self.manifest(index, ns)
        assert (manifest is not None and not manifest.deleted) == life.exists
        if manifest is None:
            return
        check(manifest)
        reader = NamespaceReader(self.cache, manifest)
        found = await self._live(reader)
        same(found, life.records)
        assert manifest.record_count == len(life.records)
        assert manifest.deleted or manifest.declared == life.declared
        asked = [*life.records, "nobody", "r0", "r1"]
        same(await reader.read(asked), {k: v for k, v in life.records.items() if k in asked})
        assert await reader.list_ids(limit=len(life.records) + 1) == sorted(life.records)
        await self._check_sizes(manifest, reader.prefix)

    async def held(self, index: str = "dense", ns: str = "n") -> dict[str, StoredRecord]:
        """The live rows of the newest manifest."""
        manifest = await self.manifest(index, ns)
        return {} if manifest is None else await self._live(NamespaceReader(self.cache, manifest))

    async def _live(self, reader: NamespaceReader) -> dict[str, StoredRecord]:
        found: dict[str, StoredRecord] = {}
        for place, file in enumerate(reader.manifest.files):
            rows = await reader.live(place)
            assert len(rows) == file.live > 0
            for row in range(len(rows)):
                assert rows.ids[row] not in found, "an id is live in one place"
                found[rows.ids[row]] = rows.stored(row)
        return found

    async def _check_sizes(self, manifest: Manifest, prefix: str) -> None:
        refs = [(run.origin, run.object) for run in manifest.id_runs]
        inline = sum(len(file.inline) for file in manifest.files)
        for file in (file for file in manifest.files if not file.inline):
            both = [file.columns, *([file.vectors] if file.vectors else [])]
            refs += [(file.origin, ref) for ref in both]
        sizes = {}
        for origin, ref in refs:
            info = await self.store.stat((origin or prefix) + ref.name)
            assert info is not None, f"{ref.name} is named but missing"
            sizes[ref.name] = info.size
        assert manifest.byte_count == sum(sizes.values()) + inline

    async def close(self) -> None:
        for builder in self.builders:
            await builder.revoke([0], lost=True)
        await self.cache.close()
        await self.store.close()


def same(found: dict[str, StoredRecord], expected: dict[str, StoredRecord]) -> None:
    assert found.keys() == expected.keys()
    for name, stored in expected.items():
        assert found[name].lsn == stored.lsn, name
        assert content(found[name].record) == content(stored.record), name


def content(record: Record) -> object:
    """Comparable, bit for bit."""
    values = None if record.values is None else record.values.tobytes()
    sparse = record.sparse
    pairs = None if sparse is None else (sparse.indices.tobytes(), sparse.values.tobytes())
    return record.id, values, pairs, record.metadata


def record(name: str, seed: float = 1.0, **metadata: str | float | bool | list[str]) -> Record:
    """A dense record whose vector follows from the seed."""
    rng = np.random.default_rng(zlib.crc32(f"{name}/{seed}".encode()))
    vector = rng.normal(size=DIMENSION).astype(np.float32)
    return Record(name, vector, None, dict(metadata))


def upsert(*names: str, seed: float = 1.0, **metadata: str | float | bool | list[str]) -> Upsert:
    return Upsert(tuple(record(name, seed, **metadata) for name in names))
