"""Answers on bulk imports."""

from typing import Literal

from msgspec import UNSET, UnsetType

from api.openapi.answers.shape import AnswerShape, Pagination


class ImportStarted(AnswerShape):
    """`id`: of the import that will run."""

    id: str


class ImportRemarks(AnswerShape, rename="camel"):
    """`rowsSkipped`: rows that are no records; `reasons`: of the first ones, with file and row."""

    rows_skipped: int
    reasons: list[str]


class ImportModel(AnswerShape, rename="camel"):
    """`recordsImported`: read so far; once it is completed, records in the namespaces."""

    id: str
    uri: str
    status: Literal["Pending", "InProgress", "Failed", "Completed", "Cancelled"]
    created_at: str
    percent_complete: float
    records_imported: int
    finished_at: str | UnsetType = UNSET
    error: str | UnsetType = UNSET
    firndb: ImportRemarks | UnsetType = UNSET


class ImportPage(AnswerShape):
    """Newest first."""

    data: list[ImportModel]
    pagination: Pagination | UnsetType = UNSET
