"""What the builder has to say of itself, for `firndb status` and the admin endpoint."""

from collections.abc import Iterable
from dataclasses import dataclass

from builder.namespace import Buffer
from builder.partition import OwnedPartition
from storage.manifest import Manifest
from storage.registry import NamespaceSummary


@dataclass(frozen=True, slots=True)
class FilesStatus:
    """Files of a manifest, its dead rows, and the bytes of all its objects."""

    clusters: int
    deltas: int
    id_runs: int
    dead_rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class NamespaceStatus:
    """files: None where the builder has no manifest in memory. paused: "" or why."""

    index_id: str
    namespace: str
    partition: int
    version: int
    generation: int
    indexed_lsn: int
    deleted: bool
    records: int
    bytes: int
    files: FilesStatus | None
    pending_records: int
    pending_bytes: int
    pending_age_s: float
    paused: str


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """applied, checkpoint: next offsets (exclusive). failure: "" or why it was given up."""

    partition: int
    owner_epoch: int
    applied: int
    checkpoint: int
    failure: str
    namespaces: tuple[NamespaceStatus, ...]


@dataclass(frozen=True, slots=True)
class BuilderStatus:
    buffered_bytes: int
    buffered_records: int
    partitions: tuple[PartitionStatus, ...]


def files_status(manifest: Manifest) -> FilesStatus:
    deltas = sum(file.is_delta for file in manifest.files)
    return FilesStatus(
        clusters=len(manifest.files) - deltas,
        deltas=deltas,
        id_runs=len(manifest.id_runs),
        dead_rows=sum(file.dead_count for file in manifest.files),
        bytes=manifest.byte_count,
    )


def status_of(owned: Iterable[OwnedPartition], buffer: Buffer, now: float) -> BuilderStatus:
    """`now`: of the monotonic clock."""
    return BuilderStatus(
        buffered_bytes=buffer.bytes,
        buffered_records=buffer.records,
        partitions=tuple(_partition(part, now) for part in owned),
    )


def _partition(owned: OwnedPartition, now: float) -> PartitionStatus:
    known = dict(owned.summaries())
    # Namespaces whose first entries wait for their first flush are listed as well.
    blank = NamespaceSummary(generation=-1, version=0)
    keys = [*known, *(key for key in owned.waiting if key not in known)]
    return PartitionStatus(
        partition=owned.number,
        owner_epoch=owned.owner_epoch,
        applied=owned.applied,
        checkpoint=owned.state.checkpoint,
        failure="" if owned.failure is None else str(owned.failure),
        namespaces=tuple(_namespace(owned, key, known.get(key, blank), now) for key in keys),
    )


def _namespace(
    owned: OwnedPartition, key: tuple[str, str], summary: NamespaceSummary, now: float
) -> NamespaceStatus:
    work = owned.works.get(key)
    load = None if work is None else work.pending.load(now)
    manifest = None if work is None else work.manifest
    return NamespaceStatus(
        index_id=key[0],
        namespace=key[1],
        partition=owned.number,
        version=summary.version,
        generation=summary.generation,
        indexed_lsn=summary.indexed_lsn,
        deleted=summary.deleted,
        records=summary.record_count,
        bytes=summary.byte_count,
        files=None if manifest is None else files_status(manifest),
        pending_records=0 if load is None else load.records,
        pending_bytes=0 if load is None else load.bytes,
        pending_age_s=0.0 if load is None else load.age_s,
        paused="" if work is None else work.paused,
    )
