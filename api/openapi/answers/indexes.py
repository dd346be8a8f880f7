"""The index resource in both of its shapes."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, UnsetType

from api.openapi.answers.shape import AnswerShape, items_in
from api.openapi.operation import Versions
from core.indexes import IndexState, VectorType
from core.metric import Metric

Protection = Literal["enabled", "disabled"]


class IndexStatus(AnswerShape):
    ready: bool
    state: IndexState


class ReadCapacityStatus(AnswerShape):
    state: str
    current_shards: int | UnsetType = UNSET
    current_replicas: int | UnsetType = UNSET


class ShownReadCapacity(AnswerShape):
    """Kept and shown; this server does not scale by it."""

    mode: Literal["OnDemand", "Dedicated"]
    status: ReadCapacityStatus
    dedicated: dict[str, Any] | UnsetType = UNSET


class ShownServerless(AnswerShape):
    cloud: str
    region: str
    read_capacity: ShownReadCapacity | UnsetType = UNSET
    source_collection: str | UnsetType = UNSET
    schema: dict[str, Any] | UnsetType = UNSET


class ShownPod(AnswerShape):
    environment: str
    pod_type: str
    replicas: int
    shards: int
    pods: int
    metadata_config: dict[str, Any] | UnsetType = UNSET
    source_collection: str | UnsetType = UNSET


class ShownByoc(AnswerShape):
    environment: str
    read_capacity: ShownReadCapacity | UnsetType = UNSET
    schema: dict[str, Any] | UnsetType = UNSET


class ShownSpec(AnswerShape):
    """Exactly one of them."""

    serverless: ShownServerless | UnsetType = UNSET
    pod: ShownPod | UnsetType = UNSET
    byoc: ShownByoc | UnsetType = UNSET


class ShownEmbed(AnswerShape):
    """Which model embeds which field of the records: `field_map.text` names it."""

    model: str
    field_map: dict[str, str]
    metric: Metric
    dimension: int | None
    vector_type: VectorType
    read_parameters: dict[str, Any]
    write_parameters: dict[str, Any]


class ClassicIndex(AnswerShape):
    """An index up to API 2026-04. `dimension` is there in dense indexes."""

    name: str
    metric: Metric
    host: str
    status: IndexStatus
    vector_type: VectorType
    deletion_protection: Protection
    spec: ShownSpec
    tags: dict[str, str] | None
    dimension: int | UnsetType = UNSET
    embed: ShownEmbed | UnsetType = UNSET


class TypedSchemaShown(AnswerShape):
    """Fields by name, each with its `type`; those without one are declared metadata."""

    fields: dict[str, dict[str, Any]]


class TypedIndex(AnswerShape):
    """An index since API 2026-07. `deployment` tells its kind in `deployment_type`."""

    name: str
    host: str
    status: IndexStatus
    schema: TypedSchemaShown
    deployment: dict[str, Any]
    deletion_protection: Protection
    tags: dict[str, str] | None
    read_capacity: ShownReadCapacity | UnsetType = UNSET
    source_collection: str | UnsetType = UNSET
    source_backup_id: str | UnsetType = UNSET


INDEX = Versions(
    "Index",
    (ClassicIndex, TypedIndex),
    "An index, in the shape that the client's API version knows.",
)


class IndexList(AnswerShape):
    indexes: Annotated[list[Any], items_in("Index")]
