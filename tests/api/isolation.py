"""What one project may try on another's objects: one case for every operation of the API.

A case is written once, with `{index}` and the like where an object goes; the test sends it with the
other project's object and with one that nobody has.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from api.vectors.bodies import INLINE_BYTES_MAX

NAMESPACE = "tenant-one"
RECORD = "record-one"
METADATA = {"secret": "of-ours"}
VECTOR = [1.0, 0.0, 0.0]
OURS = {"secret": {"$eq": "of-ours"}}


class Sees(Enum):
    """What the other project's caller gets."""

    NOTHING = auto()  # 401, 403 or 404, the same for what is there and what is not
    REFUSAL = auto()  # 400, the same for both
    OWN = auto()  # an answer of its own things: nothing of ours is in it
    ITS_OWN_NAMES = auto()  # names are each project's: it makes one of its own, taken here or not


class At(Enum):
    CONTROL = auto()
    OUR_INDEX = auto()  # the host of the object's index, whichever that is
    THEIR_INDEX = auto()  # the caller's own index


@dataclass(frozen=True, slots=True)
class Case:
    """`path` and the texts in `body` may hold `{index}`, `{project}`, `{key}`, `{import}` …"""

    path: str
    body: Any = None
    sees: Sees = Sees.NOTHING
    at: At = At.CONTROL
    ndjson: bool = False


def on_index(path: str, body: Any = None, **more: Any) -> Case:
    return Case(path, body, at=At.OUR_INDEX, **more)


SPEC = {"serverless": {"cloud": "aws", "region": "us-east-1"}}
NEW: Any = {"name": "{index}", "dimension": 3, "metric": "cosine", "spec": SPEC}
EMBED: Any = {
    "name": "{index}",
    "cloud": "aws",
    "region": "us-east-1",
    "embed": {"model": "none", "field_map": {"text": "text"}},
}
UPSERT = {"vectors": [{"id": RECORD, "values": VECTOR}], "namespace": NAMESPACE}
LARGE = {**UPSERT, "namespace": "x" * 2 * INLINE_BYTES_MAX}
SCHEDULE = {
    "name": "theirs",
    "schedule": {"type": "time-based", "frequency": "daily"},
    "retention": {"expire_after_days": 1},
}
POD = {"environment": "us-east1-gcp", "pod_type": "p1.x1"}
FROM_COLLECTION = {**POD, "source_collection": "{collection}"}
QUERY = {"vector": VECTOR, "topK": 10, "namespace": NAMESPACE, "includeMetadata": True}
SEARCH = {"query": {"top_k": 1, "vector": {"values": VECTOR}}}
DOCUMENTS = "/namespaces/tenant-one/documents/search"

CASES: Mapping[tuple[str, str], tuple[Case, ...]] = {
    ("GET", "/indexes"): (Case("/indexes", sees=Sees.OWN),),
    ("POST", "/indexes"): (
        Case("/indexes", NEW, sees=Sees.ITS_OWN_NAMES),
        Case("/indexes", {**NEW, "name": "stolen", "spec": {"pod": FROM_COLLECTION}}),
    ),
    ("POST", "/indexes/create-for-model"): (
        Case("/indexes/create-for-model", EMBED, sees=Sees.ITS_OWN_NAMES),
    ),
    ("GET", "/indexes/{name}"): (Case("/indexes/{index}"),),
    ("PATCH", "/indexes/{name}"): (
        Case("/indexes/{index}", {"deletion_protection": "disabled", "tags": {"a": "b"}}),
        Case("/indexes/{index}", {"spec": {"pod": {"replicas": 2}}}),
    ),
    ("DELETE", "/indexes/{name}"): (Case("/indexes/{index}"),),
    ("POST", "/vectors/upsert"): (
        on_index("/vectors/upsert", UPSERT),
        on_index("/vectors/upsert", LARGE),
        on_index("/vectors/upsert", {"vectors": "no list"}),
    ),
    ("POST", "/query"): (
        on_index("/query", QUERY),
        on_index("/query", {"id": RECORD, "topK": 1, "namespace": NAMESPACE}),
        on_index("/query", {"vector": [1.0], "topK": 0}),
    ),
    ("GET", "/vectors/fetch"): (
        on_index(f"/vectors/fetch?ids={RECORD}&namespace={NAMESPACE}"),
        on_index("/vectors/fetch"),
    ),
    ("POST", "/vectors/fetch_by_metadata"): (
        on_index("/vectors/fetch_by_metadata", {"filter": OURS, "namespace": NAMESPACE}),
    ),
    ("POST", "/vectors/update"): (
        on_index("/vectors/update", {"id": RECORD, "values": VECTOR, "namespace": NAMESPACE}),
        on_index("/vectors/update", {"filter": OURS, "setMetadata": {"a": 1}, "dryRun": True}),
    ),
    ("POST", "/vectors/delete"): (
        on_index("/vectors/delete", {"ids": [RECORD], "namespace": NAMESPACE}),
        on_index("/vectors/delete", {"deleteAll": True, "namespace": NAMESPACE}),
        on_index("/vectors/delete", {"filter": OURS, "namespace": NAMESPACE}),
    ),
    ("GET", "/vectors/list"): (
        on_index(f"/vectors/list?namespace={NAMESPACE}&prefix=rec"),
        on_index("/vectors/list?limit=none"),
    ),
    ("POST", "/describe_index_stats"): (on_index("/describe_index_stats", {}),),
    ("GET", "/describe_index_stats"): (on_index("/describe_index_stats"),),
    ("POST", "/namespaces"): (on_index("/namespaces", {"name": NAMESPACE}),),
    ("GET", "/namespaces"): (on_index("/namespaces"),),
    ("GET", "/namespaces/{name}"): (on_index(f"/namespaces/{NAMESPACE}"),),
    ("DELETE", "/namespaces/{name}"): (on_index(f"/namespaces/{NAMESPACE}"),),
    ("POST", "/records/namespaces/{name}/upsert"): (
        on_index(f"/records/namespaces/{NAMESPACE}/upsert", {"_id": "a"}, ndjson=True),
    ),
    ("POST", "/records/namespaces/{name}/search"): (
        on_index(f"/records/namespaces/{NAMESPACE}/search", SEARCH),
    ),
    ("POST", "/namespaces/{name}/documents/{operation}"): (on_index(DOCUMENTS, {}),),
    ("PUT", "/namespaces/{name}/documents/{operation}"): (on_index(DOCUMENTS, {}),),
    ("PATCH", "/namespaces/{name}/documents/{operation}"): (on_index(DOCUMENTS, {}),),
    ("POST", "/bulk/imports"): (on_index("/bulk/imports", {"uri": "s3://bucket/in/a"}),),
    ("GET", "/bulk/imports"): (
        on_index("/bulk/imports"),
        Case("/bulk/imports", sees=Sees.OWN, at=At.THEIR_INDEX),
        Case(
            "/bulk/imports?paginationToken={import_token}",
            sees=Sees.REFUSAL,
            at=At.THEIR_INDEX,
        ),
    ),
    ("GET", "/bulk/imports/{import_id}"): (
        on_index("/bulk/imports/{import}"),
        Case("/bulk/imports/{import}", at=At.THEIR_INDEX),
    ),
    ("DELETE", "/bulk/imports/{import_id}"): (
        on_index("/bulk/imports/{import}"),
        Case("/bulk/imports/{import}", at=At.THEIR_INDEX),
    ),
    ("GET", "/firndb/export"): (on_index(f"/firndb/export?namespace={NAMESPACE}"),),
    ("POST", "/indexes/{name}/backups"): (
        Case("/indexes/{index}/backups", {"name": "stolen"}),
        Case("/indexes/{pods}/backups", {"name": "stolen"}),
    ),
    ("GET", "/indexes/{name}/backups"): (
        Case("/indexes/{index}/backups"),
        Case("/indexes/{index}/backups?include_deleted=true", sees=Sees.OWN),
        Case("/indexes/{index}/backups?paginationToken={backup_place}"),
    ),
    ("GET", "/backups"): (
        Case("/backups", sees=Sees.OWN),
        Case("/backups?paginationToken={backup_place}", sees=Sees.OWN),
        Case("/backups?paginationToken={backup_token}", sees=Sees.REFUSAL),
    ),
    ("GET", "/backups/{backup_id}"): (Case("/backups/{backup}"),),
    ("DELETE", "/backups/{backup_id}"): (Case("/backups/{backup}"),),
    ("POST", "/backups/{backup_id}/create-index"): (
        Case("/backups/{backup}/create-index", {"name": "stolen"}),
    ),
    ("GET", "/restore-jobs"): (
        Case("/restore-jobs", sees=Sees.OWN),
        Case("/restore-jobs?paginationToken={job_place}", sees=Sees.OWN),
    ),
    ("GET", "/restore-jobs/{job_id}"): (Case("/restore-jobs/{job}"),),
    ("POST", "/collections"): (
        Case("/collections", {"name": "stolen", "source": "{pods}"}),
        Case("/collections", {"name": "stolen", "source": "{index}"}),
    ),
    ("GET", "/collections"): (Case("/collections", sees=Sees.OWN),),
    ("GET", "/collections/{name}"): (Case("/collections/{collection}"),),
    ("DELETE", "/collections/{name}"): (Case("/collections/{collection}"),),
    ("POST", "/indexes/{name}/backup-schedules"): (
        Case("/indexes/{index}/backup-schedules", SCHEDULE),
    ),
    ("GET", "/indexes/{name}/backup-schedules"): (Case("/indexes/{index}/backup-schedules"),),
    ("GET", "/backup-schedules/{schedule_id}"): (Case("/backup-schedules/{schedule}"),),
    ("PATCH", "/backup-schedules/{schedule_id}"): (
        Case("/backup-schedules/{schedule}", {"enabled": False}),
    ),
    ("DELETE", "/backup-schedules/{schedule_id}"): (Case("/backup-schedules/{schedule}"),),
    ("GET", "/backup-schedules/{schedule_id}/history"): (
        Case("/backup-schedules/{schedule}/history"),
    ),
    ("POST", "/embed"): (),
    ("POST", "/rerank"): (),
    ("GET", "/models"): (Case("/models", sees=Sees.OWN),),
    ("GET", "/models/{name}"): (),
    ("POST", "/oauth/token"): (),
    ("GET", "/admin/projects"): (Case("/admin/projects", sees=Sees.OWN),),
    ("GET", "/admin/projects/{project_id}"): (Case("/admin/projects/{project}"),),
    ("GET", "/admin/projects/{project_id}/api-keys"): (Case("/admin/projects/{project}/api-keys"),),
    ("POST", "/admin/projects/{project_id}/api-keys"): (
        Case("/admin/projects/{project}/api-keys", {"name": "intruder"}),
    ),
    ("GET", "/admin/api-keys/{key_id}"): (Case("/admin/api-keys/{key}"),),
    ("PATCH", "/admin/api-keys/{key_id}"): (Case("/admin/api-keys/{key}", {"name": "taken"}),),
    ("DELETE", "/admin/api-keys/{key_id}"): (Case("/admin/api-keys/{key}"),),
    ("POST", "/firndb/api-keys/{key_id}/rotate"): (Case("/firndb/api-keys/{key}/rotate", {}),),
    ("GET", "/firndb/audit"): (
        Case("/firndb/audit", sees=Sees.OWN),
        Case("/firndb/audit?before=999999999", sees=Sees.OWN),
    ),
}
"""By method and path as registered. No case: it takes nothing that a project could own."""

GRPC_CASES: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "Upsert": ({"namespace": NAMESPACE, "vectors": [{"id": RECORD, "values": VECTOR}]}, {}),
    "Delete": (
        {"namespace": NAMESPACE, "ids": [RECORD]},
        {"namespace": NAMESPACE, "delete_all": True},
    ),
    "Update": ({"namespace": NAMESPACE, "id": RECORD, "values": VECTOR}, {}),
    "CreateNamespace": ({"name": NAMESPACE}, {}),
    "DeleteNamespace": ({"namespace": NAMESPACE}, {}),
    "Query": ({"namespace": NAMESPACE, "top_k": 3, "vector": VECTOR}, {"top_k": 0}),
    "Fetch": ({"namespace": NAMESPACE, "ids": [RECORD]}, {}),
    "FetchByMetadata": ({"namespace": NAMESPACE, "filter": METADATA}, {}),
    "List": ({"namespace": NAMESPACE, "prefix": "rec"}, {"limit": 0}),
    "DescribeIndexStats": ({},),
    "ListNamespaces": ({},),
    "DescribeNamespace": ({"namespace": NAMESPACE}, {}),
}
"""Fields of each method's request."""
