"""Reading an import's files into the namespaces that are built for it: one flush is written while
the rows of the next are read.

What was counted is noted before each flush together with the position that the flush reaches, and
the last two such marks are kept: so whoever goes on, at one of the two, counts on from there.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace

from builder.importing.plan import NamespacePlan, position
from builder.importing.staging import Staging
from builder.policy import FlushLimits
from core.errors import InvalidRequest
from core.limits import IMPORT_REASONS_MAX, IMPORT_RECORDS_MAX
from core.operations import NamespaceWrite
from infra.catalog.imports import Progress
from infra.imports.source import Source, SourceFile
from ingest.parquet.reader import BadRow, ParquetReader, RecordBatch

# Position, records and skipped rows up to there.
_Mark = tuple[int, int, int]


class Building:
    """Of one import. `note` keeps the progress, and raises what ends the import. limits: of one
    flush; two are in memory, one is written and one is read.
    """

    def __init__(
        self,
        source: Source,
        reader: ParquetReader,
        progress: Progress,
        note: Callable[[Progress], Awaitable[None]],
        limits: FlushLimits,
    ) -> None:
        self._source = source
        self._reader = reader
        self._note = note
        self._limits = limits
        self.progress = progress
        self._records = progress.records
        self._skipped = progress.skipped
        self._reasons: list[str] = list(progress.reasons)
        self._pending: list[NamespaceWrite] = []
        self._pending_bytes = 0
        self._pending_records = 0
        self._mark: _Mark = (0, 0, 0)
        self._flushing: asyncio.Task[None] | None = None

    def is_built(self, planned: NamespacePlan) -> bool:
        """All of it, as far as it was noted."""
        end = position(planned.first + len(planned.files), 0)
        return any(mark[0] >= end for mark in self.progress.marks)

    async def build(self, staging: Staging, planned: NamespacePlan, bytes_before: int) -> None:
        """The rest of one namespace; bytes_before: of the files of those before it.

        `InvalidRequest` naming the file: it is not such a file, or a row of it is no record and
        that ends the import.
        """
        first, skip_rows = await staging.begin()
        self._go_back_to(staging.lsn)
        done = first - planned.first
        bytes_before += sum(file.size for file in planned.files[:done])
        for number, file in enumerate(planned.files[done:], first):
            async with aclosing(self._batches(file, skip_rows)) as batches:
                async for batch, part in batches:
                    self._take(staging, number, file, batch)
                    if self._is_full():
                        await self._begin_flush(staging, bytes_before + int(file.size * part))
            skip_rows = 0
            bytes_before += file.size
        await self._begin_flush(staging, bytes_before)
        await self._flushed()
        await staging.finish()
        end = position(planned.first + len(planned.files), 0)
        await self._noted((end, self._records, self._skipped), bytes_before)

    async def stop(self) -> None:
        """A commit that was begun still comes to its end."""
        if self._flushing is not None:
            self._flushing.cancel()
            await asyncio.gather(self._flushing, return_exceptions=True)

    def _go_back_to(self, lsn: int) -> None:
        known = [mark for mark in self.progress.marks if mark[0] <= lsn]
        _, self._records, self._skipped = max(known, default=(0, 0, 0))

    def _take(self, staging: Staging, number: int, file: SourceFile, batch: RecordBatch) -> None:
        self._records += len(batch.records)
        self._skipped += batch.skipped
        if self._records > IMPORT_RECORDS_MAX:
            raise InvalidRequest(f"An import has {IMPORT_RECORDS_MAX} records at most.")
        if batch.reasons and len(self._reasons) < IMPORT_REASONS_MAX:
            # Rows that are read again after a crash give the same texts.
            told = dict.fromkeys(f"{file.path}, {reason}" for reason in batch.reasons)
            told_before = set(self._reasons)
            self._reasons += [reason for reason in told if reason not in told_before]
            del self._reasons[IMPORT_REASONS_MAX:]
        if batch.records:
            self._pending.append(staging.write(number, batch))
            self._pending_bytes += batch.size_bytes
            self._pending_records += len(batch.records)
            self._mark = (self._pending[-1].lsn, self._records, self._skipped)

    async def _batches(
        self, file: SourceFile, skip_rows: int
    ) -> AsyncGenerator[tuple[RecordBatch, float]]:
        """Each with the part of the file's rows that is read by then."""
        try:
            rows = await self._reader.open(await self._source.open(file), skip_rows)
            while (batch := await self._reader.next()) is not None:
                yield batch, min(1.0, batch.next_row / max(1, rows))
        except BadRow as error:
            raise InvalidRequest(f"{file.path}, {error}") from error
        except InvalidRequest as error:
            raise InvalidRequest(f"{file.path}: {error}") from error

    def _is_full(self) -> bool:
        limits = self._limits
        full = self._pending_records >= limits.records
        return full or self._pending_bytes >= limits.bytes

    async def _begin_flush(self, staging: Staging, bytes_done: int) -> None:
        """Once the last one is done; what is read meanwhile waits for the next."""
        if not self._pending:
            return
        await self._flushed()
        await self._noted(self._mark, bytes_done)
        pending, self._pending = self._pending, []
        self._pending_bytes = self._pending_records = 0
        self._flushing = asyncio.create_task(staging.flush(pending))

    async def _flushed(self) -> None:
        task, self._flushing = self._flushing, None
        if task is not None:
            try:
                await task
            except BaseException:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                raise

    async def _noted(self, mark: _Mark, bytes_done: int) -> None:
        self.progress = replace(
            self.progress,
            bytes_done=bytes_done,
            records=self._records,
            skipped=self._skipped,
            reasons=tuple(self._reasons),
            marks=(*self.progress.marks[-1:], mark),
        )
        await self._note(self.progress)
