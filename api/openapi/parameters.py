"""Headers and query parameters that several operations share."""

from api.control.backups import ERROR_HEADER
from api.openapi import bounds
from api.openapi.operation import Parameter
from api.vectors import headers
from core.limits import LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX
from query.model import Consistency

VERSION = Parameter(
    "X-Pinecone-Api-Version",
    "The version of Pinecone's API that the client speaks. From 2026-07 on, indexes have the shape "
    "of `TypedIndex`; before it, and without this header, that of `ClassicIndex`.",
    {"type": "string", "examples": ["2025-10", "2026-07"]},
    place="header",
)
CONSISTENCY = Parameter(
    headers.CONSISTENCY,
    "default: sees every write acknowledged before it, or says so in x-firndb-stale; strong: sees "
    "them or fails; eventual: never waits.",
    {"type": "string", "enum": [c.value for c in Consistency], "default": "default"},
    place="header",
)
MIN_LSN = Parameter(
    headers.MIN_LSN,
    "Wait for this write, by the LSN that it returned.",
    {"type": "string", "pattern": "^[0-9]{1,18}$"},
    place="header",
)
READ = (CONSISTENCY, MIN_LSN)
EXHAUSTIVE = Parameter(
    headers.EXHAUSTIVE,
    "true: look at every cluster, so that no neighbour is missed.",
    {"type": "string"},
    place="header",
)
EXPLAIN = Parameter(
    headers.EXPLAIN,
    "true: say in `firndb` what the answer cost and how it was found.",
    {"type": "string"},
    place="header",
)

NAMESPACE = Parameter(
    "namespace",
    "Empty or absent: the default namespace.",
    {"type": "string", **bounds.NAMESPACE},
)
PREFIX = Parameter("prefix", "Only what begins so.", {"type": "string", **bounds.PREFIX})
LIMIT = Parameter(
    "limit",
    "Entries of a page.",
    {
        "type": "integer",
        "minimum": 1,
        "maximum": LIST_LIMIT_MAX,
        "default": LIST_LIMIT_DEFAULT,
    },
)
PAGE_TOKEN = Parameter("paginationToken", "`pagination.next` of the page before.")


WRITTEN = ("x-pinecone-request-lsn", "x-pinecone-lsn-committed")
DECIDED = (*WRITTEN, headers.OUTCOME)
SEEN = (
    "x-pinecone-max-indexed-lsn",
    "x-pinecone-lsn-reconciled",
    headers.STALE,
    headers.OVERFLOWED,
)

ANSWER_HEADERS = {
    "x-pinecone-request-id": "The id of this request, as in the server's log.",
    "x-pinecone-request-lsn": "The LSN of this write.",
    "x-pinecone-lsn-committed": "An older name of x-pinecone-request-lsn.",
    "x-pinecone-max-indexed-lsn": "Every write up to this LSN (inclusive) is in the answer.",
    "x-pinecone-lsn-reconciled": "An older name of x-pinecone-max-indexed-lsn.",
    headers.STALE: "true: acknowledged writes could not be waited for and may be missing.",
    headers.OVERFLOWED: "true: more writes wait than memory holds; the newest may be missing.",
    headers.OUTCOME: "unknown: the write stands, but what it met was not known in time.",
    "x-firndb-lsn": "Every write up to this LSN (inclusive) is in the file, and none above.",
    "x-firndb-records": "How many records the file will have.",
    ERROR_HEADER: "Why it failed.",
    "retry-after": "Seconds to wait before the next try.",
}

# By the part of the path before the parameter.
PATH = {
    "indexes": "The name of the index.",
    "namespaces": "The name of the namespace, percent-encoded.",
    "projects": "The id of the project.",
    "keys": "The id of the key, which is not its secret.",
    "documents": "What of the documents API was asked for.",
    "models": "The name of the model.",
    "imports": "The id of the import.",
    "docs": "The name of the file.",
    "backups": "The id of the backup.",
    "collections": "The name of the collection.",
    "jobs": "The id of the restore job.",
    "schedules": "The id of the schedule.",
}
PATH_BOUNDS = {"namespaces": bounds.NAMESPACE}
