"""A log, a store, freshness and the query service in one process, and a dict that knows the truth.

The world plays the index builder: `flush` writes the namespace's records as of any LSN into files
of random kinds, with stale rows that are dead, and commits a manifest. So what queries answer can
be compared at every mix of files and freshness.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
from pyroaring import BitMap

from core.clock import new_uuid
from core.feed import CheckpointEvent, ManifestEvent
from core.filters.model import Filter
from core.filters.row import matches
from core.indexes import IndexInfo
from core.log import NO_LSN
from core.metric import exact_scores
from core.object_store import ObjectStore
from core.operations import Attach, Entry, Operation
from core.partition import partition_of, wal_key
from core.records import Record, SparseValues, StoredRecord, Vector
from core.sparse import sparse_score
from freshness.layer import FreshnessLayer, FreshnessParts, FreshnessSettings
from freshness.protocol import FreshReader
from infra.feed.local import LocalFeed
from ingest.admit import Admitted, admit
from ingest.wire import encode
from query.positions import LogPositions
from query.service import QueryParts, QueryService, QuerySettings
from storage.cluster_file import write_cluster
from storage.commit import ManifestStore
from storage.delta_file import write_delta
from storage.encoded_file import EncodedFile, put_objects
from storage.file_cache import FileCache
from storage.id_run import FileIds, write_runs
from storage.layout import NamespaceSchema
from storage.manifest import DataFile, IdRun, Manifest
from storage.registry import RegistryState, RegistryStore
from storage.registry_tree import NamespaceSummary
from storage.rows import Rows
from tests.freshness.logs import PartitionedLog, TestClock
from tests.freshness.operations import State, applied, declared_after, exists_after

PARTITIONS = 2


@dataclass(slots=True)
class Truth:
    """The states of one namespace by LSN, ascending; the first is before everything. `declared`:
    the schema's fields at the same places.
    """

    states: list[tuple[int, State, bool]] = field(default_factory=lambda: [(NO_LSN, {}, False)])
    declared: list[tuple[str, ...] | None] = field(default_factory=lambda: [None])

    def at(self, lsn: int) -> tuple[State, bool]:
        _, state, exists = next(s for s in reversed(self.states) if s[0] <= lsn)
        return state, exists

    def declared_at(self, lsn: int) -> tuple[str, ...] | None:
        states = enumerate(self.states)
        return self.declared[max(at for at, (known, _, _) in states if known <= lsn)]

    @property
    def now(self) -> State:
        return self.states[-1][1]

    @property
    def exists(self) -> bool:
        return self.states[-1][2]


class World:
    """One index. Nothing happens by itself: `deliver` feeds freshness, `flush` builds, `publish`
    tells of it.
    """

    def __init__(
        self,
        index: IndexInfo,
        store: ObjectStore,
        folder: Path,
        *,
        seed: int = 0,
        query: QuerySettings | None = None,
        freshness: FreshnessSettings | None = None,
        reader: FreshReader | None = None,
    ) -> None:
        self.index = index
        self.store = store
        self.log = PartitionedLog(PARTITIONS)
        self.clock = TestClock()
        self.feed = LocalFeed()
        self.manifests = ManifestStore(store)
        self.registries = RegistryStore(store)
        self.cache = FileCache(store, folder / f"cache-{new_uuid()}", 1 << 30)
        self.truths: dict[str, Truth] = {}
        self.random = random.Random(seed)
        self._query_settings = query or QuerySettings(deadline_s=5.0)
        self._freshness_settings = freshness or FreshnessSettings()
        self._reader = reader
        self.fresh = self._new_freshness()
        self.service = self._new_service()

    async def find(self, index_id: str) -> IndexInfo | None:
        """The world is its own index directory."""
        return self.index if index_id == self.index.index_id else None

    async def start(self) -> "World":
        await self.fresh.start()
        await self.service.start()
        for partition in range(PARTITIONS):
            await self.fresh.assign(partition)
        return self

    async def stop(self) -> None:
        await self.service.stop()
        await self.fresh.stop()
        await self.cache.close()

    async def restart_freshness(self) -> None:
        await self.fresh.stop()
        await self.service.stop()
        self.fresh = self._new_freshness()
        self.service = self._new_service()
        await self.start()

    def partition(self, namespace: str = "n") -> int:
        return partition_of(wal_key(self.index.index_id, namespace), PARTITIONS)

    def truth(self, namespace: str = "n") -> Truth:
        return self.truths.setdefault(namespace, Truth())

    async def write(
        self, *operations: Operation, namespace: str = "n", deliver: bool = True
    ) -> int:
        """One log record; the request id of entry i is `r{i}`."""
        entries = [Entry(op, f"r{at}") for at, op in enumerate(operations)]
        encoded = encode(self.index.index_id, namespace, entries)
        partition = self.partition(namespace)
        lsn = await self.log.append(partition, encoded.key, encoded.value, encoded.headers)
        written = (await self.log.read(partition, lsn))[0]
        verdict = await admit(written, self, PARTITIONS)
        assert isinstance(verdict, Admitted), verdict
        assert not verdict.rejected, verdict
        truth = self.truth(namespace)
        state, exists, declared = truth.now, truth.exists, truth.declared[-1]
        for operation in operations:
            if isinstance(operation, Attach):
                source = self.truth(operation.source_namespace)
                state = {i: StoredRecord(s.record, lsn) for i, s in source.now.items()}
                exists = True
                declared = source.declared[-1] if declared is None else declared
                continue
            declared = declared_after(declared, exists, operation)
            state, exists = applied(state, lsn, operation), exists_after(exists, operation)
        truth.states.append((lsn, state, exists))
        truth.declared.append(declared)
        if deliver:
            await self.deliver()
        return lsn

    async def deliver(self) -> None:
        for partition in range(PARTITIONS):
            records = await self.log.read(partition, self.fresh.applied(partition))
            await self.fresh.apply(partition, records)

    async def flush(
        self, namespace: str = "n", lsn: int | None = None, *, publish: bool = True
    ) -> Manifest:
        """Commits a manifest of the namespace as of `lsn` (default: now)."""
        end = await self.log.end_offset(self.partition(namespace)) - 1
        upto = end if lsn is None else lsn
        state, exists = self.truth(namespace).at(upto)
        before = await self.manifests.newest(self.index.index_id, namespace)
        manifest = await self._written(namespace, state, self.truth(namespace))
        generation = next(
            (at for at, _, there in self.truth(namespace).states if there and at <= upto), upto
        )
        manifest = msgspec.structs.replace(
            manifest,
            version=1 if before is None else before.version + 1,
            generation=generation,
            indexed_lsn=upto,
            deleted=not exists,
            declared=self.truth(namespace).declared_at(upto),
        )
        await self.manifests.commit(manifest)
        if publish:
            await self.tell(manifest)
        return manifest

    async def tell(self, manifest: Manifest) -> None:
        await self.feed.publish(
            ManifestEvent(
                index_id=manifest.index_id,
                namespace=manifest.namespace,
                partition=self.partition(manifest.namespace),
                generation=manifest.generation,
                version=manifest.version,
                indexed_lsn=manifest.indexed_lsn,
                deleted=manifest.deleted,
                record_count=manifest.record_count,
            )
        )

    async def checkpoint(self, partition: int, *, publish: bool = True) -> int:
        """Moves the partition's checkpoint to below its first unflushed entry, and the registry
        with it.
        """
        checkpoint = await self.log.end_offset(partition)
        summaries: dict[tuple[str, str], NamespaceSummary] = {}
        for namespace, truth in self.truths.items():
            if self.partition(namespace) != partition:
                continue
            manifest = await self.manifests.newest(self.index.index_id, namespace)
            indexed = NO_LSN if manifest is None else manifest.indexed_lsn
            unflushed = [at for at, _, _ in truth.states if at > indexed]
            checkpoint = min([checkpoint, *unflushed])
            if manifest is not None:
                summaries[self.index.index_id, namespace] = NamespaceSummary(
                    generation=manifest.generation,
                    version=manifest.version,
                    indexed_lsn=indexed,
                    record_count=manifest.record_count,
                    byte_count=manifest.byte_count,
                    deleted=manifest.deleted,
                    has_schema=manifest.declared is not None,
                )
        newest = await self.registries.newest(partition)
        blank = RegistryState(
            partition=partition,
            log_id=self.log.log_id,
            log_epoch=0,
            owner_epoch=1,
            version=0,
            commit_uuid="",
        )
        state = await self.registries.changed(newest or blank, summaries, checkpoint)
        await self.registries.commit(state)
        if publish:
            await self.feed.publish(CheckpointEvent(partition, checkpoint))
        return checkpoint

    async def forget(self) -> None:
        """Lets freshness look for what it was not told, then lets the grace time pass, so that it
        drops what is covered.
        """
        for _ in range(2):
            self.clock.now_s += 1000.0
            await self.fresh.sweep()

    async def keys_with(self, *parts: str) -> list[str]:
        """Keys of the store that hold one of the parts."""
        keys = [info.key async for info in self.store.list("")]
        return [key for key in keys if any(part in key for part in parts)]

    def ranked(
        self,
        state: State,
        k: int,
        vector: Vector | None = None,
        sparse: SparseValues | None = None,
        condition: Filter | None = None,
    ) -> list[tuple[str, float]]:
        """Brute force."""
        scored = []
        for record_id, stored in state.items():
            record = stored.record
            if condition is not None and not matches(condition, record.metadata):
                continue
            score = 0.0
            if sparse is not None and record.sparse is not None:
                score = sparse_score(record.sparse, sparse)
            if vector is None:
                if score == 0.0:
                    continue
            else:
                assert record.values is not None
                score += float(exact_scores(self.index.metric, record.values[None], vector)[0])
            scored.append((record_id, score))
        sign = -1.0 if self.index.metric.higher_is_better else 1.0
        scored.sort(key=lambda item: (sign * item[1], item[0]))
        return scored[:k]

    async def _written(self, namespace: str, state: State, truth: Truth) -> Manifest:
        """Files of the state's records in random order and groups, each with some stale rows."""
        index = self.index
        schema = NamespaceSchema(index.index_id, namespace, index.metric, index.dimension)
        records = list(state.values())
        self.random.shuffle(records)
        stale = [s for _, old, _ in truth.states for s in old.values() if s not in records]
        parts: list[list[StoredRecord]] = [[] for _ in range(self.random.choice((1, 2, 3)))]
        for record in records:
            self.random.choice(parts).append(record)
        files: list[DataFile] = []
        centroids: list[Vector] = []
        runs: list[IdRun] = []
        for part in filter(None, parts):
            dead = self.random.sample(stale, min(len(stale), self.random.choice((0, 1, 2))))
            encoded = self._file(schema, part, dead, centroids)
            await put_objects(self.store, schema.prefix, encoded.objects)
            covered = self.random.random() < 0.7
            files.append(msgspec.structs.replace(encoded.file, in_runs=covered))
            if covered:
                ids = [s.record.id for s in (*part, *dead)]
                for run in write_runs([FileIds(encoded.file.uuid, ids)], 1):
                    await put_objects(self.store, schema.prefix, [run.object])
                    runs.append(run.run)
        return Manifest(
            index_id=index.index_id,
            namespace=namespace,
            log_id=self.log.log_id,
            log_epoch=0,
            version=0,
            generation=0,
            owner_epoch=1,
            commit_uuid=new_uuid(),
            record_count=len(records),
            byte_count=100 * len(records),
            dimension=index.dimension or 0,
            metric=index.metric.value,
            centroids=b"".join(c.astype("<f4").tobytes() for c in centroids),
            files=tuple(files),
            id_runs=tuple(runs),
        )

    def _file(
        self,
        schema: NamespaceSchema,
        live: Sequence[StoredRecord],
        dead: Sequence[StoredRecord],
        centroids: list[Vector],
    ) -> EncodedFile:
        """Dead rows come last."""
        rows = Rows.of([*live, *dead], self.index.dimension)
        if self.random.random() < 0.5:
            encoded = write_delta(rows, schema)
        elif rows.vectors is not None and self.random.random() < 0.7:
            centroid = rows.vectors.mean(axis=0)
            encoded = write_cluster(rows, schema, cluster=len(centroids), centroid=centroid)
            centroids.append(centroid)
        else:
            encoded = write_cluster(rows, schema)
        numbers = BitMap(range(len(live), len(rows)))
        file = msgspec.structs.replace(
            encoded.file, dead=numbers.serialize() if numbers else b"", dead_count=len(numbers)
        )
        return replace(encoded, file=file)

    def _new_freshness(self) -> FreshnessLayer:
        parts = FreshnessParts(
            log=self.log,
            directory=self,
            manifests=self.manifests,
            registries=self.registries,
            feed=self.feed,
            clock=self.clock,
        )
        return FreshnessLayer(parts, self._freshness_settings)

    def _new_service(self) -> QueryService:
        parts = QueryParts(
            manifests=self.manifests,
            registries=self.registries,
            store=self.store,
            cache=self.cache,
            fresh=self._reader or self.fresh,
            positions=LogPositions(self.log),
            feed=self.feed,
            clock=self.clock,
            partitions=PARTITIONS,
        )
        return QueryService(parts, self._query_settings)


def record(
    record_id: str,
    values: Sequence[float] | None = None,
    sparse: dict[int, float] | None = None,
    **metadata: str | float | bool | list[str],
) -> Record:
    vector = None if values is None else np.array(values, dtype=np.float32)
    return Record(record_id, vector, None if sparse is None else terms(sparse), metadata)


def terms(values: dict[int, float]) -> SparseValues:
    ordered = sorted(values.items())
    return SparseValues(
        np.array([i for i, _ in ordered], dtype=np.uint32),
        np.array([v for _, v in ordered], dtype=np.float32),
    )
