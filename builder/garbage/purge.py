"""`firndb purge`: no object of a namespace holds deleted records any more, and a report says so.

Files with dead rows and id runs are rewritten one at a time, then the manifest from scratch; then
garbage collection without any grace, caches, and a scan of every object that is left.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from builder.chain import blank, committed_as, uninterrupted
from builder.compaction.run_policy import MergeRuns
from builder.garbage.beside import Beside
from builder.garbage.erasure_scan import ErasureScan, Finding, sought_of
from builder.garbage.plan import Grace
from builder.garbage.retained import Retained, retained
from builder.indexed import WAIT_S, Progress
from builder.policy import Compaction, FoldClusters, FoldFiles, MergeDeltas
from core.errors import Fenced, NotFound, Unavailable
from core.operations import DeleteIds, Entry
from ingest.writer import LogWriter
from storage.commit import ManifestConflict
from storage.manifest import Manifest
from storage.section_store import SectionStore

# Jobs whose input the owner changed at the same time, one after the other.
DROPPED_MAX = 64
FLAT_TRIES = 16
# Each takes what the one before could not, because writes went on.
PASSES_MAX = 8
# As one entry of the log takes them.
IDS_PER_ENTRY = 1_000
NO_GRACE = Grace(ms=0)

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Purged:
    """Of one namespace. left: objects that still hold, or may hold, a deleted record. holding:
    snapshots and branches that do, by name. log: what its retention still holds.
    """

    namespace: str
    version: int
    rewritten: int
    deleted_objects: int
    deleted_bytes: int
    scanned_objects: int
    scanned_bytes: int
    left: tuple[Finding, ...]
    holding: tuple[str, ...]
    log: Retained


class Purge:
    """Of one namespace. Repeating it is harmless; after an error it goes on where it was."""

    def __init__(
        self, beside: Beside, writer: LogWriter, tell: Tell, wait_s: float = WAIT_S
    ) -> None:
        self._beside = beside
        self._writer = writer
        self._tell = tell
        self._progress = Progress(beside.parts, wait_s)

    async def run(self, ids: Sequence[str] = ()) -> Purged:
        """With `ids` those are deleted first. `NotFound`: there never was such a namespace, and to
        find nothing of it would be no answer. `DeadlineExceeded`: no builder indexes the log.
        """
        beside, parts = self._beside, self._beside.parts
        self._tell("waiting for the index", 0, 1)
        await self._progress.everything(*beside.key)
        if await beside.newest() is None:
            raise NotFound(f"there never was a namespace {beside.namespace!r} in its index")
        sought = await sought_of(beside, ids)
        for start in range(0, len(ids), IDS_PER_ENTRY):
            some = tuple(ids[start : start + IDS_PER_ENTRY])
            await self._writer.write(*beside.key, [Entry(DeleteIds(some))])
        await self._progress.everything(*beside.key)
        rewritten = await self._rewrite()
        flat = await self._begin_anew()
        objects = size = 0
        for _ in range(PASSES_MAX if flat is not None else 0):
            swept = await beside.collect(NO_GRACE)
            objects, size = objects + swept.objects, size + swept.bytes
            if not swept.objects:
                break
        self._tell("scanning objects", 0, 0)
        scan = await ErasureScan(beside, sought, 0 if flat is None else flat.version).run(
            lambda done: self._tell("scanning objects", done, done)
        )
        log = await retained(
            parts,
            *beside.key,
            sought.ids,
            lambda done, total: self._tell("reading the log", done, total),
        )
        return Purged(
            namespace=beside.namespace,
            version=scan.version,
            rewritten=rewritten,
            deleted_objects=objects,
            deleted_bytes=size,
            scanned_objects=scan.objects,
            scanned_bytes=scan.size,
            left=tuple(scan.left),
            holding=tuple(scan.holding),
            log=log,
        )

    async def _rewrite(self) -> int:
        """Files with dead rows, then the id runs made before. How many jobs it took."""
        done = dropped = 0
        goal: int | None = None
        while True:
            manifest = await self._beside.newest()
            if manifest is None:
                return done
            job = file_job(manifest)
            if job is None:
                goal = manifest.version if goal is None else goal
                job = run_job(manifest, goal)
            if job is None:
                return done
            if await self._beside.rewrite(manifest, job):
                done, dropped = done + 1, 0
                self._tell("rewriting files", done, done)
            else:
                dropped += 1
            if dropped > DROPPED_MAX:
                raise Unavailable(f"{self._beside.namespace!r} changes too fast, try again later")

    async def _begin_anew(self) -> Manifest | None:
        """The manifest in new sections: the old ones tell of files and values that are gone."""
        beside = self._beside
        shop = beside.parts.workshop(beside.settings)
        for _ in range(FLAT_TRIES):
            newest = await beside.newest()
            if newest is None:
                return None
            content = msgspec.structs.replace(newest, sections=())
            following = committed_as(content, blank(shop, beside.target(newest), newest))
            try:
                flat = await uninterrupted(beside.parts.manifests.commit(following))
            except (ManifestConflict, Fenced):
                continue
            if not flat.sections:
                # Those of an earlier manifest may have stayed behind, in a crash for example.
                await SectionStore(beside.parts.store).drop_packs(beside.schema.prefix)
            return flat
        raise Unavailable(f"{beside.namespace!r} changes too fast, try again later")


def file_job(manifest: Manifest) -> Compaction | None:
    """A job that leaves one file with dead rows behind; None when no file has any."""
    for file in manifest.files:
        if file.dead_count:
            if file.is_delta or file.inline:
                return MergeDeltas((file.uuid,))
            if file.cluster >= 0:
                return FoldClusters((file.cluster,))
            return FoldFiles((file.uuid,))
    return None


def run_job(manifest: Manifest, goal: int) -> Compaction | None:
    """A job for one id run that may name what was dead at version `goal`; None if none can: each
    live row that is covered has one entry, and there are no others.
    """
    covered = sum(file.live for file in manifest.files if file.in_runs)
    if sum(run.entries for run in manifest.id_runs) == covered:
        return None
    for run in manifest.id_runs:
        if run.origin or run.as_of < goal:  # a branch's runs say versions of its source
            return MergeRuns(((run.object.name,),))
    return None
