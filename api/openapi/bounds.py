"""What the limits mean for the schemas: by component and field, keywords that msgspec cannot know
because the limits are checked elsewhere, with texts of their own.
"""

from typing import Any

from api.control import rules
from api.control.embed import FIELD_CHARS_MAX
from api.openapi.operation import JsonSchema
from core import limits
from core.embedding import InputType
from core.indexes import VectorType
from core.metric import Metric

ASCII = "^[\\x01-\\x7f]*$"
ID: JsonSchema = {"minLength": 1, "maxLength": limits.ID_CHARS_MAX, "pattern": ASCII}
IDS: JsonSchema = {"minItems": 1, "maxItems": limits.DELETE_IDS_MAX}
NAMESPACE: JsonSchema = {"maxLength": limits.NAMESPACE_CHARS_MAX, "pattern": ASCII}
PREFIX: JsonSchema = {"maxLength": limits.ID_CHARS_MAX, "pattern": ASCII}
TOP_K: JsonSchema = {"minimum": 1, "maximum": limits.TOP_K_MAX}
INDEX_NAME: JsonSchema = {
    "minLength": 1,
    "maxLength": rules.NAME_CHARS_MAX,
    "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
}
DIMENSION: JsonSchema = {"minimum": 1, "maximum": limits.DIMENSION_MAX}
METRIC: JsonSchema = {"enum": [metric.value for metric in Metric]}
PROTECTION: JsonSchema = {"enum": ["enabled", "disabled"]}
TAGS: JsonSchema = {
    "propertyNames": {"pattern": f"^[A-Za-z0-9_-]{{1,{rules.TAG_KEY_CHARS_MAX}}}$"},
    "additionalProperties": {
        "type": "string",
        "maxLength": rules.TAG_VALUE_CHARS_MAX,
        "pattern": "^[ -~]*$",
    },
}
PARAMETERS: JsonSchema = {
    "properties": {"input_type": {"enum": [kind.value for kind in InputType]}}
}
CHANGED: dict[str, JsonSchema] = {"deletion_protection": PROTECTION, "tags": TAGS}

BOUNDS: dict[str, dict[str, JsonSchema]] = {
    "ClassicCreate": {
        "name": INDEX_NAME,
        "dimension": DIMENSION,
        "metric": METRIC,
        "vector_type": {"enum": [kind.value for kind in VectorType]},
        **CHANGED,
    },
    "ClassicConfigure": CHANGED,
    "TypedCreate": {"name": INDEX_NAME, **CHANGED},
    "TypedConfigure": CHANGED,
    "CreateForModel": {"name": INDEX_NAME, **CHANGED},
    "Embed": {
        "dimension": DIMENSION,
        "metric": METRIC,
        "read_parameters": PARAMETERS,
        "write_parameters": PARAMETERS,
    },
    "EmbedChange": {"read_parameters": PARAMETERS, "write_parameters": PARAMETERS},
    "FieldMap": {"text": {"minLength": 1, "maxLength": FIELD_CHARS_MAX}},
    "EmbedBody": {
        "inputs": {"minItems": 1, "maxItems": limits.EMBED_INPUTS_MAX},
        "parameters": PARAMETERS,
    },
    "UpsertBody": {
        "vectors": {"minItems": 1, "maxItems": limits.UPSERT_RECORDS_MAX},
        "namespace": NAMESPACE,
    },
    "VectorBody": {"id": ID},
    "UpdateBody": {"id": ID, "namespace": NAMESPACE},
    "DeleteBody": {"ids": IDS, "namespace": NAMESPACE},
    "QueryBody": {"topK": TOP_K, "id": ID, "namespace": NAMESPACE},
    "FetchByMetadataBody": {
        "limit": {"minimum": 1, "maximum": limits.FETCH_BY_METADATA_LIMIT_MAX},
        "namespace": NAMESPACE,
    },
    "CreateNamespaceBody": {"name": {"minLength": 1, **NAMESPACE}},
    "RecordQuery": {"top_k": TOP_K, "id": ID},
    "SearchRecordsBody": {"fields": {"maxItems": limits.SEARCH_FIELDS_MAX}},
    "UpsertRecord": {"_id": ID, "id": ID},
}


def bound(schemas: dict[str, JsonSchema]) -> None:
    """Adds them to the components, in place. `KeyError` for one that names nothing."""
    for component, fields in BOUNDS.items():
        properties = schemas[component]["properties"]
        for name, keywords in fields.items():
            _typed(properties[name]).update(keywords)


def _typed(schema: JsonSchema) -> Any:
    """Of `T or null` the part of T; of numbers or base64 the list."""
    choices = schema.get("anyOf", [schema])
    return next(c for c in choices if c.get("type") not in ("null", None))
