"""A big upsert is decoded record by record: the same records, the same errors, turns between."""

import base64
import json
import struct
from typing import Any

import pytest

from core.errors import InvalidRequest, TooLarge
from core.turns import working_as
from ingest import bodies
from ingest.bodies import UpsertBody, decode_body, decode_upsert
from ingest.validate import upsert
from tests.ingest.indexes import index

DENSE = index(dimension=4)


def record(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": f"r{number}", "values": [number, 0.5, -1e-3, 3e7], **fields}


GOOD: list[Any] = [
    {"vectors": [record(n) for n in range(100)]},
    {"vectors": [record(0, metadata={"a": [1], "b": "ü"})], "namespace": "n", "unknown": 1},
    {"vectors": [record(0, sparseValues={"indices": [3, 1], "values": [1, 2.5]})]},
    {"vectors": [{"id": "b", "values": base64.b64encode(struct.pack("<4f", 1, 2, 3, 4)).decode()}]},
    {"vectors": [{"id": "none"}, {"id": "empty", "values": []}]},
    {"vectors": [], "namespace": None},
]


@pytest.mark.parametrize("body", GOOD)
def test_the_same_records(body: Any) -> None:
    data = json.dumps(body).encode()
    whole, parts = decode_body(data, UpsertBody), decode_upsert(data)
    assert parts.namespace == whole.namespace
    assert [packed(v) for v in parts.vectors] == [packed(v) for v in whole.vectors]


def packed(vector: bodies.VectorBody) -> tuple[object, ...]:
    values = vector.values
    if isinstance(values, list):
        values = struct.pack(f"<{len(values)}f", *values)
    return vector.id, values, vector.sparse_values, vector.metadata


@pytest.mark.parametrize(
    "data",
    [
        b'{"vectors": [{"id": "a", "values": [1, 2]}',
        b'{"vectors": [{"id": 7}]}',
        b'{"vectors": [{"id": "a"}, {"id": "b", "values": [1, "x"]}]}',
        b'{"vectors": [{"id": "a"}, {"id": "b", "extra": 1}]}',
        b'{"vectors": [{"id": "a", "sparseValues": {"indices": [-1], "values": [1]}}]}',
        b'{"vectors": {"id": "a"}}',
        b'{"vectors": [{"id": "\xff"}]}',
        b'{"vectors": [{"id": "a", "values": [1e400]}]}',
        b'{"namespace": "n"}',
        b"[]",
        b"",
        b'{"vectors":[{"id":"a","metadata":' + b"[" * 100_000,
    ],
)
def test_the_same_errors(data: bytes) -> None:
    with pytest.raises(InvalidRequest) as whole:
        decode_body(data, UpsertBody)
    with pytest.raises(InvalidRequest) as parts:
        decode_upsert(data)
    assert str(parts.value) == str(whole.value)


def test_a_number_beyond_float32_is_named_by_its_record() -> None:
    data = json.dumps({"vectors": [record(0), {"id": "big", "values": [1, 2, 3, 1e39]}]}).encode()
    with pytest.raises(InvalidRequest, match="Vector ID 'big' has one that is not"):
        upsert(decode_upsert(data).vectors, DENSE)


def test_its_size_is_bounded() -> None:
    with pytest.raises(TooLarge, match="exceeds the limit of 10 bytes"):
        decode_upsert(b'{"vectors": []}', 10)


class Counted:
    """A turn that only counts."""

    of_request = True

    def __init__(self) -> None:
        self.asked = 0

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    async def step_aside(self) -> None: ...

    def step_aside_in_thread(self) -> None:
        self.asked += 1


def test_others_may_go_first_all_along() -> None:
    count, turn = 10 * bodies.RECORDS_AT_ONCE, Counted()
    data = json.dumps({"vectors": [record(n) for n in range(count)]}).encode()
    with working_as(turn):
        decoded = decode_upsert(data)
        assert turn.asked == 10
        upsert(decoded.vectors, DENSE)
    assert turn.asked > 10
