"""Answers of the data plane as Pinecone's JSON, bounded in size."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict
from typing import Any

import orjson
from starlette.responses import Response

from core.errors import InvalidRequest
from core.limits import QUERY_RESULT_BYTES_MAX
from core.records import Metadata, Record, SparseValues, Vector
from core.turns import step_aside_in_thread
from query.model import Cost, Match, NamespaceStats

# Pinecone names no bound for a fetch. 1,000 records of 1,536 dimensions are 35 MB as JSON.
FETCH_RESULT_BYTES_MAX = 64 << 20

# A number takes some 0.1 us to be written, everything else of a row as much as ten of them: up to
# here it is about a millisecond.
INLINE_NUMBERS_MAX = 10_000
NUMBERS_PER_ROW = 10

QUERY_INSTEAD = "ask for a lower topK"
FETCH_INSTEAD = "fetch fewer ids"
# Encoded in half a millisecond, with little metadata.
ROWS_AT_ONCE = 64


class Room:
    """What is left of an answer's size. `instead`: what to do when it is used up."""

    def __init__(self, bytes_max: int, instead: str) -> None:
        self._bytes_max = bytes_max
        self._instead = instead
        self._taken = 0

    def take(self, size: int) -> None:
        """`InvalidRequest` when there is no room for so many bytes more."""
        self._taken += size
        if self._taken > self._bytes_max:
            raise InvalidRequest(
                f"The result is larger than the maximum of {self._bytes_max} bytes: "
                f"{self._instead}, or leave out values and metadata"
            )


async def apart(rows: Collection[Record | Match], make: Callable[[], bytes]) -> bytes:
    """What `make` makes of those rows; in a thread where that takes more than a moment, so that
    others get their turns between.
    """
    values = (row.values for row in rows)
    size = NUMBERS_PER_ROW * len(rows) + sum(v.size for v in values if v is not None)
    return make() if size <= INLINE_NUMBERS_MAX else await asyncio.to_thread(make)


def json_response(
    body: object, headers: Mapping[str, str] | None = None, status: int = 200
) -> Response:
    return raw_response(orjson.dumps(body), headers, status)


def raw_response(
    body: bytes, headers: Mapping[str, str] | None = None, status: int = 200
) -> Response:
    return Response(body, status_code=status, headers=headers, media_type="application/json")


def query_body(matches: Iterable[Match], namespace: str, cost: Cost, explain: bool) -> bytes:
    """The answer of a query. `InvalidRequest` beyond Pinecone's 4 MB."""
    listed = _joined((_match(m) for m in matches), Room(QUERY_RESULT_BYTES_MAX, QUERY_INSTEAD))
    rest: dict[str, Any] = {"namespace": namespace, "usage": usage(cost)}
    if explain:
        rest["firndb"] = {"cost": asdict(cost)}
    return b'{"matches":[' + listed + b"]," + orjson.dumps(rest)[1:]


def hits_body(
    matches: Iterable[Match], fields: Collection[str] | None, usage: Mapping[str, int]
) -> bytes:
    """The answer of a search for records. `fields` None: all. `InvalidRequest` beyond 4 MB."""
    listed = _joined(
        (_hit(m, fields) for m in matches), Room(QUERY_RESULT_BYTES_MAX, QUERY_INSTEAD)
    )
    return b'{"result":{"hits":[' + listed + b']},"usage":' + orjson.dumps(usage) + b"}"


def fetch_body(
    records: Mapping[str, Record], namespace: str, cost: Cost, next_token: str | None = None
) -> bytes:
    """The answer of a fetch. `InvalidRequest` when it gets too big."""
    parts = (
        orjson.dumps(record_id) + b":" + _vector(record) for record_id, record in records.items()
    )
    listed = _joined(parts, Room(FETCH_RESULT_BYTES_MAX, FETCH_INSTEAD))
    rest: dict[str, Any] = {"namespace": namespace, "usage": usage(cost)}
    if next_token is not None:
        rest["pagination"] = {"next": next_token}
    return b'{"vectors":{' + listed + b"}," + orjson.dumps(rest)[1:]


def usage(cost: Cost) -> dict[str, int]:
    return {"readUnits": cost.read_units}


def namespace_body(namespace: NamespaceStats, name: str) -> dict[str, Any]:
    body: dict[str, Any] = {
        "name": name,
        "record_count": namespace.record_count,
        "size_bytes": namespace.size_bytes,
    }
    if namespace.declared is not None:
        body["schema"] = {"fields": {field: {"filterable": True} for field in namespace.declared}}
        body["indexed_fields"] = {"fields": namespace.declared}
    return body


def _joined(parts: Iterable[bytes], room: Room) -> bytes:
    kept: list[bytes] = []
    for number, part in enumerate(parts):
        if number % ROWS_AT_ONCE == 0:
            step_aside_in_thread()
        room.take(len(part) + 1)
        kept.append(part)
    return b",".join(kept)


def _match(match: Match) -> bytes:
    return _dumps(
        {"id": match.id, "score": match.score}, match.values, match.sparse, match.metadata
    )


def _hit(match: Match, fields: Collection[str] | None) -> bytes:
    metadata = match.metadata or {}
    if fields is not None:
        metadata = {name: value for name, value in metadata.items() if name in fields}
    return orjson.dumps({"_id": match.id, "_score": match.score, "fields": metadata})


def _vector(record: Record) -> bytes:
    return _dumps({"id": record.id}, record.values, record.sparse, record.metadata or None)


def _dumps(
    fields: dict[str, Any],
    values: Vector | None,
    sparse: SparseValues | None,
    metadata: Metadata | None,
) -> bytes:
    """`values` is always there, empty if there are none: clients' decoders want one of the two."""
    fields["values"] = values if values is not None else ()
    if sparse is not None:
        fields["sparseValues"] = {"indices": sparse.indices, "values": sparse.values}
    if metadata is not None:
        fields["metadata"] = metadata
    return orjson.dumps(fields, default=_strided, option=orjson.OPT_SERIALIZE_NUMPY)


def _strided(value: Any) -> Any:
    """orjson only takes contiguous arrays; a vector may be a view into a file."""
    return value.tolist()
