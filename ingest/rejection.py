"""Why a record of the log, or one entry of it, is not applied."""

from dataclasses import dataclass
from enum import StrEnum

from core.log import LogRecord

WHOLE_RECORD = -1


class Reason(StrEnum):
    """Stable codes: the `firn-reason` header of a dead letter, and the label of the metric."""

    NULL_VALUE = "null_value"
    OVERSIZE = "oversize"
    BAD_KEY = "bad_key"
    WRONG_PARTITION = "wrong_partition"
    UNKNOWN_FORMAT = "unknown_format"
    UNKNOWN_VERSION = "unknown_version"
    BAD_BODY = "bad_body"
    KEY_MISMATCH = "key_mismatch"
    UNKNOWN_INDEX = "unknown_index"
    WRONG_DIMENSION = "wrong_dimension"
    INVALID_RECORD = "invalid_record"


@dataclass(frozen=True, slots=True)
class Rejection:
    """One dead letter to be.

    position: of the entry in its record, `WHOLE_RECORD` (-1) if none of it is applied for this
    reason. value: the entry's own bytes in the record's format, or the record's value.
    """

    record: LogRecord
    position: int
    reason: Reason
    text: str
    value: bytes | None
