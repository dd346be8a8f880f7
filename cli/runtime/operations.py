"""What an operator asks of a deployment; behind the admin endpoint and the `firndb` commands."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from builder.compaction.shape import Shape, histogram_text, shape_of
from cli.runtime.consumers import builder_settings
from cli.runtime.parts import Parts
from core.errors import NotFound
from core.log import NO_LSN
from infra.catalog.model import CatalogIndex
from storage.commit import ManifestStore
from storage.layout import kind_of, namespace_prefix, pack_keys
from storage.manifest import Manifest
from storage.references import keys_of
from storage.registry import RegistryState, RegistryStore
from storage.registry_tree import NamespaceSummary

# Manifests that one status reads for file counts: a GET each, so a bound on what a look costs.
MANIFESTS_READ_MAX = 1000
# Namespaces whose objects one status lists for their garbage: a request per 1,000 objects.
LISTED_MAX = 100
DATA_KINDS = {"clusters", "deltas", "ids", "sections"}


@dataclass(frozen=True, slots=True)
class NamespaceStatus:
    """One line of `firndb status`.

    log_end: next offset of the partition. fresh_from: the first offset that may be in no manifest
    yet. indexed_lsn: inclusive, -1 for none. lag: log records of the partition from fresh_from on.
    files and what follows but bytes: None where there are too many namespaces to read every
    manifest; garbage_bytes, for which the store is listed, where there are more than a hundred.
    debt_bytes: rows in deltas and dead rows while compaction has a job to do; amplification: bytes
    written by flushes and compactions over bytes of log records, since the first manifest; clusters
    and cluster_sizes: how many there are of which size; garbage_bytes: of objects that the newest
    manifest does not name: their time has not come, or a snapshot holds them.
    """

    index: str
    namespace: str
    partition: int
    records: int
    log_end: int
    fresh_from: int
    indexed_lsn: int
    lag: int
    files: int | None
    deltas: int | None
    clusters: int | None
    cluster_sizes: str | None
    unfolded_bytes: int | None
    debt_bytes: int | None
    amplification: float | None
    garbage_bytes: int | None
    bytes: int


class Operations:
    """Everything here is safe beside a running builder: it reads, or changes the catalog only."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._registries = RegistryStore(parts.store)
        self._manifests = ManifestStore(parts.store)

    async def status(
        self, index: str | None = None, namespace: str | None = None
    ) -> list[NamespaceStatus]:
        """Every living namespace that the registries know, by index and name."""
        living = {i.info.index_id: i for i in await self._parts.catalog.living_indexes()}
        if index is not None and index not in {i.info.name for i in living.values()}:
            raise NotFound(f"there is no index {index}; `firndb indexes` lists them")
        found: list[NamespaceStatus] = []
        for partition in range(self._parts.partitions):
            state = await self._registries.newest(partition)
            if state is not None:
                found += await self._of_partition(state, living, index, namespace, len(found))
        return sorted(found, key=lambda row: (row.index, row.namespace))

    async def _of_partition(
        self,
        state: RegistryState,
        living: dict[str, CatalogIndex],
        index: str | None,
        namespace: str | None,
        read: int,
    ) -> list[NamespaceStatus]:
        end = await self._parts.wal.end_offset(state.partition)
        rows: list[NamespaceStatus] = []
        async for (index_id, name), summary in self._registries.walk(state):
            owner = living.get(index_id)
            if owner is None or summary.deleted:
                continue
            if index not in (None, owner.info.name) or namespace not in (None, name):
                continue
            before = read + len(rows)
            manifest = None
            if before < MANIFESTS_READ_MAX:
                manifest = await self._manifests.newest(index_id, name, at_least=summary.version)
            limits = builder_settings(self._parts.settings).compaction
            shape = None
            if manifest is not None:
                shape = await asyncio.to_thread(shape_of, manifest, limits)
            row = _row(state, end, owner, name, summary, manifest, shape)
            if manifest is not None and before < LISTED_MAX:
                row = replace(row, garbage_bytes=await self._garbage(manifest))
            rows.append(row)
        return rows

    async def _garbage(self, manifest: Manifest) -> int:
        prefix = namespace_prefix(manifest.index_id, manifest.namespace)
        named = keys_of(manifest, prefix) | pack_keys(prefix)
        return sum(
            [
                info.size
                async for info in self._parts.store.list(prefix)
                if info.key not in named and kind_of(info.key) in DATA_KINDS
            ]
        )

    async def indexes(self) -> list[dict[str, Any]]:
        """Every living index with the id that log keys begin with."""
        return [
            {
                "index": one.info.name,
                "index_id": one.info.index_id,
                "dimension": one.info.dimension,
                "metric": one.info.metric.value,
                "vector_type": one.info.vector_type.value,
                "port": None if one.port is None else str(one.port),
            }
            for one in await self._parts.catalog.living_indexes()
        ]


def _row(
    state: RegistryState,
    end: int,
    owner: CatalogIndex,
    name: str,
    summary: NamespaceSummary,
    manifest: Manifest | None,
    shape: Shape | None,
) -> NamespaceStatus:
    indexed = manifest.indexed_lsn if manifest is not None else summary.indexed_lsn
    covered = state.checkpoint if summary.held_from == NO_LSN else summary.held_from
    fresh_from = max(covered, indexed + 1 if indexed != NO_LSN else 0)
    return NamespaceStatus(
        index=owner.info.name,
        namespace=name,
        partition=state.partition,
        records=manifest.record_count if manifest is not None else summary.record_count,
        log_end=end,
        fresh_from=fresh_from,
        indexed_lsn=indexed,
        lag=max(0, end - fresh_from),
        files=len(manifest.files) if manifest is not None else None,
        deltas=None if shape is None else shape.deltas,
        clusters=None if shape is None else shape.cluster_count,
        cluster_sizes=None if shape is None else histogram_text(shape.clusters),
        unfolded_bytes=None if shape is None else shape.unfolded_bytes,
        debt_bytes=None if shape is None else shape.debt_bytes,
        amplification=None if manifest is None else _amplification(manifest),
        garbage_bytes=None,
        bytes=manifest.byte_count if manifest is not None else summary.byte_count,
    )


def _amplification(manifest: Manifest) -> float | None:
    if not manifest.ingested_bytes:
        return None
    return round(manifest.written_bytes / manifest.ingested_bytes, 2)


def as_rows(rows: Sequence[NamespaceStatus]) -> list[dict[str, Any]]:
    return [asdict(row) for row in rows]
