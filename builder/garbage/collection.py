"""One pass of garbage collection over one namespace: survey, plan, delete, begin a round, again."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from builder.chain import Target, Workshop, blank, committed_as, uninterrupted
from builder.garbage.pins import Pins
from builder.garbage.plan import DATA_FOLDERS, GarbagePlan, Grace, Survey, oldest_kept, plan
from core.errors import Unavailable
from core.indexes import IndexDirectory
from core.object_store import ObjectInfo, ObjectStore
from storage.boundary import OBJECTS_MAX, Boundary, BoundaryStore
from storage.commit import KEPT_PLACE, ManifestConflict, ManifestStore
from storage.layout import (
    boundaries_prefix,
    manifests_prefix,
    namespace_prefix,
    snapshots_prefix,
    version_of,
)
from storage.manifest import Manifest
from storage.references import keys_of

# As many as a store answers without slowing others down.
DELETES_AT_ONCE = 16
# Each takes thousands of objects; what is left waits for the next pass.
ROUNDS_MAX = 16
# Unnamed objects that one survey remembers, some 250 bytes each; it sees the rest next time.
UNNAMED_MAX = 4 * OBJECTS_MAX
CONFLICTS_MAX = 16

# Commits a round's number on whatever is newest: that manifest, or None if another collector did.
CommitBoundary = Callable[[Manifest, int], Awaitable[Manifest | None]]


@dataclass(slots=True)
class Swept:
    """What one pass has deleted, or would delete; `waiting`: garbage whose time has not come.

    objects, bytes: of all kinds; manifests: those among them. names: below the namespace's prefix.
    pins: objects of branches and the like, to be looked at again.
    """

    objects: int = 0
    bytes: int = 0
    manifests: int = 0
    rounds: int = 0
    waiting_objects: int = 0
    waiting_bytes: int = 0
    names: list[str] = field(default_factory=list, repr=False)
    pins: int = 0

    @property
    def at_rest(self) -> bool:
        return not self.waiting_objects and not self.pins

    def add(self, infos: Sequence[ObjectInfo], prefix: str, *, manifests: bool = False) -> None:
        self.objects += len(infos)
        self.bytes += sum(info.size for info in infos)
        self.manifests += len(infos) if manifests else 0
        self.names += [info.key[len(prefix) :] for info in infos]


class Collection:
    """Of one namespace. `commit` is asked for no-op manifests that carry a round's number.

    `Unavailable` and what `commit` raises: nothing is lost, the next pass goes on from there.
    `FailedPrecondition` where a snapshot cannot be read: nothing is deleted then.
    """

    def __init__(
        self,
        store: ObjectStore,
        index_id: str,
        namespace: str,
        now_ms: int,
        grace: Grace,
        directory: IndexDirectory,
    ) -> None:
        self._store = store
        self._manifests = ManifestStore(store)
        self._boundaries = BoundaryStore(store)
        self._key = (index_id, namespace)
        self._prefix = namespace_prefix(index_id, namespace)
        self._now_ms = now_ms
        self._grace = grace
        self._pins = Pins(store, directory, self._prefix, now_ms, grace)
        self._swept = Swept()
        self._said = frozenset[str]()

    async def dry_run(self) -> Swept:
        """What a pass would delete now."""
        survey = await self._survey()
        if survey is None:
            return self._swept
        if survey.uncommitted is not None:
            newest = msgspec.structs.replace(survey.newest, boundary=survey.uncommitted.number)
            said = self._unnamed_by(newest, survey.uncommitted)
            survey = replace(survey, newest=newest, said=said)
        planned = plan(survey, self._grace)
        self._count((*planned.delete, *planned.release))
        self._count((*planned.free, *planned.then_free, *planned.clear), manifests=True)
        if planned.begin is not None:
            named = {self._prefix + name for name in planned.begin.objects}
            self._count([info for info in survey.unnamed if info.key in named])
        return self._ended(planned)

    async def run(self, commit: CommitBoundary) -> Swept:
        for _ in range(ROUNDS_MAX):
            survey = await self._survey()
            if survey is None:
                return self._swept
            if survey.uncommitted is not None:
                await self._committed(commit, survey.newest, survey.uncommitted)
                continue
            planned = plan(survey, self._grace)
            await self._delete(planned)
            if planned.begin is None:
                return self._ended(planned)
            # Lost to another collector: it is at the same work.
            if await self._boundaries.create(planned.begin):
                await self._committed(commit, survey.newest, planned.begin)
        self._swept.waiting_objects = 1
        return self._swept

    async def _committed(self, commit: CommitBoundary, newest: Manifest, of: Boundary) -> None:
        """From here on nobody can come to name what the round lists and its manifest does not."""
        manifest = await commit(newest, of.number)
        self._said = frozenset() if manifest is None else self._unnamed_by(manifest, of)
        self._swept.rounds += 1

    def _unnamed_by(self, manifest: Manifest, boundary: Boundary) -> frozenset[str]:
        named = keys_of(manifest, self._prefix)
        return frozenset(name for name in boundary.objects if self._prefix + name not in named)

    async def _survey(self) -> Survey | None:
        """None: there is no manifest.

        Once the newest manifest is committed after the newest round, no writer can come to name
        what that round lists; so who names it is read later than that manifest.
        """
        newest = await self._manifests.newest(*self._key)
        if newest is None:
            return None
        boundary = await self._boundaries.newest(self._prefix)
        named = await self._named(newest.version)
        if named is None:
            raise Unavailable(f"manifest {newest.version} of {self._prefix} was followed meanwhile")
        listed = await self._listed(named)
        kept = oldest_kept(listed.manifests, self._now_ms, self._grace)
        used = set[str]()
        if kept is not None:
            version = version_of(kept.key)
            assert version is not None
            used |= await self._named(version) or frozenset()
        pinned = await self._pins.look(listed.snapshots, [i.key for i in listed.unnamed])
        used |= pinned.used
        self._swept.pins = pinned.temporary
        return Survey(
            prefix=self._prefix,
            now_ms=self._now_ms,
            newest=newest,
            manifests=listed.manifests,
            boundaries=listed.boundaries,
            boundary=boundary,
            unnamed=[info for info in listed.unnamed if info.key not in used],
            released=pinned.over,
            said=self._said,
        )

    async def _named(self, version: int) -> frozenset[str] | None:
        return await self._manifests.named(*self._key, version)

    async def _listed(self, named: frozenset[str]) -> "_Listed":
        found = _Listed()
        prefix = self._prefix
        places = {
            manifests_prefix(prefix): found.manifests,
            boundaries_prefix(prefix): found.boundaries,
            snapshots_prefix(prefix): found.snapshots,
        }
        async for info in self._store.list(prefix):
            folder = info.key[: info.key.find("/", len(prefix)) + 1]
            if folder[len(prefix) :] in DATA_FOLDERS:
                if info.key not in named and len(found.unnamed) < UNNAMED_MAX:
                    found.unnamed.append(info)
            elif folder in places and (
                version_of(info.key) is not None or folder == snapshots_prefix(prefix)
            ):
                places[folder].append(info)
        return found

    async def _delete(self, planned: GarbagePlan) -> None:
        await self._each(planned.delete, lambda info: self._store.delete(info.key))
        for info in planned.free:
            await self._store.delete(info.key)
            self._count((info,), manifests=True)
        for info in planned.clear:
            await self._store.put(info.key, KEPT_PLACE)
            self._count((info,), manifests=True)
        for info in planned.forget:
            await self._store.delete(info.key)
        await self._each(planned.release, lambda info: self._store.delete(info.key))

    async def _each(
        self, infos: Sequence[ObjectInfo], act: Callable[[ObjectInfo], Awaitable[None]]
    ) -> None:
        for start in range(0, len(infos), DELETES_AT_ONCE):
            part = infos[start : start + DELETES_AT_ONCE]
            await asyncio.gather(*(act(info) for info in part))
            self._count(part)

    def _count(self, infos: Sequence[ObjectInfo], *, manifests: bool = False) -> None:
        self._swept.add(infos, self._prefix, manifests=manifests)

    def _ended(self, planned: GarbagePlan) -> Swept:
        self._swept.waiting_objects = len(planned.young)
        self._swept.waiting_bytes = sum(info.size for info in planned.young)
        return self._swept


@dataclass(slots=True)
class _Listed:
    manifests: list[ObjectInfo] = field(default_factory=list)
    boundaries: list[ObjectInfo] = field(default_factory=list)
    snapshots: list[ObjectInfo] = field(default_factory=list)
    unnamed: list[ObjectInfo] = field(default_factory=list)


async def commit_boundary(
    shop: Workshop, target: Target, newest: Manifest, number: int
) -> Manifest | None:
    """`newest`, or what is the newest by then, committed once more after round `number`; None if
    another collector did it.

    From then on every put of a writer that began before meets another manifest.
    """
    for _ in range(CONFLICTS_MAX):
        if newest.boundary >= number:
            return None
        own = msgspec.structs.replace(blank(shop, target, newest), boundary=number)
        following = committed_as(newest, own)
        try:
            return await uninterrupted(shop.chain.commit(following))
        except ManifestConflict as conflict:
            newest = conflict.newest
    raise Unavailable(f"{CONFLICTS_MAX} other commits came first, again and again")


async def sweep(store: ObjectStore, pins: Pins, *, dry_run: bool = False) -> Swept:
    """Delete all of a namespace of an index that was deleted: its id never comes back. What
    snapshots and branches name stays.
    """
    swept = Swept()
    prefix = pins.prefix
    listed: list[ObjectInfo] = []
    snapshots: list[ObjectInfo] = []
    async for info in store.list(prefix):
        if info.key.startswith(snapshots_prefix(prefix)):
            snapshots.append(info)
        elif info.modified_ms > pins.now_ms - pins.grace.ms or len(listed) == UNNAMED_MAX:
            swept.waiting_objects += 1
            swept.waiting_bytes += info.size
        else:
            listed.append(info)
    pinned = await pins.look(snapshots, [info.key for info in listed])
    swept.pins = len(snapshots) - len(pinned.over)
    old = [*pinned.over, *(info for info in listed if info.key not in pinned.used)]
    for start in range(0, len(old), DELETES_AT_ONCE):
        part = old[start : start + DELETES_AT_ONCE]
        if not dry_run:
            await asyncio.gather(*(store.delete(info.key) for info in part))
        swept.add(part, prefix)
    return swept
