"""Integrated embedding of an index: which model embeds which field of its records.

The catalog's spec keeps it under `embed`, in the words of the classic shape.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import orjson

from api.control.rules import parse_metric
from core.embedding import EmbeddingModel, InputType
from core.errors import InvalidRequest
from core.indexes import IndexInfo, VectorType
from core.metric import Metric
from infra.catalog.model import CatalogIndex, Spec
from infra.embedding.embedders import Embedders

SPEC_KEY = "embed"
FIELD_CHARS_MAX = 256
# They are kept in the catalog and shown with every description of the index.
PARAMETERS_BYTES_MAX = 4096


class FieldMap(msgspec.Struct):
    """`text`: the name of the field of each record that is embedded."""

    text: str


class Embed(msgspec.Struct, kw_only=True):
    """What a new index embeds with. metric None: the model's own."""

    model: str
    field_map: FieldMap
    metric: str | None = None
    dimension: int | None = None
    read_parameters: dict[str, Any] | None = None
    write_parameters: dict[str, Any] | None = None


class EmbedChange(msgspec.Struct, kw_only=True):
    """What is left out stays; an index without a model needs model and field_map."""

    model: str | None = None
    field_map: FieldMap | None = None
    read_parameters: dict[str, Any] | None = None
    write_parameters: dict[str, Any] | None = None


class FieldChange(EmbedChange):
    """In the typed shape: `field_map` names the field that it is about, which must be there."""


@dataclass(frozen=True, slots=True)
class IndexEmbed:
    """text_field: of a record. Parameters are kept and shown; of them `input_type` counts."""

    model: str
    text_field: str
    read_parameters: dict[str, Any] = field(default_factory=dict)
    write_parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def query_type(self) -> InputType:
        return InputType(self.read_parameters.get("input_type", InputType.QUERY))

    @property
    def passage_type(self) -> InputType:
        return InputType(self.write_parameters.get("input_type", InputType.PASSAGE))

    def kept(self) -> dict[str, Any]:
        """As it is in the spec."""
        return {
            "model": self.model,
            "field_map": {"text": self.text_field},
            "read_parameters": self.read_parameters,
            "write_parameters": self.write_parameters,
        }


def embed_of(spec: Spec) -> IndexEmbed | None:
    """None: the index takes vectors only."""
    kept = spec.get(SPEC_KEY)
    if kept is None:
        return None
    return IndexEmbed(
        kept["model"], kept["field_map"]["text"], kept["read_parameters"], kept["write_parameters"]
    )


def new_embed(asked: Embed, model: EmbeddingModel) -> tuple[IndexEmbed, Metric]:
    """For an index to be created, with its metric. `InvalidRequest` for what the model cannot."""
    if asked.dimension not in (None, model.dimension):
        raise InvalidRequest(
            f"The model {model.name} has the dimension {model.dimension}, not {asked.dimension}"
        )
    embed = IndexEmbed(
        asked.model,
        _checked_field(asked.field_map.text),
        _checked_parameters(asked.read_parameters),
        _checked_parameters(asked.write_parameters),
    )
    metric = model.metric if asked.metric is None else parse_metric(asked.metric)
    return embed, metric


def changed_embed(index: CatalogIndex, change: EmbedChange, embedders: Embedders) -> IndexEmbed:
    """`InvalidRequest`, or `NotFound` for a model that is not configured."""
    before = embed_of(index.spec)
    field = None if change.field_map is None else change.field_map.text
    if isinstance(change, FieldChange) and (before is None or field != before.text_field):
        raise InvalidRequest(
            "The schema of an index cannot get other fields: an index has the field that it embeds "
            "from POST /indexes/create-for-model"
        )
    if before is None:
        if change.model is None or change.field_map is None:
            raise InvalidRequest(
                "An index without a model needs embed.model and embed.field_map to get one"
            )
        _check_fits(index.info, embedders.named(change.model).model)
        before = IndexEmbed(change.model, "")
    elif change.model not in (None, before.model):
        raise InvalidRequest(
            f"The model of an index cannot change: it is {before.model}. Create another index"
        )
    read, write = change.read_parameters, change.write_parameters
    return replace(
        before,
        text_field=before.text_field if field is None else _checked_field(field),
        read_parameters=before.read_parameters if read is None else _checked_parameters(read),
        write_parameters=before.write_parameters if write is None else _checked_parameters(write),
    )


def shown_classic(index: CatalogIndex) -> dict[str, Any] | None:
    """`embed` of the classic resource."""
    kept: dict[str, Any] | None = index.spec.get(SPEC_KEY)
    if kept is None:
        return None
    info = index.info
    return {
        **kept,
        "metric": info.metric.value,
        "dimension": info.dimension,
        "vector_type": info.vector_type.value,
    }


def shown_field(spec: Spec, metric: Metric) -> dict[str, Any] | None:
    """The embedded field by its name, as the schema of the typed resource has it."""
    embed = embed_of(spec)
    if embed is None:
        return None
    shown: dict[str, Any] = {
        "type": "semantic_text",
        "model": embed.model,
        "metric": metric.value,
        "read_parameters": embed.read_parameters,
        "write_parameters": embed.write_parameters,
    }
    return {embed.text_field: shown}


def _check_fits(info: IndexInfo, model: EmbeddingModel) -> None:
    if info.vector_type is not VectorType.DENSE or info.dimension != model.dimension:
        has = "sparse vectors" if info.dimension is None else f"dimension {info.dimension}"
        raise InvalidRequest(
            f"The model {model.name} makes dense vectors of dimension {model.dimension}; the index "
            f"has {has}"
        )


def _checked_field(name: str) -> str:
    if not 1 <= len(name) <= FIELD_CHARS_MAX or name.startswith("$") or name in ("_id", "id"):
        raise InvalidRequest(
            f"field_map.text must name a field of the records, of 1 to {FIELD_CHARS_MAX} "
            f"characters, which {name[: FIELD_CHARS_MAX + 1]!r} does not"
        )
    return name


def _checked_parameters(given: dict[str, Any] | None) -> dict[str, Any]:
    known = [kind.value for kind in InputType]
    if given and given.get("input_type", known[0]) not in known:
        raise InvalidRequest(f"input_type must be one of {', '.join(known)}")
    size = len(orjson.dumps(given or {}))
    if size > PARAMETERS_BYTES_MAX:
        raise InvalidRequest(
            f"The parameters of a model have at most {PARAMETERS_BYTES_MAX} bytes as JSON, these "
            f"have {size}"
        )
    return given or {}
