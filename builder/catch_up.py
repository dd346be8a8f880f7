"""Reading a namespace's entries from the log again, after it let them go while it waited."""

from builder.intake import Intake
from builder.metrics import BuilderMetrics
from builder.namespace import NamespaceWork
from builder.partition import OwnedPartition
from builder.parts import BuilderParts
from builder.settings import BuilderSettings
from core.errors import CorruptData, LogMismatch
from core.indexes import DEFAULT_NAMESPACE
from core.log import NO_LSN
from core.operations import NamespaceWrite
from core.partition import wal_key

# One look reads so much of the partition's log, whomever it is about, and then others have a turn.
LOOK_BYTES = 8 << 20
LOOK_RECORDS = 5_000


class CatchUp:
    def __init__(
        self, parts: BuilderParts, settings: BuilderSettings, metrics: BuilderMetrics
    ) -> None:
        self._log = parts.log
        self._clock = parts.clock
        # What is no entry went to the dead letters when it was met first.
        self._intake = Intake(
            *(parts.directory, None, parts.clock, parts.partitions),
            metrics=metrics,
            retry_s=settings.directory_retry_s,
        )

    async def fill(self, owned: OwnedPartition, work: NamespaceWork) -> None:
        """Move the namespace's next entries from the log to `pending`; the gap ends where nothing
        of it is left below what the partition has applied.

        The namespace's lock is held. `CorruptData` if the log has lost them, `Unavailable`.
        """
        assert work.gap_from is not None
        indexed = NO_LSN if work.manifest is None else work.manifest.indexed_lsn
        at, reached = max(work.gap_from, indexed + 1), owned.applied
        found: list[NamespaceWrite] = []
        if at < reached:
            at, found = await self._read(owned, work, at, reached)
        # Without a turn for others since this look at `applied`: what is accepted from here on goes
        # to `pending` behind what was read.
        work.gap_from = at if at < owned.applied else None
        for write in found:
            work.pending.add(write, self._clock.monotonic())

    async def _read(
        self, owned: OwnedPartition, work: NamespaceWork, at: int, reached: int
    ) -> tuple[int, list[NamespaceWrite]]:
        """(how far was looked, at most up to `reached`, exclusive; what was found)"""
        try:
            records = await self._log.read(
                owned.number, at, max_records=LOOK_RECORDS, max_bytes=LOOK_BYTES
            )
        except LogMismatch as error:
            raise CorruptData(
                f"entries of namespace {work.namespace!r} from LSN {at} on are neither in files "
                f"nor in the log any more: {error}"
            ) from error
        # Foreign producers may leave the default namespace's name out.
        keys = {wal_key(*work.key)}
        if work.namespace == DEFAULT_NAMESPACE:
            keys.add(wal_key(work.index_id, ""))
        found: list[NamespaceWrite] = []
        for record in records:
            if record.offset >= reached:
                return reached, found
            if record.key in keys:
                write = await self._intake.take(record)
                if write is not None:
                    found.append(write)
        return (min(reached, records[-1].offset + 1) if records else reached), found
