"""What the log's retention still holds of a namespace, or of some of its records."""

from collections.abc import Callable
from dataclasses import dataclass

from builder.parts import BuilderParts
from core.errors import Unavailable
from core.log import NO_LSN
from core.operations import Attach, NamespaceWrite, UpdateById, Upsert
from core.partition import partition_of, wal_key
from ingest.admit import Admitted, admit

READ_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Retained:
    """Log records from `log_start` on that are of the namespace and, where ids were asked for,
    write one of them, or attach what may hold one. first_lsn, last_lsn: NO_LSN for none; with the
    times of those records.
    """

    partition: int
    log_start: int
    log_end: int
    records: int = 0
    first_lsn: int = NO_LSN
    last_lsn: int = NO_LSN
    first_ms: int = 0
    last_ms: int = 0


async def retained(
    parts: BuilderParts,
    index_id: str,
    namespace: str,
    ids: frozenset[str],
    progress: Callable[[int, int], None],
) -> Retained:
    """Reads the partition's log, from its start to its end as of now."""
    partition = partition_of(wal_key(index_id, namespace), parts.partitions)
    start, end = await parts.log.start_offset(partition), await parts.log.end_offset(partition)
    key = wal_key(index_id, namespace)
    held: list[tuple[int, int]] = []
    count, at = 0, start
    while at < end:
        records = await parts.log.read(partition, at, max_bytes=READ_BYTES)
        if not records:
            break  # nothing but what transactions left
        for record in records:
            if record.offset >= end or record.key != key:
                continue
            try:
                verdict = await admit(record, parts.directory, parts.partitions)
            except Unavailable:
                verdict = None  # it may be one: the report must not say less than there is
            write = verdict.write if isinstance(verdict, Admitted) else None
            if not ids or write is None or _writes(write, ids):
                count += 1
                held = [*held[:1], (record.offset, record.timestamp_ms)]
        at = records[-1].offset + 1
        progress(min(at, end) - start, end - start)
    if not held:
        return Retained(partition, start, end)
    first, last = held[0], held[-1]
    return Retained(partition, start, end, count, first[0], last[0], first[1], last[1])


def _writes(write: NamespaceWrite, ids: frozenset[str]) -> bool:
    for operation in (entry.operation for entry in write.entries):
        if isinstance(operation, Upsert) and any(r.id in ids for r in operation.records):
            return True
        if isinstance(operation, UpdateById) and operation.id in ids:
            return True
        if isinstance(operation, Attach):
            return True  # what it brought may hold one, and stays for as long as the entry counts
    return False
