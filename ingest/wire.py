"""The log's wire format: entries of one namespace, as msgpack (canonical) or JSON (for people).

    {"v": 1, "index": "…", "namespace": "…", "entries": [{"op": "upsert", "vectors": […]}, …]}
    {"op": "upsert", "vectors": […]}    one entry alone is a record too

The fields of an entry are those of the HTTP body, plus `op` and an optional `requestId`. The header
`content-type` names the format. For people who produce: `docs/wal.md`; the JSON Schema is made by
`ingest.schema`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from core.errors import InvalidRequest
from core.indexes import canonical_namespace, is_staging
from core.limits import LOG_RECORD_BYTES_MAX
from core.log import Headers, LogRecord
from core.operations import Entry
from core.partition import wal_key
from ingest.bodies import place
from ingest.entries import VERSION, EntryBody, entry_body
from ingest.rejection import WHOLE_RECORD, Reason, Rejection
from ingest.vectors import checked_namespace, shown

CONTENT_TYPE = "content-type"
MSGPACK = "application/msgpack"
JSON = "application/json"

_HEADERS: Headers = ((CONTENT_TYPE, MSGPACK.encode()),)


class _Head(msgspec.Struct, kw_only=True):
    """Either shape, looked at without decoding the entries; the schema version comes first."""

    v: int = VERSION
    index: str | None = None
    namespace: str | None = None
    entries: list[msgspec.Raw] | None = None


class _RawEnvelope(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """An `Envelope` whose entries are decoded one by one, so that a bad one spoils no other."""

    v: int
    index: str
    namespace: str
    entries: list[msgspec.Raw]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A log record's parts, ready to be appended."""

    key: bytes
    value: bytes
    headers: Headers


@dataclass(frozen=True, slots=True)
class DecodedEntry:
    """An entry that has the right form; `value` is its own bytes, for a dead letter."""

    position: int
    body: EntryBody
    value: bytes


@dataclass(frozen=True, slots=True)
class Decoded:
    """A log record that has the right form. Entries keep their position among rejected ones."""

    index_id: str
    namespace: str
    entries: tuple[DecodedEntry | Rejection, ...]


_encoder = msgspec.msgpack.Encoder()


@dataclass(frozen=True, slots=True)
class _Format:
    """The three decoders of one content type; typed loosely, msgspec gives two classes for them."""

    head: Any
    envelope: Any
    entry: Any


_FORMATS = {
    MSGPACK: _Format(
        msgspec.msgpack.Decoder(_Head),
        msgspec.msgpack.Decoder(_RawEnvelope),
        msgspec.msgpack.Decoder(EntryBody),
    ),
    JSON: _Format(
        msgspec.json.Decoder(_Head),
        msgspec.json.Decoder(_RawEnvelope),
        msgspec.json.Decoder(EntryBody),
    ),
}


class _Wrong(Exception):
    """Never leaves this module."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def encode(index_id: str, namespace: str, entries: Sequence[Entry]) -> Encoded:
    """`namespace` is the canonical name."""
    return pack(index_id, namespace, [encode_entry(entry) for entry in entries])


def encode_entry(entry: Entry) -> bytes:
    """One entry as msgpack, so that its size is known before it shares a record with others."""
    return _encoder.encode(entry_body(entry.operation, entry.request_id))


def pack(index_id: str, namespace: str, entries: Sequence[bytes]) -> Encoded:
    """Encoded entries in one envelope."""
    envelope = {
        "v": VERSION,
        "index": index_id,
        "namespace": namespace,
        "entries": [msgspec.Raw(entry) for entry in entries],
    }
    return Encoded(wal_key(index_id, namespace), _encoder.encode(envelope), _HEADERS)


def decode(record: LogRecord) -> Decoded | Rejection:
    """Form only: whether the index exists and takes these records is `ingest.admit`'s question."""
    value = record.value
    try:
        if value is None:
            raise _Wrong(Reason.NULL_VALUE, "The value is null; the log has no tombstones.")
        if len(value) > LOG_RECORD_BYTES_MAX:
            raise _Wrong(
                Reason.OVERSIZE,
                f"The value is {len(value)} bytes; the limit is {LOG_RECORD_BYTES_MAX}.",
            )
        index_id, namespace = _parse_key(record.key)
        form = _format(record, value)
        parts = _parts(form, value, index_id, namespace)
    except _Wrong as wrong:
        return Rejection(record, WHOLE_RECORD, wrong.reason, str(wrong), value)
    entries: list[DecodedEntry | Rejection] = []
    for position, part in enumerate(parts):
        try:
            body: EntryBody = _decode_part(form.entry, part)
            _check_address(body.v, body.index, body.namespace, index_id, namespace)
        except _Wrong as wrong:
            entries.append(Rejection(record, position, wrong.reason, str(wrong), part))
        else:
            entries.append(DecodedEntry(position, body, part))
    return Decoded(index_id, namespace, tuple(entries))


def _parts(form: _Format, value: bytes, index_id: str, namespace: str) -> list[bytes]:
    """The bytes of each entry; the value itself if it is one entry alone."""
    head: _Head = _decode_part(form.head, value)
    _check_address(head.v, head.index, head.namespace, index_id, namespace)
    if head.entries is None:
        return [value]
    envelope: _RawEnvelope = _decode_part(form.envelope, value)
    if not envelope.entries:
        raise _Wrong(Reason.BAD_BODY, "The envelope has no entries.")
    return [bytes(part) for part in envelope.entries]


def _parse_key(key: bytes | None) -> tuple[str, str]:
    try:
        index_id, slash, namespace = (key or b"").decode("ascii").partition("/")
    except UnicodeDecodeError as error:
        raise _Wrong(Reason.BAD_KEY, "The key is not ASCII text.") from error
    if not index_id or not slash or not namespace:
        raise _Wrong(
            Reason.BAD_KEY,
            "The key must be {index id}/{namespace}, with __default__ for the default namespace.",
        )
    try:
        return index_id, namespace if is_staging(namespace) else checked_namespace(namespace)
    except InvalidRequest as error:
        raise _Wrong(Reason.BAD_KEY, str(error)) from error


def _format(record: LogRecord, value: bytes) -> _Format:
    header = record.header(CONTENT_TYPE)
    if header is None:
        if value[:1] == b"{":
            return _FORMATS[JSON]
        raise _Wrong(
            Reason.UNKNOWN_FORMAT,
            f"There is no {CONTENT_TYPE} header and the value is not a JSON object.",
        )
    name = header.decode("ascii", "replace").partition(";")[0].strip().lower()
    if name not in _FORMATS:
        raise _Wrong(
            Reason.UNKNOWN_FORMAT,
            f"The {CONTENT_TYPE} header is '{shown(name)}'; use {MSGPACK} or {JSON}.",
        )
    return _FORMATS[name]


def _decode_part(decoder: Any, value: bytes) -> Any:
    try:
        return decoder.decode(value)
    except msgspec.ValidationError as error:
        raise _Wrong(Reason.BAD_BODY, f"Invalid body{place(error)}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _Wrong(Reason.BAD_BODY, f"The body cannot be decoded: {error}.") from error


def _check_address(
    version: int, index: str | None, namespace: str | None, index_id: str, key_namespace: str
) -> None:
    if version != VERSION:
        raise _Wrong(
            Reason.UNKNOWN_VERSION,
            f"The body has schema version {version}; this build reads {VERSION}.",
        )
    if index is not None and index != index_id:
        raise _Wrong(
            Reason.KEY_MISMATCH,
            f"The body is for index '{shown(index)}', the key for '{shown(index_id)}'.",
        )
    # "" is the default namespace, as in an HTTP body
    if namespace is not None and canonical_namespace(namespace) != key_namespace:
        raise _Wrong(
            Reason.KEY_MISMATCH,
            f"The body is for namespace '{shown(namespace)}', "
            f"the key for '{shown(key_namespace)}'.",
        )
