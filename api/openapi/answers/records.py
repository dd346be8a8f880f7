"""Answers about texts: found records, embeddings, models."""

from typing import Any, Literal

from msgspec import UNSET, UnsetType

from api.openapi.answers.shape import AnswerShape


class SearchUsage(AnswerShape):
    """`embed_total_tokens` is there when a text was embedded."""

    read_units: int
    embed_total_tokens: int | UnsetType = UNSET


class Hit(AnswerShape):
    """`fields`: of the record, those that were asked for."""

    _id: str
    _score: float
    fields: dict[str, Any]


class Hits(AnswerShape):
    hits: list[Hit]


class SearchRecordsAnswer(AnswerShape):
    """Hits, best first."""

    result: Hits
    usage: SearchUsage


class DenseEmbedding(AnswerShape):
    values: list[float]
    vector_type: Literal["dense"]


class EmbedUsage(AnswerShape):
    total_tokens: int


class EmbedAnswer(AnswerShape):
    """One embedding for each input, in order."""

    model: str
    vector_type: Literal["dense"]
    data: list[DenseEmbedding]
    usage: EmbedUsage


class ModelParameter(AnswerShape):
    parameter: str
    type: str
    value_type: str
    required: bool
    allowed_values: list[str]
    default: str


class ModelShown(AnswerShape):
    """An embedding model that whoever runs this server has configured."""

    model: str
    short_description: str
    type: Literal["embed"]
    vector_type: Literal["dense"]
    default_dimension: int
    supported_dimensions: list[int]
    modality: Literal["text"]
    provider_name: Literal["self-hosted"]
    max_batch_size: int
    supported_metrics: list[str]
    supported_parameters: list[ModelParameter]


class ModelList(AnswerShape):
    models: list[ModelShown]
