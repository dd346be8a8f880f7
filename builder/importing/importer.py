"""One import from its list of files to attached namespaces, to be gone on with by anybody.

First every namespace is built beside the log; cancelled or failed until then, nothing is there.
Then they are attached one after the other, each by one entry of its own log: a namespace has all
of its records or none.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from builder.branching.branches import Branches, Place, pin_id
from builder.importing.building import Building
from builder.importing.plan import NamespacePlan, decode_plan, encode_plan, namespaces_of
from builder.importing.remains import Left, remove
from builder.importing.staging import Staging
from builder.parts import BuilderParts
from builder.settings import BuilderSettings
from core.errors import (
    AlreadyExists,
    FailedPrecondition,
    FirnError,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
)
from core.indexes import IndexInfo, IndexState
from core.partition import partition_of, wal_key
from infra.catalog.imports import ErrorMode, Import, ImportState, ImportStore, Progress
from infra.catalog.leases import LEASE_S
from infra.catalog.quotas import Quota
from infra.imports.locations import ImportLocations
from infra.imports.source import Source, open_source
from ingest.parquet.reader import ParquetReader
from ingest.writer import LogWriter

T = TypeVar("T")

# What the import itself, its files or its targets are to blame for; all else is tried again.
_FINAL = (InvalidRequest, FailedPrecondition, NotFound, AlreadyExists, QuotaExceeded)

# Namespaces that are looked at, or attached, at a time.
_AT_ONCE = 16
# Who has lost the lease ends within it; what it writes until then is looked for so much later.
LATE_S = 20 * LEASE_S


class Cancelled(Exception):
    """Somebody has cancelled the import: stop without a word."""


@dataclass(frozen=True, slots=True)
class ImportParts:
    """namespaces: that an index may have. scratch: a folder for copies of files. `writer` is for as
    long as this object is used.
    """

    builder: BuilderParts
    settings: BuilderSettings
    writer: LogWriter
    imports: ImportStore
    locations: ImportLocations
    namespaces: Quota
    scratch: Path


class Importer:
    """Of one import, under its lease."""

    def __init__(self, parts: ImportParts, work: Import) -> None:
        self._parts = parts
        self._work = work
        self._progress = work.progress

    async def run(self) -> ImportState | None:
        """How it ended; None: it was cancelled. `Unavailable`: go on later."""
        try:
            records = await self._import()
        except Cancelled:
            return None
        except _FINAL as error:
            return await self.fail(str(error))
        progress = replace(self._progress, records=records)
        return await self._ended(ImportState.COMPLETED, progress)

    async def fail(self, text: str) -> ImportState | None:
        return await self._ended(ImportState.FAILED, self._progress, text)

    async def clean(self) -> bool:
        """Nothing is left of what was built beside; False: not yet. Of an import that has ended.

        Where all was deleted outright, `work` gives the import once more: what a worker that had
        lost its lease wrote late goes then.
        """
        parts, work = self._parts, self._work
        info = await parts.builder.directory.find(work.index_id)
        assert info is not None, "an import is of an index"
        left = {
            await remove(parts.builder, parts.writer, self._staging(info, one))
            for one in await self._kept_plan() or ()
        }
        if Left.SOMETHING in left:
            return False
        if Left.NOTHING in left and not work.erased:
            await parts.imports.erased(work.import_id, LATE_S)
        else:
            await parts.imports.cleaned(work.import_id)
        return True

    async def _ended(
        self, state: ImportState, progress: Progress, error: str = ""
    ) -> ImportState | None:
        import_id = self._work.import_id
        ended = await self._parts.imports.finish(import_id, state, progress, error)
        return state if ended else None

    async def _import(self) -> int:
        """The number of records in the namespaces that were imported."""
        info = await self._parts.builder.directory.find(self._work.index_id)
        if info is None or info.state is not IndexState.READY:
            raise NotFound("The index was deleted.")
        if self._work.attaching:
            planned = await self._kept_plan() or []
        else:
            planned = await self._built(info)
        # Of the time before any of them is attached: no life that is younger is attached to, so
        # what is deleted after an attach stays deleted, whoever repeats it, and whenever.
        log, partitions = self._parts.builder.log, range(self._parts.builder.partitions)
        last = [await log.end_offset(partition) - 1 for partition in partitions]
        last_begun = await self._parts.imports.attach(self._work.import_id, last)
        if last_begun is None:
            raise Cancelled
        return await self._attached(info, planned, last_begun)

    async def _built(self, info: IndexInfo) -> list[NamespacePlan]:
        parts = self._parts
        place = parts.locations.place(self._work.uri, self._work.integration)
        source = open_source(place, parts.scratch)
        reader = ParquetReader(info, abort=self._work.error_mode is ErrorMode.ABORT)
        try:
            planned = await self._planned(source)
            await self._check_targets(info, planned)
            limits = parts.settings.flush
            building = Building(source, reader, self._progress, self._note, limits)
            try:
                bytes_before = 0
                for one in planned:
                    if not building.is_built(one):
                        await building.build(self._staging(info, one), one, bytes_before)
                    bytes_before += sum(file.size for file in one.files)
            finally:
                await building.stop()
            return planned
        finally:
            await reader.close()
            await source.close()

    async def _note(self, progress: Progress) -> None:
        self._progress = progress
        if not await self._parts.imports.note(self._work.import_id, progress):
            raise Cancelled

    async def _kept_plan(self) -> list[NamespacePlan] | None:
        data = await self._parts.imports.plan(self._work.import_id)
        return None if data is None else namespaces_of(decode_plan(data))

    async def _planned(self, source: Source) -> list[NamespacePlan]:
        kept = await self._kept_plan()
        if kept is not None:
            return kept
        files = await source.files()
        if not files:
            raise NotFound(
                f"{self._work.uri} has no sub-folder with files named *.parquet; each sub-folder "
                "becomes a namespace."
            )
        namespaces_of(files)  # what it refuses is not kept
        progress = Progress(bytes_total=sum(file.size for file in files))
        begun = await self._parts.imports.begin(self._work.import_id, encode_plan(files), progress)
        if begun is None:
            raise Cancelled
        # Another one may have listed them, differently, and built by that, while we did.
        plan, self._progress = begun
        return namespaces_of(decode_plan(plan))

    async def _check_targets(self, info: IndexInfo, planned: list[NamespacePlan]) -> None:
        """As far as it can be told before the work is done."""
        builder = self._parts.builder

        async def is_new(one: NamespacePlan) -> bool:
            manifest = await builder.manifests.outline(info.index_id, one.name)
            if manifest is None or manifest.deleted:
                return True
            if manifest.record_count or manifest.attached:
                raise _not_empty(one.name)
            return False

        more = sum(await _all_of(is_new, planned))
        for partition in range(builder.partitions):
            state = await builder.registry.newest(partition)
            more += 0 if state is None else state.totals(info.index_id).namespaces
        if more > self._parts.namespaces.most:
            raise self._parts.namespaces.exceeded(f"index {info.name}")

    def _staging(self, info: IndexInfo, planned: NamespacePlan) -> Staging:
        parts = self._parts
        return Staging(parts.builder, parts.settings, info, self._work.import_id, planned)

    async def _attached(
        self, info: IndexInfo, planned: list[NamespacePlan], last_begun: Sequence[int]
    ) -> int:
        """All that can be; then `AlreadyExists` if one could not."""
        builder = self._parts.builder
        branches = Branches(builder, self._parts.writer)
        refused: list[str] = []

        async def attach(one: NamespacePlan) -> int:
            source, target = self._staging(info, one).place, Place(info, one.name)
            built = await builder.manifests.outline(*source.key)
            if built is None or built.deleted or not built.record_count:
                return 0  # every row of it was left out
            own_pin = pin_id(self._work.import_id, one.name)
            if not await self._is_attached(target, own_pin):
                pin = await branches.pin(source, target, own_pin)
                partition = partition_of(wal_key(*target.key), builder.partitions)
                try:
                    await branches.attach(target, pin, last_begun[partition])
                except FailedPrecondition:
                    # Or another worker, which believed the import to be its own, was first.
                    if not await self._is_attached(target, own_pin):
                        refused.append(one.name)
                        # Else a life that is over may be made of it, which somebody still reads.
                        if not self._work.attaching:
                            await branches.delete(pin)
                        return 0
            return built.record_count

        records = sum(await _all_of(attach, planned))
        self._progress = replace(self._progress, records=records)
        if refused:
            done = len(planned) - len(refused)
            raise AlreadyExists(
                f"{_not_empty(', '.join(refused[:20]))} {done} of {len(planned)} namespaces were "
                "imported."
            )
        return records

    async def _is_attached(self, target: Place, own_pin: str) -> bool:
        """Also where it was deleted since."""
        manifest = await self._parts.builder.manifests.outline(*target.key)
        return manifest is not None and manifest.attached == own_pin


async def _all_of(
    work: Callable[[NamespacePlan], Awaitable[T]], planned: Sequence[NamespacePlan]
) -> list[T]:
    """Some at a time, in order; the first error, once nothing runs any more."""
    done: list[T] = []
    for start in range(0, len(planned), _AT_ONCE):
        part = (work(one) for one in planned[start : start + _AT_ONCE])
        for found in await asyncio.gather(*part, return_exceptions=True):
            if isinstance(found, BaseException):
                raise found
            done.append(found)
    return done


def _not_empty(names: str) -> FirnError:
    return AlreadyExists(
        f"Namespace {names} has records of its own, or was created while the import was attached: "
        "an import only goes into namespaces that are empty or do not exist yet."
    )
