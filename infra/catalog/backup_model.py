"""Backups, collections, restore jobs and schedules, as plain values."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from core.indexes import VectorType
from core.metric import Metric
from infra.catalog.model import Spec

T = TypeVar("T")


class BackupKind(StrEnum):
    """A collection is a backup of an index on pods, known by its name instead of its id."""

    BACKUP = "backup"
    COLLECTION = "collection"


class BackupState(StrEnum):
    """`TERMINATING` ends with the row's deletion."""

    INITIALIZING = "Initializing"
    READY = "Ready"
    FAILED = "InitializationFailed"
    TERMINATING = "Terminating"


class RestoreState(StrEnum):
    """`CANCELLED`: the index was deleted before it was filled."""

    PENDING = "Pending"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


class Frequency(StrEnum):
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"


@dataclass(frozen=True, slots=True)
class Backup:
    """name: a collection always has one. dimension to tags: the index's, when it was taken; counts
    are None until it is ready. error: why it failed. expires_ms: None for ever. source_deleted_ms:
    None while the index lives.
    """

    backup_id: str
    project_id: str
    kind: BackupKind
    name: str | None
    description: str | None
    source_index_id: str
    source_index_name: str
    dimension: int | None
    metric: Metric
    vector_type: VectorType
    spec: Spec
    tags: dict[str, str]
    state: BackupState
    error: str | None
    record_count: int | None
    namespace_count: int | None
    size_bytes: int | None
    schedule_id: str | None
    expires_ms: int | None
    created_ms: int
    ready_ms: int | None
    source_deleted_ms: int | None


@dataclass(frozen=True, slots=True)
class BackupCounts:
    """Of a backup that is complete. size_bytes: of the files that it keeps in use."""

    records: int
    namespaces: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class RestoreJob:
    """parts_done: parts of the list whose namespaces are all restored. namespaces_total: 0 before
    the job has begun. target_living: its index is not deleted.
    """

    job_id: str
    project_id: str
    backup_id: str
    target_index_id: str
    target_index_name: str
    target_living: bool
    state: RestoreState
    error: str | None
    namespaces_done: int
    namespaces_total: int
    parts_done: int
    created_ms: int
    completed_ms: int | None


@dataclass(frozen=True, slots=True)
class Schedule:
    """anchor_ms: what the runs are counted from. next_run_ms: None while it is disabled.
    last_success_ms: when a backup of it was ready last.
    """

    schedule_id: str
    project_id: str
    index_id: str
    name: str
    frequency: Frequency
    retention_days: int
    enabled: bool
    anchor_ms: int
    next_run_ms: int | None
    last_success_ms: int | None
    created_ms: int


@dataclass(frozen=True, slots=True)
class ScheduleChange:
    """None: leave it as it is."""

    frequency: Frequency | None = None
    retention_days: int | None = None
    enabled: bool | None = None


Place = tuple[int, str]
"""Where a page ends: (created_ms, id) of its last one."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Newest first. next: None on the last page."""

    items: list[T]
    next: Place | None
