"""Dead letters: enough for a person to find and repair the record, never so much that they fail
themselves.
"""

import base64
import json

import pytest

from core.errors import Unavailable
from core.log import LogRecord
from core.partition import partition_of
from ingest.dead_letters import VALUE_BYTES_MAX, DeadLetters
from ingest.rejection import WHOLE_RECORD, Reason, Rejection
from tests.ingest.memory_log import MemoryLog


def rejection(
    value: bytes | None = b"bad", key: bytes | None = b"i/\xff", position: int = 2, offset: int = 17
) -> Rejection:
    record = LogRecord(3, offset, key, (("trace", b"\x00\x01"),), b"whole record", 99)
    return Rejection(record, position, Reason.BAD_BODY, "It is bad.", value)


async def test_a_letter_says_what_was_wrong_where_and_carries_the_bytes() -> None:
    log = MemoryLog()
    await DeadLetters(log).put(rejection())
    (letter,) = log.records
    assert letter.key == b"3/17/2"
    assert letter.partition == partition_of(b"3/17/2", 4)
    assert letter.header("firn-reason") == b"bad_body"
    assert json.loads(letter.value or b"") == {
        "reason": "bad_body",
        "text": "It is bad.",
        "partition": 3,
        "offset": 17,
        "position": 2,
        "timestampMs": 99,
        "key": base64.b64encode(b"i/\xff").decode(),
        "keyText": "i/\ufffd",
        "headers": [{"name": "trace", "value": "AAE="}],
        "value": base64.b64encode(b"bad").decode(),
        "valueBytes": 3,
        "valueCut": False,
    }


async def test_a_tombstone_without_a_key_has_a_letter_too() -> None:
    log = MemoryLog()
    await DeadLetters(log).put(rejection(None, None, WHOLE_RECORD))
    (letter,) = log.records
    assert letter.key == b"3/17/-1"
    body = json.loads(letter.value or b"")
    assert (body["key"], body["keyText"], body["value"]) == (None, None, None)


async def test_a_huge_value_is_cut_below_what_kafka_takes_by_default() -> None:
    log = MemoryLog()
    await DeadLetters(log).put(rejection(b"x" * (8 << 20), b"k" * (1 << 20)))
    (letter,) = log.records
    assert len(letter.value or b"") < 1_000_000
    body = json.loads(letter.value or b"")
    assert len(base64.b64decode(body["value"])) == VALUE_BYTES_MAX
    assert body["valueCut"] is True
    assert body["valueBytes"] == 8 << 20


async def test_many_letters_are_all_durable_before_it_returns() -> None:
    log = MemoryLog()
    await DeadLetters(log).put_all([rejection(position=i) for i in range(150)])
    assert {r.key for r in log.records} == {f"3/17/{i}".encode() for i in range(150)}


async def test_a_log_that_is_away_is_told_to_the_caller() -> None:
    """Progress may not pass a record whose letter is not durable."""
    log = MemoryLog()
    log.failures = [None, Unavailable("away")]
    letters = DeadLetters(log)
    with pytest.raises(Unavailable):
        await letters.put_all([rejection(position=i) for i in range(3)])
    assert log.appending == 0
