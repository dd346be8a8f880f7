"""The entries of one namespace up to a point in time, as the log has them."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from builder.parts import BuilderParts
from core.errors import FailedPrecondition, InvalidRequest
from core.log import NO_LSN, LogRecord
from core.operations import (
    Attach,
    CreateNamespace,
    DeleteNamespace,
    NamespaceWrite,
    Operation,
    Upsert,
)
from core.partition import partition_of, wal_key
from ingest.admit import Admitted, Skipped, admit
from storage.manifest import Manifest
from storage.snapshots import Snapshot, SnapshotKind

READ_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Moment:
    """Exactly one of both. lsn: inclusive, of the namespace's partition. time_ms: of the records'
    timestamps; the first entry that is later, and what follows it, is not part of it.
    """

    lsn: int | None = None
    time_ms: int | None = None

    def before(self, record: LogRecord) -> bool:
        """Whether the moment is before the record."""
        if self.lsn is not None:
            return record.offset > self.lsn
        return self.time_ms is not None and record.timestamp_ms > self.time_ms

    def covers(self, snapshot: Snapshot) -> bool:
        """Whether everything that the snapshot holds was written by then. A manifest is younger
        than each of its entries.
        """
        if self.lsn is not None:
            return snapshot.indexed_lsn <= self.lsn
        return self.time_ms is not None and snapshot.manifest_created_ms <= self.time_ms


def newest_before(snapshots: Sequence[Snapshot], home: str, moment: Moment) -> Snapshot | None:
    """Of the namespace's own snapshots the one with the shortest way to the moment."""
    own = [s for s in snapshots if s.home == home and s.kind is SnapshotKind.SNAPSHOT]
    return max(
        (s for s in own if moment.covers(s)),
        key=lambda s: (s.indexed_lsn, s.created_ms),
        default=None,
    )


class Lives:
    """The lives of a namespace as its entries tell them, from a manifest (None: from the beginning,
    or that of a life) on: for attaches that did nothing because of a life before, which is another
    one where the entries are repeated.
    """

    def __init__(self, base: Manifest | None) -> None:
        """base: of a snapshot, so of a namespace that lives."""
        self._exists = base is not None
        self._begun = NO_LSN if base is None else base.generation
        self._attached = "" if base is None else base.attached

    def counts(self, lsn: int, operation: Operation) -> bool:
        """False: it did nothing. Each entry once, in order."""
        attached = ""
        match operation:
            case Attach(snapshot_id=attached, last_begun=last):
                if attached == self._attached or (last is not None and self._begun > last):
                    return False
            case DeleteNamespace():
                self._exists = False
                return True
            case Upsert() | CreateNamespace():
                pass
            case _:
                return True
        if not self._exists:
            self._exists, self._begun, self._attached = True, lsn, attached
        return True


@dataclass(frozen=True, slots=True)
class History:
    """Of one namespace (canonical name)."""

    parts: BuilderParts
    index_id: str
    namespace: str

    @property
    def _key(self) -> bytes:
        return wal_key(self.index_id, self.namespace)

    async def start(self, base: Snapshot | None, moment: Moment) -> int:
        """The offset to read from: behind the snapshot, or the beginning of a life of the
        namespace.

        `FailedPrecondition` if the log is not kept so far back, `InvalidRequest` if the moment is
        not there yet.
        """
        log = self.parts.log
        partition = partition_of(self._key, self.parts.partitions)
        first, end = await log.start_offset(partition), await log.end_offset(partition)
        if moment.lsn is not None and not NO_LSN < moment.lsn < end:
            raise InvalidRequest(
                f"LSN {moment.lsn} is not in the log of partition {partition}, "
                f"which has LSNs {first} to {end - 1}"
            )
        if moment.time_ms is not None and moment.time_ms > self.parts.clock.now_ms():
            raise InvalidRequest("the time to go back to is not there yet")
        if base is not None:
            start = base.indexed_lsn + 1
        elif first == 0:
            start = 0
        else:
            manifest = await self.parts.manifests.newest(self.index_id, self.namespace)
            start = NO_LSN if manifest is None else manifest.generation
        if start < first:
            raise FailedPrecondition(
                f"the log of partition {partition} is kept from LSN {first} on, and no snapshot of "
                f"namespace {self.namespace!r} is between there and the moment that is asked for"
            )
        return start

    async def writes(
        self, start: int, moment: Moment, progress: Callable[[int, int], None]
    ) -> AsyncIterator[NamespaceWrite]:
        """Everything of the namespace from `start` on up to the moment, in order; what was rejected
        then is rejected again. `progress`: records done, of how many.
        """
        parts, key = self.parts, self._key
        partition = partition_of(key, parts.partitions)
        at, end = start, await parts.log.end_offset(partition)
        end = end if moment.lsn is None else moment.lsn + 1
        while at < end:
            records = await parts.log.read(partition, at, max_bytes=READ_BYTES)
            if not records:
                return
            for record in records:
                mine = record.key == key
                if record.offset >= end or (mine and moment.before(record)):
                    return
                at = record.offset + 1
                if mine:
                    verdict = await admit(record, parts.directory, parts.partitions)
                    if isinstance(verdict, Skipped):
                        raise FailedPrecondition(
                            f"{verdict.reason}, so its log is not replayed; restore a snapshot "
                            "without a point in time"
                        )
                    if isinstance(verdict, Admitted):
                        yield verdict.write
            progress(at - start, end - start)
