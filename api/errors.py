"""The one place where errors become answers: statuses and Pinecone's two shapes of bodies."""

import logging
import math
from dataclasses import dataclass

import orjson
from starlette.responses import Response

from core import errors

log = logging.getLogger(__name__)


class Unprocessable(errors.InvalidRequest):
    """The body is JSON, but not of the shape that this request has."""


class NotSupported(errors.FirnError):
    """Pinecone has it, this server does not; the message says what to do instead."""


class WrongMethod(errors.FirnError):
    """The path exists, but not for this HTTP method."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """`code`: in control plane bodies. `number`: gRPC's, in data plane bodies."""

    status: int
    code: str
    number: int


# From special to general: the first entry that an error is an instance of is its meaning.
# The clients repeat 408, 429 and 5xx (but not 501) by themselves, so what cannot succeed by
# repeating must have none of these.
MEANINGS: tuple[tuple[type[errors.FirnError], Meaning], ...] = (
    (Unprocessable, Meaning(422, "UNPROCESSABLE_ENTITY", 3)),
    (NotSupported, Meaning(501, "UNIMPLEMENTED", 12)),
    (WrongMethod, Meaning(405, "METHOD_NOT_ALLOWED", 12)),
    (errors.TooLarge, Meaning(413, "PAYLOAD_TOO_LARGE", 11)),
    (errors.InvalidRequest, Meaning(400, "INVALID_ARGUMENT", 3)),
    (errors.Unauthenticated, Meaning(401, "UNAUTHENTICATED", 16)),
    (errors.QuotaExceeded, Meaning(403, "QUOTA_EXCEEDED", 7)),
    (errors.Forbidden, Meaning(403, "FORBIDDEN", 7)),
    (errors.ObjectNotFound, Meaning(500, "INTERNAL", 13)),
    (errors.CorruptData, Meaning(500, "DATA_LOSS", 15)),
    (errors.NotFound, Meaning(404, "NOT_FOUND", 5)),
    (errors.AlreadyExists, Meaning(409, "ALREADY_EXISTS", 6)),
    (errors.FailedPrecondition, Meaning(412, "FAILED_PRECONDITION", 9)),
    (errors.Overloaded, Meaning(429, "RESOURCE_EXHAUSTED", 8)),
    (errors.DeadlineExceeded, Meaning(504, "DEADLINE_EXCEEDED", 4)),
    (errors.Unavailable, Meaning(503, "UNAVAILABLE", 14)),
)
INTERNAL = Meaning(500, "INTERNAL", 13)
INTERNAL_TEXT = "Internal error. The server's log has more under this request's id."

# What the data plane serves; everything else answers in the control plane's shape.
DATA_PATHS = (
    *("/vectors", "/query", "/describe_index_stats", "/namespaces", "/records", "/bulk"),
    "/firndb/export",
)


def meaning_of(error: Exception) -> Meaning:
    return next((meaning for kind, meaning in MEANINGS if isinstance(error, kind)), INTERNAL)


def is_data_path(path: str) -> bool:
    """`/vectors/upsert` and `/query` are, `/indexes/vectors` and `/query2` are not."""
    return any(path == known or path.startswith(known + "/") for known in DATA_PATHS)


def explained(error: Exception, where: str) -> tuple[Meaning, str, dict[str, str]]:
    """The meaning, the text for the caller, and headers of the answer to a failed request.

    What is not the caller's to mend is logged, not told; `where` names the request in the log.
    """
    meaning = meaning_of(error)
    text = str(error)
    if meaning.status == INTERNAL.status:
        log.error("request to %s failed", where, exc_info=error)
        # A damaged object is the operator's to mend, and named by the key that it has in the store.
        text = text if isinstance(error, errors.CorruptData) else INTERNAL_TEXT
    headers = {}
    if isinstance(error, errors.Unavailable):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    return meaning, text, headers


def response_to(error: Exception, path: str) -> Response:
    """The answer to a failed HTTP request."""
    meaning, text, headers = explained(error, path)
    return Response(
        body_of(meaning, text, path),
        status_code=meaning.status,
        headers=headers,
        media_type="application/json",
    )


def body_of(meaning: Meaning, text: str, path: str) -> bytes:
    """In the shape of the plane that the path belongs to."""
    if is_data_path(path):
        return orjson.dumps({"code": meaning.number, "message": text, "details": []})
    return orjson.dumps(
        {"error": {"code": meaning.code, "message": text}, "status": meaning.status}
    )
