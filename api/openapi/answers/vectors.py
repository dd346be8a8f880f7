"""Answers of the data plane about records and namespaces."""

from typing import Any

from msgspec import UNSET, UnsetType, field

from api.openapi.answers.shape import AnswerShape, Pagination
from core.indexes import VectorType
from core.metric import Metric
from ingest.bodies import NamespaceSchemaBody


class Usage(AnswerShape, rename="camel"):
    read_units: int


class UpsertAnswer(AnswerShape, rename="camel"):
    upserted_count: int


class SparseShown(AnswerShape):
    """`indices` ascending, as many as `values`."""

    indices: list[int]
    values: list[float]


class ShownVector(AnswerShape, rename="camel"):
    """A record; `values` is empty where there are none."""

    id: str
    values: list[float]
    sparse_values: SparseShown | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET


class QueryMatch(ShownVector, kw_only=True, rename="camel"):
    """A found record with its score; `values` is empty where they were not asked for."""

    score: float


class QueryExplained(AnswerShape):
    cost: dict[str, Any]


class QueryAnswer(AnswerShape):
    """Matches, best first. `firndb` is there when x-firndb-explain was."""

    matches: list[QueryMatch]
    namespace: str
    usage: Usage
    firndb: QueryExplained | UnsetType = UNSET


class FetchAnswer(AnswerShape):
    """Records by id; ids that do not exist are left out."""

    vectors: dict[str, ShownVector]
    namespace: str
    usage: Usage


class FetchPageAnswer(AnswerShape):
    """Records by id, in ascending order; `pagination` is not there on the last page."""

    vectors: dict[str, ShownVector]
    namespace: str
    usage: Usage
    pagination: Pagination | UnsetType = UNSET


class UpdateAnswer(AnswerShape, rename="camel"):
    """`matchedRecords` is there after an update by filter: how many matched just before it."""

    matched_records: int | UnsetType = UNSET


class ListedId(AnswerShape):
    id: str


class ListAnswer(AnswerShape):
    """A page of ids in ascending order; `pagination` is not there on the last one."""

    vectors: list[ListedId]
    namespace: str
    usage: Usage
    pagination: Pagination | UnsetType = UNSET


class CountedNamespace(AnswerShape, rename="camel"):
    vector_count: int


class StatsAnswer(AnswerShape, kw_only=True, rename="camel"):
    """Exact counts. `dimension` is there in dense indexes; two fields have two spellings."""

    namespaces: dict[str, CountedNamespace]
    index_fullness: float
    total_vector_count: int
    metric: Metric
    vector_type: VectorType
    memory_fullness: float
    storage_fullness: float
    memory_fullness_: float = field(name="memory_fullness")
    storage_fullness_: float = field(name="storage_fullness")
    dimension: int | UnsetType = UNSET


class IndexedFields(AnswerShape):
    fields: list[str]


class NamespaceShown(AnswerShape):
    """`schema` and `indexed_fields` are there if it was created with a schema."""

    name: str
    record_count: int
    size_bytes: int
    schema: NamespaceSchemaBody | UnsetType = UNSET
    indexed_fields: IndexedFields | UnsetType = UNSET


class NamespaceList(AnswerShape):
    """A page in ascending order of names; `total_count` counts all that match the prefix."""

    namespaces: list[NamespaceShown]
    total_count: int
    pagination: Pagination | UnsetType = UNSET
