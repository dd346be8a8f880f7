"""What a record of the log means: the one rule by which builder and freshness admit, reject or skip
it.

The order of the checks: null value, size, key, format, form and schema version, agreement of body
and key, partition, index, then each entry by itself. A bad entry leaves the others of its record
alone.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from core.errors import InvalidRequest
from core.indexes import IndexDirectory, IndexInfo, is_staging
from core.log import LogRecord
from core.operations import Attach, DeleteNamespace, Entry, NamespaceWrite, Operation
from core.partition import partition_of
from ingest import validate
from ingest.entries import (
    AttachEntry,
    CreateNamespaceEntry,
    DeleteEntry,
    DeleteNamespaceEntry,
    EntryBody,
    UpdateEntry,
    UpsertEntry,
)
from ingest.rejection import WHOLE_RECORD, Reason, Rejection
from ingest.vectors import WrongDimension, shown
from ingest.wire import DecodedEntry, decode

P = ParamSpec("P")
T = TypeVar("T")

# Decoding and judging less takes about half a millisecond; a thread's hand-over costs 0.1.
INLINE_BYTES_MAX = 64 << 10


@dataclass(frozen=True, slots=True)
class Admitted:
    """Apply `write`, which has at least one entry. The rejected ones are left out of it."""

    write: NamespaceWrite
    rejected: tuple[Rejection, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejected:
    """Nothing of the record is applied; at least one rejection."""

    rejections: tuple[Rejection, ...]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A record of an index that is deleted: neither applied nor a dead letter, only counted."""

    reason: str


Verdict = Admitted | Rejected | Skipped


async def admit(record: LogRecord, directory: IndexDirectory, partitions: int) -> Verdict:
    """Raises `Unavailable` when the directory cannot tell; the caller waits and asks again."""
    decoded = await _apart(record, decode, record)
    if isinstance(decoded, Rejection):
        return Rejected((decoded,))
    key = record.key
    assert key is not None, "a record without a key is not decoded"
    expected = partition_of(key, partitions)
    if expected != record.partition:
        text = (
            f"The key belongs to partition {expected} of {partitions}, not to {record.partition}; "
            "produce with Kafka's murmur2 partitioner (librdkafka: partitioner=murmur2_random)."
        )
        return _rejected(record, Reason.WRONG_PARTITION, text)
    info = await directory.find(decoded.index_id)
    if info is None:
        text = f"There is no index with the id '{shown(decoded.index_id)}'."
        return _rejected(record, Reason.UNKNOWN_INDEX, text)
    if not info.state.living:
        return Skipped(f"index {info.index_id} is {info.state.value.lower()}")
    entries: list[Entry] = []
    rejections: list[Rejection] = []
    for decoded_entry in decoded.entries:
        source = await _source(decoded_entry, directory)
        judged = await _apart(
            record, _judge, record, decoded_entry, decoded.namespace, info, source
        )
        if isinstance(judged, Rejection):
            rejections.append(judged)
        else:
            entries.append(judged)
    if not entries:
        return Rejected(tuple(rejections))
    write = NamespaceWrite(
        partition=record.partition,
        lsn=record.offset,
        index_id=decoded.index_id,
        namespace=decoded.namespace,
        entries=tuple(entries),
        timestamp_ms=record.timestamp_ms,
        value_bytes=len(record.value or b""),
    )
    return Admitted(write, tuple(rejections))


async def _apart(record: LogRecord, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Of a large record in a thread: a mebibyte takes some 10 ms, beside a flood of writes several
    times that, and everybody's queries would wait for it.
    """
    if len(record.value or b"") <= INLINE_BYTES_MAX:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)


async def _source(entry: DecodedEntry | Rejection, directory: IndexDirectory) -> IndexInfo | None:
    """The index that an attach takes from, living or deleted, so that a replay judges alike."""
    if isinstance(entry, DecodedEntry) and isinstance(entry.body, AttachEntry):
        return await directory.find(entry.body.source_index)
    return None


def _judge(
    record: LogRecord,
    entry: DecodedEntry | Rejection,
    namespace: str,
    info: IndexInfo,
    source: IndexInfo | None,
) -> Entry | Rejection:
    if isinstance(entry, Rejection):
        return entry
    try:
        return Entry(_operation(entry.body, namespace, info, source), entry.body.request_id)
    except InvalidRequest as error:
        wrong_dimension = isinstance(error, WrongDimension)
        reason = Reason.WRONG_DIMENSION if wrong_dimension else Reason.INVALID_RECORD
        return Rejection(record, entry.position, reason, str(error), entry.value)


def _operation(
    body: EntryBody, namespace: str, info: IndexInfo, source: IndexInfo | None
) -> Operation:
    if is_staging(namespace) and not isinstance(body, DeleteNamespaceEntry):
        raise InvalidRequest("What an import has built is attached or deleted, never written to.")
    match body:
        case UpsertEntry():
            return validate.upsert(body.vectors, info)
        case UpdateEntry():
            return validate.update(body, info)
        case DeleteEntry():
            return validate.delete(body)
        case CreateNamespaceEntry():
            return validate.create_namespace(namespace, body.schema)
        case DeleteNamespaceEntry():
            return DeleteNamespace()
        case AttachEntry():
            taken = Attach(
                *(body.source_index, body.source_namespace, body.snapshot, body.checksum),
                last_begun=body.last_begun,
            )
            return validate.attach(taken, source, info)


def _rejected(record: LogRecord, reason: Reason, text: str) -> Rejected:
    return Rejected((Rejection(record, WHOLE_RECORD, reason, text, record.value),))
