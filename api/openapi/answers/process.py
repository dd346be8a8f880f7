"""What a process says of itself."""

from typing import Any, Literal

from api.openapi.answers.shape import AnswerShape


class Alive(AnswerShape):
    status: Literal["alive"]


class Ready(AnswerShape):
    status: Literal["ready"]


class NotReady(AnswerShape):
    status: Literal["not ready"]
    reason: str


class ApiDescription(AnswerShape, forbid_unknown_fields=False):
    """An OpenAPI 3.1 document."""

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]
