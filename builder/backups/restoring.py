"""Restoring a backup into a new index: every namespace begins with its snapshot, through an entry
of the log like everything else.

What is done twice does nothing: the pin that holds a namespace's files has an id that follows from
the job and the namespace, and an entry that repeats the pin a namespace was made of is passed over.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from builder.backups.together import together
from builder.branching.branches import Branches, Place, pin_id
from builder.indexed import Progress
from builder.parts import BuilderParts
from core.errors import CorruptData, FailedPrecondition
from core.indexes import IndexInfo
from core.log import NO_LSN
from storage.commit import ManifestStore
from storage.snapshot_lists import (
    FIRST_PART,
    ListedSnapshot,
    ListPart,
    SnapshotList,
    SnapshotLists,
    prefix_of,
)
from storage.snapshots import SnapshotStore

# Each is some five requests to the store and an entry in the log.
ATTACHED_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class RestoreProgress:
    """parts: whose namespaces are all restored. namespaces: of all parts, total as well."""

    parts: int
    namespaces: int
    total: int


class Restoring:
    """One job. created_ms: the job's."""

    def __init__(
        self,
        parts: BuilderParts,
        branches: Branches,
        job_id: str,
        created_ms: int,
        target: IndexInfo,
    ) -> None:
        self._branches = branches
        self._job_id = job_id
        self._created_ms = created_ms
        self._target = target
        self._indexed = Progress(parts)
        self._manifests = ManifestStore(parts.store)
        self._snapshots = SnapshotStore(parts.store, self._manifests)
        self._lists = SnapshotLists(parts.store)

    async def run(
        self, backup_id: str, parts_done: int, told: Callable[[RestoreProgress], Awaitable[None]]
    ) -> None:
        """Until everything is in the index, and known to the registries. May be repeated after any
        error; `parts_done`: of an earlier run.

        `Unavailable`; `CorruptData`: the backup cannot be read; `FailedPrecondition`: somebody else
        has written to the index.
        """
        whole = await self._lists.read(backup_id)
        if whole is None:
            raise CorruptData(f"backup {backup_id} has no list of its snapshots in the store")
        for done, digest in enumerate(whole.parts[parts_done:], start=parts_done):
            part = await self._lists.part(backup_id, FIRST_PART + done, digest)
            await self._part(whole, part)
            reached = part.before + len(part.snapshots)
            await told(RestoreProgress(done + 1, reached, whole.namespaces))
        await self._branches.everything_indexed()

    async def _part(self, whole: SnapshotList, part: ListPart) -> None:

        async def begin(listed: ListedSnapshot) -> tuple[ListedSnapshot, int]:
            return listed, await self._begin(whole, listed)

        begun = await together(ATTACHED_AT_ONCE, begin, part.snapshots)
        written = [(listed, lsn) for listed, lsn in begun if lsn != NO_LSN]
        await together(ATTACHED_AT_ONCE, self._check, written)

    async def _begin(self, whole: SnapshotList, listed: ListedSnapshot) -> int:
        """The LSN of the entry that fills the namespace; `NO_LSN`: it is filled."""
        target = Place(self._target, listed.namespace)
        pin = pin_id(self._job_id, listed.namespace)
        before = await self._manifests.outline(*target.key)
        if before is not None and not before.deleted and before.attached == pin:
            return NO_LSN
        home = prefix_of(whole, listed)
        snapshot = await self._snapshots.read_exactly(home, listed.snapshot_id, listed.checksum)
        if snapshot is None:
            raise CorruptData(
                f"snapshot {listed.snapshot_id} of namespace {listed.namespace!r}, which the "
                "backup names, is gone or is another one"
            )
        return await self._branches.begin(snapshot, target, pin_id=pin, made_ms=self._created_ms)

    async def _check(self, written: tuple[ListedSnapshot, int]) -> None:
        listed, lsn = written
        key = (self._target.index_id, listed.namespace)
        manifest = await self._indexed.entry(*key, lsn)
        if manifest.deleted or manifest.attached != pin_id(self._job_id, listed.namespace):
            raise FailedPrecondition(
                f"namespace {listed.namespace!r} of the new index was written to by somebody else, "
                "so nothing was restored into it"
            )
