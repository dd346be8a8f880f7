"""The base of all answers, and references to what structs cannot say themselves."""

from typing import Any

import msgspec


class AnswerShape(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Closed: a field that is not described here would be a fault of the description."""


class ControlErrorText(AnswerShape):
    code: str
    message: str


class ControlError(AnswerShape):
    """A refused request of the control plane."""

    error: ControlErrorText
    status: int


class DataError(AnswerShape):
    """A refused request of the data plane. `code`: gRPC's number for the kind of error."""

    code: int
    message: str
    details: list[Any]


class Empty(AnswerShape):
    """An empty object: it was done."""


class Pagination(AnswerShape):
    """`next`: the `paginationToken` of the page after this one."""

    next: str


def items_in(component: str) -> msgspec.Meta:
    """For a `list[Any]`: its items have the shape of the named component."""
    return msgspec.Meta(extra_json_schema={"items": {"$ref": f"#/components/schemas/{component}"}})
