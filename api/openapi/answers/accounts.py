"""Answers on who may do what in a project, and who did."""

from typing import Literal

from msgspec import UNSET, UnsetType

from api.openapi.answers.shape import AnswerShape
from infra.catalog.model import KeyRole


class ProjectShown(AnswerShape):
    """max_pods, force_encryption_with_cmek and organization_id are there for Pinecone's clients."""

    id: str
    name: str
    max_pods: int
    force_encryption_with_cmek: bool
    organization_id: str
    created_at: str


class ProjectList(AnswerShape):
    data: list[ProjectShown]


class KeyShown(AnswerShape):
    """`roles`: the one role in Pinecone's words; `role`: in this server's."""

    id: str
    name: str
    project_id: str
    roles: list[str]
    role: KeyRole
    prefix: str
    created_at: str
    expires_at: str | None


class KeyList(AnswerShape):
    data: list[KeyShown]


class KeyWithSecret(AnswerShape):
    """`value`: the secret, which is shown this once."""

    key: KeyShown
    value: str


class Token(AnswerShape):
    """What the official admin client sends as a bearer token from now on: the key itself."""

    access_token: str
    token_type: Literal["Bearer"]
    expires_in: int


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
