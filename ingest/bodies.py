"""The data plane's request bodies as typed structs: Pinecone's camelCase fields on the wire, ours
inside.

The same structs describe the entries of the log (`ingest.wire`). What they say is checked in
`ingest.validate`. Wherever a list of numbers stands, bytes may stand as well: little-endian float32
(uint32 for indices), which is the canonical form in msgpack; in JSON they are base64.
"""

import re
import struct
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, TypeVar

import msgspec

from core.errors import InvalidRequest, TooLarge
from core.limits import REQUEST_BYTES_MAX, SPARSE_INDEX_MAX
from core.turns import step_aside_in_thread

# Of records in JSON: half a millisecond's work at a few hundred dimensions.
RECORDS_AT_ONCE = 16

SparseIndex = Annotated[int, msgspec.Meta(ge=0, le=SPARSE_INDEX_MAX)]

_Body = TypeVar("_Body", bound=msgspec.Struct)
_Decoded = TypeVar("_Decoded")

_WANTS_INTEGER = re.compile(r"Expected `int[^`]*`, got `float` - at `[^\[`]*`")


class SparseBody(msgspec.Struct, forbid_unknown_fields=True):
    """Sparse values: unique indices in any order, and as many values."""

    indices: bytes | list[SparseIndex]
    values: bytes | list[float]


class VectorBody(
    msgspec.Struct, kw_only=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True
):
    """One record of an upsert: dense `values`, `sparseValues` or both, as the index demands."""

    id: str
    values: bytes | list[float] | None = None
    sparse_values: SparseBody | None = None
    metadata: dict[str, Any] | None = None


class UpsertBody(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    """Writes whole records; what was there under their ids is replaced."""

    vectors: list[VectorBody]
    namespace: str | None = None


class Update(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    """Changes one record by `id`, or the metadata of all that match `filter`."""

    id: str | None = None
    filter: dict[str, Any] | None = None
    values: bytes | list[float] | None = None
    sparse_values: SparseBody | None = None
    set_metadata: dict[str, Any] | None = None
    namespace: str | None = None


class UpdateBody(Update, kw_only=True, rename="camel"):
    """`dryRun` counts what a filter matches and writes nothing; an update by id ignores it."""

    dry_run: bool = False


class DeleteBody(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    """Deletes by `ids`, by `filter`, or everything in the namespace."""

    ids: list[str] | None = None
    delete_all: bool = False
    filter: dict[str, Any] | None = None
    namespace: str | None = None


class QueryBody(msgspec.Struct, kw_only=True, rename="camel"):
    """Searches by `vector`, by the vector of the record `id`, or by `sparseVector`."""

    top_k: int
    vector: bytes | list[float] | None = None
    id: str | None = None
    sparse_vector: SparseBody | None = None
    filter: dict[str, Any] | None = None
    include_values: bool = False
    include_metadata: bool = False
    namespace: str | None = None
    scan_factor: float | None = None
    max_candidates: int | None = None


class FetchByMetadataBody(msgspec.Struct, kw_only=True, rename="camel"):
    """The records that `filter` matches, in pages."""

    filter: dict[str, Any] | None = None
    limit: int | None = None
    pagination_token: str | None = None
    namespace: str | None = None


class StatsBody(msgspec.Struct):
    """Only an index on pods takes a filter."""

    filter: dict[str, Any] | None = None


class DeclaredField(msgspec.Struct, forbid_unknown_fields=True):
    """A metadata field of a namespace's schema; `filterable` must be true."""

    filterable: bool = False


class NamespaceSchemaBody(msgspec.Struct, forbid_unknown_fields=True):
    """Fields by name. It is kept and shown; filters may name any field, declared or not."""

    fields: dict[str, DeclaredField]


class CreateNamespaceBody(msgspec.Struct):
    """`schema` says which metadata fields shall be filterable, which all of them are."""

    name: str
    schema: NamespaceSchemaBody | None = None


class _RawUpsert(msgspec.Struct, kw_only=True):
    """An `UpsertBody` whose vectors are not decoded yet."""

    vectors: list[msgspec.Raw]
    namespace: str | None = None


def decode_upsert(body: bytes, bytes_max: int = REQUEST_BYTES_MAX) -> UpsertBody:
    """As `decode_body`, for big bodies in a thread: record by record, so that others may go first
    in between. The values come as bytes, a quarter of the memory of Python's floats.
    """
    check_size(len(body), bytes_max)
    vectors: list[VectorBody] = []
    try:
        raw = _raw_upsert_decoder.decode(body)
        for number, part in enumerate(raw.vectors):
            if number % RECORDS_AT_ONCE == 0:
                step_aside_in_thread()
            vector = _vector_decoder.decode(part)
            if isinstance(vector.values, list):
                vector.values = struct.pack(f"<{len(vector.values)}f", *vector.values)
            vectors.append(vector)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError):
        return decode_body(body, UpsertBody, bytes_max)  # whose errors name the place
    return UpsertBody(vectors=vectors, namespace=raw.namespace)


def decode_body(body: bytes, kind: type[_Body], bytes_max: int = REQUEST_BYTES_MAX) -> _Body:
    """A JSON body as `kind`. `TooLarge` beyond `bytes_max`; `InvalidRequest` naming the place."""
    check_size(len(body), bytes_max)
    decoder: msgspec.json.Decoder[_Body] = _json_decoder(kind)
    try:
        return with_whole_floats(decoder.decode, body)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"Invalid request body{place(error)}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}.") from error


def with_whole_floats(decode: Callable[[bytes], _Decoded], body: bytes) -> _Decoded:
    """What `decode` makes of a JSON body, also where an integer is written as `5.0`: JSON has one
    kind of numbers, and encoders of some languages write whole ones so. Costs nothing without.

    Not in lists: a large one of wrong numbers would be read twice.
    """
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        if not _WANTS_INTEGER.fullmatch(str(error)):
            raise
        return decode(msgspec.json.encode(_with_integers(msgspec.json.decode(body))))


def _with_integers(value: Any) -> Any:
    match value:
        case float() if value.is_integer() and abs(value) < 1 << 53:
            return int(value)
        case dict():
            return {name: _with_integers(element) for name, element in value.items()}
    return value


def check_size(size: int, bytes_max: int) -> None:
    """`TooLarge` for a body of so many bytes."""
    if size > bytes_max:
        raise TooLarge(
            f"The request is {size} bytes, which exceeds the limit of {bytes_max} bytes; "
            "send fewer or smaller records at once."
        )


def place(error: msgspec.ValidationError) -> str:
    """msgspec's own message turned round: ` at vectors[0].id: expected `str`, got `int`.`"""
    found = re.fullmatch(r"(?s)(.*) - at `\$\.?(.*)`", str(error))
    what, where = (found[1], f" at {found[2]}") if found and found[2] else (str(error), "")
    return f"{where}: {what[:1].lower()}{what[1:]}."


_raw_upsert_decoder = msgspec.json.Decoder(_RawUpsert)
_vector_decoder = msgspec.json.Decoder(VectorBody)


@cache
def _json_decoder(kind: type[Any]) -> "msgspec.json.Decoder[Any]":
    return msgspec.json.Decoder(kind)
