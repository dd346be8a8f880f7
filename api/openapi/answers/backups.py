"""Backups, collections, restore jobs and backup schedules."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, UnsetType

from api.openapi.answers.indexes import TypedSchemaShown
from api.openapi.answers.shape import AnswerShape, Pagination, items_in
from api.openapi.operation import Versions
from core.metric import Metric
from infra.catalog.backup_model import BackupState, Frequency, RestoreState


class _Backup(AnswerShape):
    backup_id: str
    source_index_name: str
    source_index_id: str
    name: str | None
    description: str | None
    status: BackupState
    cloud: str
    region: str
    record_count: int | None
    namespace_count: int | None
    size_bytes: int | None
    tags: dict[str, str] | None
    created_at: str
    source_index_deleted_at: str | None


class ClassicBackup(_Backup):
    """A backup up to API 2026-04. `dimension` is null for a sparse index."""

    dimension: int | None
    metric: Metric
    schema: dict[str, Any] | UnsetType = UNSET


class TypedBackup(_Backup):
    """A backup since API 2026-07."""

    schema: TypedSchemaShown


BACKUP = Versions(
    "Backup",
    (ClassicBackup, TypedBackup),
    "A backup of an index, in the shape that the client's API version knows. Counts are there once "
    "it is Ready.",
)


class BackupPage(AnswerShape):
    data: Annotated[list[Any], items_in("Backup")]
    pagination: Pagination | UnsetType = UNSET


class IndexFromBackup(AnswerShape):
    """The index is there at once, and ready when the job is completed."""

    restore_job_id: str
    index_id: str


class RestoreJobShown(AnswerShape):
    restore_job_id: str
    backup_id: str
    target_index_name: str
    target_index_id: str
    status: RestoreState
    created_at: str
    completed_at: str | None
    percent_complete: float


class RestoreJobPage(AnswerShape):
    data: list[RestoreJobShown]
    pagination: Pagination | UnsetType = UNSET


class CollectionShown(AnswerShape):
    """A backup of an index on pods. `size` (bytes) and what follows is there once it is Ready."""

    name: str
    status: BackupState
    environment: str
    size: int | UnsetType = UNSET
    vector_count: int | UnsetType = UNSET
    dimension: int | UnsetType = UNSET


class CollectionList(AnswerShape):
    collections: list[CollectionShown]


class ScheduleShown(AnswerShape):
    """`next_scheduled_run`: null while it is disabled."""

    schedule_id: str
    name: str
    index_id: str
    project_id: str
    schedule_type: Literal["time-based"]
    frequency: Frequency
    retention_expire_after_days: int
    enabled: bool
    next_scheduled_run: str | None
    created_at: str


class SchedulePage(AnswerShape):
    data: list[ScheduleShown]
    pagination: Pagination | UnsetType = UNSET
