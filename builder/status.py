"""What the builder has to say of itself, for `firndb status` and the admin endpoint."""

from collections.abc import Iterable
from dataclasses import dataclass

from builder.namespace import Buffer, NamespaceWork
from builder.partition import OwnedPartition
from core.log import NO_LSN
from storage.manifest import Manifest


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
    """version 0, files None: the builder has no manifest in memory. paused: "" or why."""

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
    """applied, checkpoint: next offsets (exclusive). failure: "" or why it was given up.

    registered: how many namespaces the registry names. namespaces: those in memory, which have work
    or had some lately.
    """

    partition: int
    owner_epoch: int
    applied: int
    checkpoint: int
    failure: str
    registered: int
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
    return PartitionStatus(
        partition=owned.number,
        owner_epoch=owned.owner_epoch,
        applied=owned.applied,
        checkpoint=owned.state.checkpoint,
        failure="" if owned.failure is None else str(owned.failure),
        registered=owned.state.count,
        namespaces=tuple(_namespace(owned, work, now) for work in owned.works.values()),
    )


def _namespace(owned: OwnedPartition, work: NamespaceWork, now: float) -> NamespaceStatus:
    load, manifest = work.pending.load(now), work.manifest
    return NamespaceStatus(
        index_id=work.index_id,
        namespace=work.namespace,
        partition=owned.number,
        version=0 if manifest is None else manifest.version,
        generation=NO_LSN if manifest is None else manifest.generation,
        indexed_lsn=NO_LSN if manifest is None else manifest.indexed_lsn,
        deleted=manifest is not None and manifest.deleted,
        records=0 if manifest is None else manifest.record_count,
        bytes=0 if manifest is None else manifest.byte_count,
        files=None if manifest is None else files_status(manifest),
        pending_records=load.records,
        pending_bytes=load.bytes,
        pending_age_s=load.age_s,
        paused=work.paused,
    )
