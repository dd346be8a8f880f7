"""The index resource since API 2026-07: `schema.fields`, `deployment`, `read_capacity`.

Clients of the vectors API call its fields `_values` (dense) and `_sparse_values` (sparse). One of
each kind may have a name of its own and is shown under it; the vectors API serves that index too.
Fields that hold texts make a document index, which this server has not.
"""

import secrets
from typing import Any

import msgspec
from msgspec import Struct

from api.control import deployment, rules
from api.control.body import decode
from api.control.change import IndexChange
from api.control.deployment import PodChange, ReadCapacity
from api.control.embed import EmbedChange, FieldChange, shown_field
from api.errors import NotSupported, Unprocessable
from core.errors import InvalidRequest
from core.indexes import VectorType
from core.metric import Metric
from infra.catalog.model import SOURCE_BACKUP, SOURCE_COLLECTION, CatalogIndex, NewIndex, Spec

DENSE_FIELD = "_values"
SPARSE_FIELD = "_sparse_values"

_SEARCHED = ("full_text_search", "embed", "sparse_embed")
_VECTOR_TYPES = ("dense_vector", "sparse_vector")
FIELD_CHARS_MAX = 64
_PLAIN_TYPES = ("string_list", "boolean", "integer", "float")


class _Managed(Struct, tag_field="deployment_type", tag="managed"):
    cloud: str = "aws"
    region: str = "us-east-1"
    environment: str | None = None


class _Pod(Struct, tag_field="deployment_type", tag="pod"):
    environment: str
    pod_type: str = "p1.x1"
    replicas: int = 1
    shards: int = 1


class _Byoc(Struct, tag_field="deployment_type", tag="byoc"):
    environment: str


class _Schema(Struct):
    fields: dict[str, dict[str, Any]]


class TypedCreate(Struct):
    schema: _Schema
    name: str | None = None
    deployment: _Managed | _Pod | _Byoc | None = None
    read_capacity: ReadCapacity | None = None
    deletion_protection: str | None = None
    tags: dict[str, str] | None = None
    cmek_id: str | None = None
    source_collection: str | None = None
    source_backup_id: str | None = None


class _Dense(Struct):
    dimension: int
    metric: str = "cosine"
    description: str | None = None


class TypedConfigure(Struct):
    deployment: PodChange | None = None
    schema: _Schema | None = None
    read_capacity: ReadCapacity | None = None
    deletion_protection: str | None = None
    tags: dict[str, str] | None = None


def parse_create(body: bytes) -> NewIndex:
    """An index to create; one without a name is given one. Errors as in `classic`."""
    wanted = decode(body, TypedCreate)
    if wanted.cmek_id is not None:
        raise NotSupported("This server does not encrypt with customers' keys: leave out cmek_id")
    if wanted.source_collection is not None or wanted.source_backup_id is not None:
        raise InvalidRequest(
            "Creating an index from collection or backup is not yet supported here: use "
            "POST /backups/{backup_id}/create-index, or an API version before 2026-07"
        )
    fields = wanted.schema.fields
    _check_fields(fields)
    dense_name, sparse_name = _vector_fields(fields)
    if dense_name is not None:
        dense = _dense_of(dense_name, fields[dense_name])
        dimension: int | None = rules.check_dimension(dense.dimension)
        metric, vector_type = rules.parse_metric(dense.metric), VectorType.DENSE
        if sparse_name is not None and metric is not Metric.DOTPRODUCT:
            raise InvalidRequest("Dense and sparse values in one index need the metric dotproduct")
    else:
        dimension, metric, vector_type = None, Metric.DOTPRODUCT, VectorType.SPARSE
    return NewIndex(
        name=rules.check_name(wanted.name or f"index-{secrets.token_hex(5)}"),
        dimension=dimension,
        metric=metric,
        vector_type=vector_type,
        spec=_kept(wanted),
        deletion_protection=rules.parse_protection(wanted.deletion_protection or "disabled"),
        tags=rules.check_tags(wanted.tags or {}),
    )


def parse_configure(body: bytes) -> IndexChange:
    wanted = decode(body, TypedConfigure)
    protection = wanted.deletion_protection
    return IndexChange(
        deletion_protection=None if protection is None else rules.parse_protection(protection),
        tags=wanted.tags,
        scaling=deployment.scaling(wanted.deployment),
        read_capacity=deployment.capacity(wanted.read_capacity),
        embed=None if wanted.schema is None else _embed_change(wanted.schema.fields),
    )


def show(index: CatalogIndex, host: str) -> dict[str, Any]:
    """The index resource."""
    sources = {
        key: index.spec[key] for key in (SOURCE_COLLECTION, SOURCE_BACKUP) if key in index.spec
    }
    shown = {
        "name": index.info.name,
        "host": host,
        "status": rules.shown_status(index.info),
        "schema": {"fields": shown_fields(index.info.dimension, index.info.metric, index.spec)},
        "deployment": index.spec["deployment"],
        "deletion_protection": rules.shown_protection(index.deletion_protection),
        "tags": index.tags or None,
        **sources,
    }
    if index.spec["deployment"]["deployment_type"] != "pod":
        capacity = index.spec.get("read_capacity", deployment.ON_DEMAND)
        shown["read_capacity"] = deployment.shown_capacity(capacity)
    return shown


def _check_fields(fields: dict[str, dict[str, Any]]) -> None:
    deployment.check_fields(list(fields))
    for name, field in fields.items():
        kind = field.get("type")
        if name in (DENSE_FIELD, SPARSE_FIELD):
            wanted = "dense_vector" if name == DENSE_FIELD else "sparse_vector"
            if kind != wanted:
                raise Unprocessable(f"The schema field {name} must have the type {wanted}")
        elif kind in _VECTOR_TYPES:
            if not name or name.startswith(("_", "$")) or len(name) > FIELD_CHARS_MAX:
                raise InvalidRequest(
                    f"A vector field's name has 1 to {FIELD_CHARS_MAX} characters and does not "
                    f"start with _ or $, but one is {name[: FIELD_CHARS_MAX + 1]!r}"
                )
        elif kind is None and "filterable" in field:
            continue  # metadata as older clients declare it: filterable whether declared or not
        elif kind == "string" and not any(word in field for word in (*_SEARCHED, "filterable")):
            raise Unprocessable(
                f"The string field {name} needs one of {', '.join(_SEARCHED)} or filterable"
            )
        elif kind in _PLAIN_TYPES or (kind == "string" and not any(w in field for w in _SEARCHED)):
            raise InvalidRequest(
                f"A schema only accepts fields used for search, which {name} is not: metadata is "
                "indexed without being declared"
            )
        elif kind in ("semantic_text", "string"):
            raise InvalidRequest(
                f"The field {name} would make a document index, which this server does not have: "
                f"declare {DENSE_FIELD} or {SPARSE_FIELD} and use the vectors API"
            )
        else:
            raise Unprocessable(f"The schema field {name} has the unknown type {kind!r}")


def _embed_change(fields: dict[str, dict[str, Any]]) -> EmbedChange:
    """The one part of a schema that can change: how an embedded field is embedded."""
    if len(fields) != 1 or any(f.get("type") != "semantic_text" for f in fields.values()):
        raise InvalidRequest(
            "The schema of an index cannot change: metadata is indexed without being declared"
        )
    ((name, field),) = fields.items()
    try:
        return msgspec.convert({**field, "field_map": {"text": name}}, FieldChange)
    except msgspec.ValidationError as error:
        raise Unprocessable(f"The schema field {name} is wrong: {error}") from None


def _vector_fields(fields: dict[str, dict[str, Any]]) -> tuple[str | None, str | None]:
    """The names of the dense and of the sparse field, at least one of them."""
    found: list[str | None] = []
    for kind in _VECTOR_TYPES:
        names = [name for name, field in fields.items() if field.get("type") == kind]
        if len(names) > 1:
            raise InvalidRequest(f"An index has one {kind} field at most, not {', '.join(names)}")
        found.append(names[0] if names else None)
    dense, sparse = found
    if dense is None and sparse is None:
        raise InvalidRequest(f"The schema needs a field {DENSE_FIELD} or {SPARSE_FIELD}")
    return dense, sparse


def _dense_of(name: str, field: dict[str, Any]) -> _Dense:
    try:
        return msgspec.convert(field, _Dense)
    except msgspec.ValidationError as error:
        raise Unprocessable(f"The schema field {name} is wrong: {error}") from None


def _kept(wanted: TypedCreate) -> Spec:
    match wanted.deployment or _Managed():
        case _Managed() as given:
            where = deployment.managed(given.cloud, given.region, given.environment)
        case _Pod() as given:
            where = deployment.pod(given.environment, given.pod_type, given.replicas, given.shards)
        case _Byoc() as given:
            where = deployment.byoc(given.environment)
    kept: Spec = {"deployment": where}
    if wanted.read_capacity is not None and where["deployment_type"] == "pod":
        raise InvalidRequest("An index on pods has no read_capacity")
    kept |= deployment.new_capacity(wanted.read_capacity)
    dense, sparse = _vector_fields(wanted.schema.fields)
    searched = sparse if dense is None else dense
    declared = {
        name: _kept_field(field) for name, field in wanted.schema.fields.items() if name != searched
    }
    if declared:
        kept["fields"] = declared
    if searched not in (DENSE_FIELD, SPARSE_FIELD):
        kept["vector_field"] = searched
    return kept


def _kept_field(field: dict[str, Any]) -> dict[str, Any]:
    """Of a sparse vector field beside a dense one its type, of metadata whether to filter by it."""
    if field.get("type") is not None:
        return {"type": field["type"]}
    return {"filterable": bool(field["filterable"])}


def shown_fields(dimension: int | None, metric: Metric, spec: Spec) -> dict[str, Any]:
    """The schema's fields. dimension: None for a sparse index."""
    embedded = shown_field(spec, metric)
    if embedded is not None:
        return {**embedded, **spec.get("fields", {})}
    if dimension is not None:
        name = spec.get("vector_field", DENSE_FIELD)
        field: dict[str, Any] = {
            "type": "dense_vector",
            "dimension": dimension,
            "metric": metric.value,
        }
    else:
        name, field = spec.get("vector_field", SPARSE_FIELD), {"type": "sparse_vector"}
    return {name: field, **spec.get("fields", {})}
