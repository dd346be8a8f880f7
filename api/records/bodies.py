"""Bodies of the records API: lines of JSON for writing, one struct for searching."""

from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from core.errors import InvalidRequest
from core.limits import RECORDS_UPSERT_MAX, SEARCH_FIELDS_MAX
from core.records import Metadata
from ingest.bodies import QueryBody, SparseBody
from ingest.vectors import checked_id, checked_metadata, shown

ALL_FIELDS = "*"

T = TypeVar("T")


class TextInput(msgspec.Struct):
    """One text to embed."""

    text: str


class RecordVector(msgspec.Struct):
    """`values` of a dense index, `sparse_values` with their `sparse_indices` of a sparse one, both
    where an index takes both.
    """

    values: list[float] | None = None
    sparse_values: list[float] | None = None
    sparse_indices: list[int] | None = None


class RecordQuery(msgspec.Struct):
    """Exactly one of `inputs` (the text of an index with a model), `vector` and `id`."""

    top_k: int
    inputs: TextInput | None = None
    vector: RecordVector | None = None
    id: str | None = None
    filter: dict[str, Any] | None = None
    match_terms: dict[str, Any] | None = None


class SearchRecordsBody(msgspec.Struct):
    """`fields`: what to return of each record; absent or `["*"]`: all. `match_terms` of the query
    and `rerank` are refused: this server has no models for them.
    """

    query: RecordQuery
    fields: list[str] | None = None
    rerank: dict[str, Any] | None = None


class UpsertRecord(msgspec.Struct, rename={"record_id": "_id"}):
    """One record: `_id` or `id`, the text in the field that the index embeds, and any other fields,
    which are kept as its metadata.
    """

    record_id: str | msgspec.UnsetType = msgspec.UNSET
    id: str | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class TextRecord:
    """A record to be embedded: `metadata` holds all of its fields, the text among them."""

    id: str
    text: str
    metadata: Metadata


def parse_records(body: bytes, text_field: str) -> list[TextRecord]:
    """One object a line, or one array of them. `InvalidRequest` names the record; nothing is
    embedded before all of them are right.
    """
    objects = _objects(body)
    if not 1 <= len(objects) <= RECORDS_UPSERT_MAX:
        raise InvalidRequest(
            f"An upsert must contain between 1 and {RECORDS_UPSERT_MAX} records, got "
            f"{len(objects)}: send them in several requests."
        )
    return [_record(number, given, text_field) for number, given in enumerate(objects, 1)]


def vector_query(query: RecordQuery, namespace: str, vector: list[float] | None) -> QueryBody:
    """The query of the vectors API that answers it; `vector`: of its embedded text."""
    sparse = None
    if query.vector is not None:
        vector = query.vector.values
        if query.vector.sparse_values is not None or query.vector.sparse_indices is not None:
            sparse = SparseBody(
                indices=query.vector.sparse_indices or [], values=query.vector.sparse_values or []
            )
    return QueryBody(
        top_k=query.top_k,
        vector=vector,
        id=query.id,
        sparse_vector=sparse,
        filter=query.filter,
        include_metadata=True,
        namespace=namespace,
    )


def check_search(body: SearchRecordsBody) -> None:
    """`InvalidRequest` for what no index can answer."""
    query = body.query
    given = [name for name in ("inputs", "vector", "id") if getattr(query, name) is not None]
    if len(given) != 1:
        raise InvalidRequest(
            f"A search gives exactly one of inputs, vector and id, not {' and '.join(given) or 0}."
        )
    if body.fields is not None and len(body.fields) > SEARCH_FIELDS_MAX:
        raise InvalidRequest(
            f"A search returns at most {SEARCH_FIELDS_MAX} named fields, got {len(body.fields)}."
        )


def _objects(body: bytes) -> list[dict[str, Any]]:
    """Every line, or the elements of the one array."""
    if body.lstrip()[:1] == b"[":
        return _decoded(body, list[dict[str, Any]], "The request body")
    lines = [line for line in body.splitlines() if line.strip()]
    if len(lines) > RECORDS_UPSERT_MAX:  # before each of many is decoded
        return [{}] * len(lines)
    return [
        _decoded(line, dict[str, Any], f"Line {number} of the request body")
        for number, line in enumerate(lines, 1)
    ]


def _record(number: int, given: dict[str, Any], text_field: str) -> TextRecord:
    fields = dict(given)
    alias = fields.pop("id", None)
    record_id = fields.pop("_id", alias)
    if not isinstance(record_id, str):
        raise InvalidRequest(f"Record {number} must have an _id that is a string.")
    checked_id(record_id)
    where = f"record '{record_id}'"
    text = fields.get(text_field)
    if not isinstance(text, str) or not text.strip():
        raise InvalidRequest(
            f"Every record needs a text in the field '{shown(text_field)}', which the index "
            f"embeds; {where} has none."
        )
    return TextRecord(record_id, text, checked_metadata(fields, where))


def _decoded(data: bytes, kind: type[T], where: str) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"{where} is not a record as JSON: {error}.") from error
