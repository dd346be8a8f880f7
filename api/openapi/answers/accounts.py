"""Answers on who may do what in a project, and who did."""

from msgspec import UNSET, UnsetType

from api.openapi.answers.shape import AnswerShape


class AuditEntryShown(AnswerShape):
    """`outcome`: `begun` (not known), `done`, or `refused: ` or `failed: ` and an error's code."""

    id: str
    time: str
    project_id: str
    key_id: str
    request_id: str
    action: str
    resource: str
    outcome: str


class AuditPage(AnswerShape):
    """`next`: the `before` of the page after this one."""

    entries: list[AuditEntryShown]
    next: str | UnsetType = UNSET
