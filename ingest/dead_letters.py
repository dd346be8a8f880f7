"""Dead letters: what the builder could not apply, kept in a topic of its own for a person to look
at.
"""

import asyncio
import base64
from collections.abc import Sequence

import orjson

from core.log import Log
from core.partition import partition_of
from ingest.rejection import Rejection

REASON_HEADER = "firn-reason"

# A dead letter stays below 1 MB, Kafka's default limit of a record, after base64 (4/3) and with its
# headers.
VALUE_BYTES_MAX = 512 << 10
KEY_BYTES_MAX = 2 << 10
HEADERS_MAX = 32
HEADER_BYTES_MAX = 1 << 10

# One record can hold many bad entries; so many appends wait together, and share the log's commits.
_CONCURRENT = 64


class DeadLetters:
    """Delivery is at least once: a replay puts the same letter again, under the same key."""

    def __init__(self, log: Log) -> None:
        self._log = log

    async def put(self, rejection: Rejection) -> None:
        """Returns once the letter is durable; `Unavailable` when the log is away."""
        record = rejection.record
        key = f"{record.partition}/{record.offset}/{rejection.position}".encode()
        partitions = (await self._log.identity()).partitions
        headers = (
            (REASON_HEADER, rejection.reason.value.encode()),
            ("content-type", b"application/json"),
        )
        await self._log.append(
            partition_of(key, partitions), key, orjson.dumps(_letter(rejection)), headers
        )

    async def put_all(self, rejections: Sequence[Rejection]) -> None:
        """All of them durable, or the first error once none is in flight any more."""
        for start in range(0, len(rejections), _CONCURRENT):
            puts = [self.put(rejection) for rejection in rejections[start : start + _CONCURRENT]]
            for outcome in await asyncio.gather(*puts, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    raise outcome


def _letter(rejection: Rejection) -> dict[str, object]:
    record = rejection.record
    value = rejection.value
    return {
        "reason": rejection.reason.value,
        "text": rejection.text,
        "partition": record.partition,
        "offset": record.offset,
        "position": rejection.position,
        "timestampMs": record.timestamp_ms,
        "key": None if record.key is None else _base64(record.key, KEY_BYTES_MAX),
        "keyText": None if record.key is None else _text(record.key, KEY_BYTES_MAX),
        "headers": [
            {"name": name[:HEADER_BYTES_MAX], "value": _base64(header, HEADER_BYTES_MAX)}
            for name, header in record.headers[:HEADERS_MAX]
        ],
        "value": None if value is None else _base64(value, VALUE_BYTES_MAX),
        "valueBytes": 0 if value is None else len(value),
        "valueCut": value is not None and len(value) > VALUE_BYTES_MAX,
    }


def _base64(data: bytes, bytes_max: int) -> str:
    return base64.b64encode(data[:bytes_max]).decode("ascii")


def _text(data: bytes, bytes_max: int) -> str:
    return data[:bytes_max].decode("utf-8", "replace")
