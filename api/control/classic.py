"""The index resource up to API 2026-04: `dimension`, `metric`, `vector_type`, `spec`.

Inside, `spec` of the catalog is kept in the newer words: `deployment`, `read_capacity`, `fields`.
"""

from typing import Any

from msgspec import Struct

from api.control import deployment, rules
from api.control.body import decode
from api.control.change import IndexChange
from api.control.embed import EmbedChange, shown_classic
from api.errors import Unprocessable
from core.errors import InvalidRequest
from core.indexes import VectorType
from core.metric import Metric
from infra.catalog.model import SOURCE_COLLECTION, CatalogIndex, NewIndex, Spec


class _Filterable(Struct):
    filterable: bool = True


class MetadataSchema(Struct):
    fields: dict[str, _Filterable]


class _Serverless(Struct):
    cloud: str
    region: str
    source_collection: str | None = None
    read_capacity: deployment.ReadCapacity | None = None
    schema: MetadataSchema | None = None


class _Pod(Struct):
    environment: str
    pod_type: str = "p1.x1"
    replicas: int | None = None
    shards: int | None = None
    pods: int | None = None
    metadata_config: deployment.MetadataConfig | None = None
    source_collection: str | None = None


class _Byoc(Struct):
    environment: str
    read_capacity: deployment.ReadCapacity | None = None
    schema: MetadataSchema | None = None


class _Spec(Struct):
    serverless: _Serverless | None = None
    pod: _Pod | None = None
    byoc: _Byoc | None = None


class ClassicCreate(Struct):
    name: str
    spec: _Spec
    dimension: int | None = None
    metric: str | None = None
    vector_type: str | None = None
    deletion_protection: str | None = None
    tags: dict[str, str] | None = None


class _ServerlessChange(Struct):
    read_capacity: deployment.ReadCapacity | None = None


class _SpecChange(Struct):
    pod: deployment.PodChange | None = None
    serverless: _ServerlessChange | None = None
    byoc: _ServerlessChange | None = None


class ClassicConfigure(Struct):
    spec: _SpecChange | None = None
    deletion_protection: str | None = None
    tags: dict[str, str] | None = None
    embed: EmbedChange | None = None


def parse_create(body: bytes) -> NewIndex:
    """An index to create. `InvalidRequest`, or `Unprocessable` for a wrong shape."""
    wanted = decode(body, ClassicCreate)
    vector_type = rules.parse_vector_type(wanted.vector_type or "dense")
    if vector_type is VectorType.SPARSE:
        metric = rules.parse_metric(wanted.metric or "dotproduct")
        if metric is not Metric.DOTPRODUCT:
            raise InvalidRequest("A sparse index must have the metric dotproduct")
        if wanted.dimension is not None:
            raise InvalidRequest("A sparse index must not have a dimension")
        dimension = None
    else:
        metric = rules.parse_metric(wanted.metric or "cosine")
        dimension = rules.check_dimension(wanted.dimension)
    return NewIndex(
        name=rules.check_name(wanted.name),
        dimension=dimension,
        metric=metric,
        vector_type=vector_type,
        spec=_kept(wanted.spec),
        deletion_protection=rules.parse_protection(wanted.deletion_protection or "disabled"),
        tags=rules.check_tags(wanted.tags or {}),
    )


def parse_configure(body: bytes) -> IndexChange:
    wanted = decode(body, ClassicConfigure)
    spec = wanted.spec or _SpecChange()
    capacity = spec.serverless or spec.byoc or _ServerlessChange()
    protection = wanted.deletion_protection
    return IndexChange(
        deletion_protection=None if protection is None else rules.parse_protection(protection),
        tags=wanted.tags,
        scaling=deployment.scaling(spec.pod),
        read_capacity=deployment.capacity(capacity.read_capacity),
        embed=wanted.embed,
    )


def show(index: CatalogIndex, host: str) -> dict[str, Any]:
    """The index resource."""
    shown: dict[str, Any] = {
        "name": index.info.name,
        "metric": index.info.metric.value,
        "host": host,
        "status": rules.shown_status(index.info),
        "vector_type": index.info.vector_type.value,
        "deletion_protection": rules.shown_protection(index.deletion_protection),
        "spec": _shown_spec(index.spec),
        "tags": index.tags or None,
    }
    if index.info.dimension is not None:
        shown["dimension"] = index.info.dimension
    embed = shown_classic(index)
    if embed is not None:
        shown["embed"] = embed
    return shown


def _kept(spec: _Spec) -> Spec:
    given = [part for part in (spec.serverless, spec.pod, spec.byoc) if part is not None]
    if len(given) != 1:
        raise Unprocessable("spec must have exactly one of serverless, pod and byoc")
    part = given[0]
    match part:
        case _Serverless():
            kept: Spec = {"deployment": deployment.managed(part.cloud, part.region)}
            if part.source_collection is not None:
                kept[SOURCE_COLLECTION] = part.source_collection
        case _Byoc():
            kept = {"deployment": deployment.byoc(part.environment)}
        case _Pod():
            return _kept_pod(part)
    kept |= deployment.new_capacity(part.read_capacity)
    if part.schema is not None:
        deployment.check_fields(list(part.schema.fields))
        kept["fields"] = {k: {"filterable": v.filterable} for k, v in part.schema.fields.items()}
    return kept


def _kept_pod(pod: _Pod) -> Spec:
    replicas = 1 if pod.replicas is None else pod.replicas
    shards = 1 if pod.shards is None else pod.shards
    if pod.pods not in (None, 1, replicas * shards):
        raise InvalidRequest(f"pods must be replicas x shards, which is {replicas * shards}")
    kept: Spec = {"deployment": deployment.pod(pod.environment, pod.pod_type, replicas, shards)}
    if pod.metadata_config is not None:
        kept["metadata_config"] = deployment.metadata_config(pod.metadata_config)
    if pod.source_collection is not None:
        kept[SOURCE_COLLECTION] = pod.source_collection
    return kept


def _shown_spec(spec: Spec) -> dict[str, Any]:
    shown = {k: v for k, v in spec["deployment"].items() if k != "deployment_type"}
    if SOURCE_COLLECTION in spec:
        shown[SOURCE_COLLECTION] = spec[SOURCE_COLLECTION]
    match spec["deployment"]["deployment_type"]:
        case "pod":
            shown["pods"] = shown["replicas"] * shown["shards"]
            if "metadata_config" in spec:
                shown["metadata_config"] = spec["metadata_config"]
            return {"pod": shown}
        case "byoc":
            kind = "byoc"
        case _:
            kind = "serverless"
            shown.pop("environment", None)
    if "read_capacity" in spec:
        shown["read_capacity"] = deployment.shown_capacity(spec["read_capacity"])
    metadata = shown_metadata(spec)
    if metadata is not None:
        shown["schema"] = metadata
    return {kind: shown}


def shown_metadata(spec: Spec) -> dict[str, Any] | None:
    """The declared metadata fields, None if there are none."""
    fields = {k: v for k, v in spec.get("fields", {}).items() if "type" not in v}
    return {"fields": fields} if fields else None
