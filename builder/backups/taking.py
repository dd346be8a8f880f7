"""Taking a backup: one snapshot object for each living namespace of an index, and their list.

All are taken after everything that was acknowledged before is indexed, so each holds it. Whoever
takes over after a crash begins behind the last part of the list; see `storage.snapshot_lists`.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from builder.backups.together import together
from builder.branching.branches import Branches, Place
from builder.parts import BuilderParts
from core.errors import FailedPrecondition, NotFound, Unavailable
from core.indexes import IndexInfo
from core.log import NO_LSN
from core.partition import partition_of, wal_key
from storage.snapshot_lists import (
    FIRST_PART,
    PART_MAX,
    ListedSnapshot,
    ListPart,
    SnapshotList,
    SnapshotLists,
)

# Each is some five requests to the store.
TAKEN_AT_ONCE = 16
Told = Callable[[], None]


def snapshot_name(backup_id: str) -> str:
    """What the snapshots of a backup are called."""
    return f"backup-{backup_id}"


@dataclass(slots=True)
class _Done:
    """Of the parts that are put. after: the last namespace in them, with its partition."""

    parts: list[str]
    after: tuple[int, str] = (0, "")
    namespaces: int = 0
    records: int = 0
    bytes: int = 0

    def add(self, part: ListPart, digest: str, partition: int) -> None:
        self.parts.append(digest)
        self.after = (partition, part.snapshots[-1].namespace)
        self.namespaces += len(part.snapshots)
        self.records += sum(one.records for one in part.snapshots)
        self.bytes += sum(one.bytes for one in part.snapshots)


class Taking:
    """Of one backup of `index`. told: called whenever it has come further."""

    def __init__(
        self, parts: BuilderParts, branches: Branches, backup_id: str, index: IndexInfo, told: Told
    ) -> None:
        self._parts = parts
        self._branches = branches
        self._backup_id = backup_id
        self._index = index
        self._told = told
        self._lists = SnapshotLists(parts.store)

    async def run(self) -> SnapshotList:
        """Its list, once it is complete; may be repeated after any error.

        `Unavailable`: the index builder lags, or another process has it now. `NotFound`: the index
        is deleted. `FailedPrecondition`: a namespace cannot be backed up.
        """
        again = not await self._lists.begin(self._backup_id)
        known = await self._lists.read(self._backup_id)
        if known is not None:
            return known
        await self._branches.everything_indexed()
        self._told()
        done = await self._done_before()
        async for names in self._chunks(done.after):
            await self._put(done, names, again=again)
            self._told()
        info = await self._parts.directory.find(self._index.index_id)
        if info is None or not info.state.living:
            raise NotFound(f"index {self._index.name} is deleted")
        whole = SnapshotList(
            backup_id=self._backup_id,
            index_id=self._index.index_id,
            created_ms=self._parts.clock.now_ms(),
            parts=tuple(done.parts),
            namespaces=done.namespaces,
            records=done.records,
            bytes=done.bytes,
        )
        if not await self._lists.finish(whole):
            raise Unavailable(f"another process has finished backup {self._backup_id}")
        return whole

    async def _done_before(self) -> _Done:
        done = _Done([])
        async for part, digest in self._lists.parts(self._backup_id):
            done.add(part, digest, self._partition(part.snapshots[-1].namespace))
        return done

    async def _chunks(self, after: tuple[int, str]) -> AsyncIterator[list[str]]:
        """Names of living namespaces behind `after`, in the order of (partition, name)."""
        names: list[str] = []
        for partition in range(after[0], self._parts.partitions):
            behind = after[1] if partition == after[0] else ""
            async for name in self._living(partition, behind):
                names.append(name)
                if len(names) == PART_MAX:
                    yield names
                    names = []
        if names:
            yield names

    async def _living(self, partition: int, after: str) -> AsyncIterator[str]:
        registry = self._parts.registry
        state = await registry.newest(partition)
        if state is None:
            return
        async for (_, name), summary in registry.walk(state, self._index.index_id, after=after):
            if summary.held_from != NO_LSN:
                raise FailedPrecondition(
                    f"namespace {name!r} waits for a person to repair its files, so it cannot be "
                    "backed up as it is; `firndb status` tells more"
                )
            if not summary.deleted:
                yield name

    async def _put(self, done: _Done, names: list[str], *, again: bool) -> None:
        """One part; none if all of its namespaces are gone by now."""

        async def take(name: str) -> ListedSnapshot | None:
            return await self._one(name, again=again)

        found = await together(TAKEN_AT_ONCE, take, names)
        taken = tuple(one for one in found if one is not None)
        if not taken:
            return
        part = ListPart(
            backup_id=self._backup_id,
            number=FIRST_PART + len(done.parts),
            before=done.namespaces,
            snapshots=taken,
        )
        digest = await self._lists.add(part)
        if digest is None:
            raise Unavailable(f"another process takes backup {self._backup_id}")
        done.add(part, digest, self._partition(taken[-1].namespace))

    async def _one(self, name: str, *, again: bool) -> ListedSnapshot | None:
        place = Place(self._index, name)
        made = await self._branches.of_backup(place, snapshot_name(self._backup_id), again=again)
        if made is None:
            return None
        return ListedSnapshot(
            namespace=name,
            snapshot_id=made.id,
            checksum=made.checksum(),
            origins=made.origins,
            records=made.record_count,
            bytes=made.byte_count + len(made.encoded),
        )

    def _partition(self, name: str) -> int:
        return partition_of(wal_key(self._index.index_id, name), self._parts.partitions)
