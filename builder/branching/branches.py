"""Snapshots, branches and restores: what an operator asks for, as objects in the store and entries
in the log. The builder that owns the target's partition does the rest when it meets the entry.

Safe beside everything else. The cost of a snapshot or branch does not depend on the size of the
namespace; a point in time costs the entries between the snapshot and it.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from builder.branching.history import History, Lives, Moment, newest_before
from builder.indexed import WAIT_S, Progress
from builder.parts import BuilderParts
from core.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
)
from core.indexes import IndexInfo
from core.log import NO_LSN
from core.operations import Attach, Entry, NamespaceWrite
from ingest.writer import LogWriter
from storage.commit import ManifestStore
from storage.layout import namespace_prefix
from storage.snapshots import Snapshot, SnapshotKind, SnapshotStore

# Of one namespace; each is an object that every round of garbage collection reads.
SNAPSHOTS_MAX = 1_000
NAME_CHARS_MAX = 128
# Entries on their way into the log at a time; the writer joins them into few records.
APPENDS = 64
APPEND_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Place:
    """A namespace (canonical name); of an index that is deleted only its snapshots count."""

    index: IndexInfo
    namespace: str

    @property
    def key(self) -> tuple[str, str]:
        return self.index.index_id, self.namespace

    @property
    def prefix(self) -> str:
        return namespace_prefix(*self.key)

    def __str__(self) -> str:
        return f"namespace {self.namespace!r} of index {self.index.name}"


@dataclass(frozen=True, slots=True)
class Restored:
    """snapshot: what it was made of, "" if of the log alone. lsn: of the last entry written for it.
    replayed: log records of the source that were repeated.
    """

    namespace: str
    index: str
    records: int
    lsn: int
    snapshot: str
    replayed: int


def pin_id(job_id: str, namespace: str) -> str:
    """32 hex digits, of this job and target alone, whoever does it and however often."""
    return hashlib.sha256(f"{job_id}/{namespace}".encode()).hexdigest()[:32]


def ignore(done: int, total: int) -> None:
    """No progress is shown."""


class Branches:
    """`writer` is for as long as this object is used; others may write beside it."""

    def __init__(self, parts: BuilderParts, writer: LogWriter, wait_s: float = WAIT_S) -> None:
        self._parts = parts
        self._writer = writer
        self._manifests = ManifestStore(parts.store)
        self._store = SnapshotStore(parts.store, self._manifests)
        self._indexed = Progress(parts, wait_s)

    async def snapshot(self, place: Place, name: str) -> Snapshot:
        """Of everything that was acknowledged before the call. `NotFound`, `AlreadyExists`,
        `DeadlineExceeded`.
        """
        if len(name) > NAME_CHARS_MAX:
            raise InvalidRequest(f"a snapshot's name has {NAME_CHARS_MAX} characters at most")
        own = await self._check_room(place)
        if name and any(name in (one.name, one.id) for one in own):
            raise AlreadyExists(f"{place} has a snapshot {name} already")
        await self._indexed.everything(*place.key)
        return await self._taken(place, SnapshotKind.SNAPSHOT, name=name)

    async def of_backup(self, place: Place, name: str, *, again: bool) -> Snapshot | None:
        """Of what is indexed now, for a backup of many namespaces that has waited for that once.
        `again`: one of the name may be there already, and is taken then. None: the namespace is
        gone. `NotFound`: its index is. `FailedPrecondition`: it has too many snapshots.
        """
        if again:
            mine = [one for one in await self.snapshots(place) if one.name == name]
            if mine:
                return mine[0]
        if len(await self._store.ids(place.prefix)) >= SNAPSHOTS_MAX:
            await self._check_room(place)
        try:
            return await self._taken(place, SnapshotKind.SNAPSHOT, name=name)
        except NotFound:
            newest = await self._manifests.newest(*place.key)
            if newest is not None and not newest.deleted:
                raise
            return None

    async def _check_room(self, place: Place) -> Sequence[Snapshot]:
        own = await self.snapshots(place)
        if len(own) >= SNAPSHOTS_MAX:
            raise FailedPrecondition(
                f"{place} has {len(own)} snapshots, the most there may be; delete some first"
            )
        return own

    async def begin(self, snapshot: Snapshot, target: Place, *, pin_id: str, made_ms: int) -> int:
        """The LSN of an entry that fills `target`, if it never had a life, with the snapshot, whose
        files it keeps in use from now on. The same call once more does nothing new, whatever became
        of the target. `NotFound`: the snapshot was deleted.
        """
        pin = await self._store.take_again(
            snapshot, created_ms=made_ms, holder=target.key, pin_id=pin_id
        )
        return (await self._writer.write(*target.key, [Entry(_attach(pin, NO_LSN))])).lsn

    async def everything_indexed(self) -> None:
        """All namespaces that were written to are in the registries. `DeadlineExceeded`."""
        await self._indexed.whole_log()

    async def snapshots(self, place: Place) -> Sequence[Snapshot]:
        """Somebody's snapshots of the namespace, oldest first."""
        found = await self._store.list(place.prefix)
        kind = SnapshotKind.SNAPSHOT
        return [one for one in found if one.kind is kind and one.home == place.prefix]

    async def held(self, place: Place) -> Sequence[Snapshot]:
        """What branches keep in use of the namespace's files, and snapshots of these branches."""
        found = await self._store.list(place.prefix)
        kind = SnapshotKind.BRANCH
        return [one for one in found if one.kind is kind or one.home != place.prefix]

    async def find(self, place: Place, wanted: str) -> Snapshot:
        """By id or name. `NotFound`."""
        found = [one for one in await self.snapshots(place) if wanted in (one.id, one.name)]
        if len(found) != 1:
            raise NotFound(
                f"{place} has {len(found) or 'no'} snapshot{'s' if found else ''} {wanted}; "
                "`firndb snapshot list` shows their ids"
            )
        return found[0]

    async def delete(self, snapshot: Snapshot) -> None:
        """What was made of it stays: branches have objects of their own."""
        await self._store.delete(snapshot)

    async def branch(self, source: Place, target: Place) -> Restored:
        """The target begins with everything that was acknowledged in the source before the call.

        `NotFound`, `AlreadyExists`, `InvalidRequest` (another schema), `DeadlineExceeded`.
        """
        await self._check_target(source, target)
        await self._indexed.everything(*source.key)
        pin = await self._taken(source, SnapshotKind.BRANCH, holder=target.key)
        return await self._attached(target, pin)

    async def pin(self, source: Place, target: Place, pin_id: str) -> Snapshot:
        """For `attach`: of the newest manifest of a source that nobody writes to any more. pin_id:
        nobody else's; who comes later gets what the first one has made.
        """
        found = await self._store.read(source.prefix, pin_id)
        if found is None:
            await self._taken(source, SnapshotKind.BRANCH, holder=target.key, pin_id=pin_id)
            found = await self._store.read(source.prefix, pin_id)
        if found is None:
            raise NotFound(f"what was made of {source} for {target} is over")
        return found

    async def attach(self, target: Place, pin: Snapshot, last_begun: int) -> Restored:
        """The target begins with what was pinned for it, unless a life of it began after the LSN
        `last_begun`; once more does nothing, whatever became of it since.

        `FailedPrecondition`: it has records or a life of its own. `DeadlineExceeded`: not known
        yet.
        """
        return await self._attached(target, pin, last_begun)

    async def restore(
        self,
        source: Place,
        target: Place,
        *,
        snapshot: Snapshot | None = None,
        moment: Moment | None = None,
        progress: Callable[[int, int], None] = ignore,
    ) -> Restored:
        """The target as the snapshot, or as the source was at the moment: from the snapshot (if not
        given: the newest one before it) and the source's entries since then.

        After an error in the middle the target may have a part of the entries: delete it and begin
        again; as long as it has records, a repetition is refused.
        """
        await self._check_target(source, target)
        if moment is None:
            if snapshot is None:
                raise InvalidRequest("say what to restore: a snapshot, an LSN or a time")
            return await self._attached(target, await self._pinned(snapshot, target))
        if snapshot is None:
            snapshot = newest_before(await self._store.list(source.prefix), source.prefix, moment)
        elif not moment.covers(snapshot):
            raise InvalidRequest(
                f"snapshot {snapshot.id} holds what was written up to LSN {snapshot.indexed_lsn}, "
                "later than what is asked for"
            )
        history = History(self._parts, *source.key)
        start = await history.start(snapshot, moment)
        base: Restored | None = None
        if snapshot is not None:
            base = await self._attached(target, await self._pinned(snapshot, target))
        written = _Appending(self._writer, target)
        lives = Lives(None if snapshot is None else await self._store.manifest(snapshot))
        pins: dict[str, Snapshot] = {}
        async for write in history.writes(start, moment, progress):
            entries = [
                await self._entry(entry, target, pins)
                for entry in write.entries
                if lives.counts(write.lsn, entry.operation)
            ]
            if entries:
                await written.add(write, entries)
        await written.flush()
        if base is None and not written.records:
            raise NotFound(f"the log has nothing of {source} up to there")
        lsn = max(written.last_lsn, NO_LSN if base is None else base.lsn)
        manifest = await self._indexed.entry(*target.key, lsn)
        return Restored(
            namespace=target.namespace,
            index=target.index.name,
            records=manifest.record_count,
            lsn=lsn,
            snapshot="" if snapshot is None else snapshot.id,
            replayed=written.records,
        )

    async def _taken(
        self,
        place: Place,
        kind: SnapshotKind,
        name: str = "",
        holder: tuple[str, str] = ("", ""),
        pin_id: str | None = None,
    ) -> Snapshot:
        now_ms = self._parts.clock.now_ms()
        made = await self._store.take(
            *place.key, name=name, kind=kind, created_ms=now_ms, holder=holder, pin_id=pin_id
        )
        # Of a deleted index everything goes that no snapshot names, without further notice.
        index = await self._parts.directory.find(place.index.index_id)
        if index is None or not index.state.living:
            await self._store.delete(made)
            raise NotFound(f"index {place.index.name} is deleted")
        return made

    async def _entry(self, entry: Entry, target: Place, pins: dict[str, Snapshot]) -> Entry:
        """As the target's log gets it; what the source was made of is pinned for the target: once,
        so that an entry that was repeated is so there too.
        """
        operation = entry.operation
        if not isinstance(operation, Attach):
            return Entry(operation)
        home = namespace_prefix(operation.source_index, operation.source_namespace)
        taken = await self._store.read_exactly(home, operation.snapshot_id, operation.checksum)
        if taken is None:
            raise FailedPrecondition(
                f"the source was made of snapshot {operation.snapshot_id}, which is gone"
            )
        if taken.id not in pins:
            pins[taken.id] = await self._pinned(taken, target)
        return Entry(_attach(pins[taken.id]))

    async def _pinned(self, snapshot: Snapshot, target: Place) -> Snapshot:
        now_ms = self._parts.clock.now_ms()
        return await self._store.take_again(snapshot, created_ms=now_ms, holder=target.key)

    async def _attached(
        self, target: Place, pin: Snapshot, last_begun: int | None = None
    ) -> Restored:
        """Writes the entry and waits until it is in the index."""
        entry = Entry(_attach(pin, last_begun))
        written = await self._writer.write(*target.key, [entry])
        manifest = await self._indexed.entry(*target.key, written.lsn)
        if manifest.attached != pin.id or manifest.deleted:
            raise FailedPrecondition(
                f"{target} was written to meanwhile, so nothing was restored into it"
            )
        return Restored(
            namespace=target.namespace,
            index=target.index.name,
            records=manifest.record_count,
            lsn=written.lsn,
            snapshot=pin.id,
            replayed=0,
        )

    async def _check_target(self, source: Place, target: Place) -> None:
        one, other = source.index, target.index
        if (one.project_id, one.vector_type, one.dimension, one.metric) != (
            *(other.project_id, other.vector_type, other.dimension, other.metric),
        ):
            raise InvalidRequest(
                f"index {other.name} has another vector type, dimension or metric than {one.name}"
            )
        await self._indexed.everything(*target.key)
        manifest = await self._manifests.newest(*target.key)
        if manifest is None or manifest.deleted:
            return
        if manifest.record_count or manifest.attached:
            raise AlreadyExists(
                f"{target} is there already, with {manifest.record_count} records; choose another "
                "name, or delete it first"
            )


class _Appending:
    """Writes in order, many at a time. records: how many; last_lsn: of what is durable."""

    def __init__(self, writer: LogWriter, target: Place) -> None:
        self._writer = writer
        self._target = target
        self._waiting: list[list[Entry]] = []
        self._bytes = 0
        self.records = 0
        self.last_lsn = NO_LSN

    async def add(self, write: NamespaceWrite, entries: list[Entry]) -> None:
        if self._waiting and self._bytes + write.value_bytes > APPEND_BYTES:
            await self.flush()
        self._waiting.append(entries)
        self._bytes += write.value_bytes
        self.records += 1
        if len(self._waiting) == APPENDS:
            await self.flush()

    async def flush(self) -> None:
        """Tasks begin in the order in which they are made, and so do their writes."""
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._writer.write(*self._target.key, entries))
                for entries in waiting
            ]
        self.last_lsn = max([self.last_lsn, *(task.result().lsn for task in tasks)])


def _attach(pin: Snapshot, last_begun: int | None = None) -> Attach:
    return Attach(pin.index_id, pin.namespace, pin.id, pin.checksum(), last_begun)
