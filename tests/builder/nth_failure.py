"""The Nth object-store call of an operation fails, N = 1, 2, 3 … until the operation meets no more.

How to put an operation under it (see `test_nth_failure.py`):

    Story("purge", prepare, operate)

- `prepare(world)` makes the state before, once for all trials and without failures. Whatever it
  leaves in the log unflushed is flushed by `operate` or by whoever takes over.
- `operate(world, builder)` is what fails: any calls on a builder that owns partition 0, or on
  `world.parts()`. After a failure it is called again, as an operator would, so it
  must end well where an earlier call got anywhere, even to its end.
- `check(world)` (optional) is asked beside `settled` whenever the story should be over. A world
  under check has a store without faults and a cache of its own.

`run_nth` does the rest: trials on copies of the prepared state, each with a process that fails or
dies and one that takes over, `settled` after each step of it. All verbs on data files are calls of
the store here, as on S3: nothing is mapped from a local folder.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from shutil import rmtree

from builder.builder import IndexBuilder
from builder.garbage.plan import Grace
from core.errors import FirnError
from core.object_store import ObjectStore
from core.operations import DeleteIds
from infra.objects.faulty import Fault, FaultyStore, Verb
from storage.checksum import checksum
from storage.layout import kind_of, manifests_prefix, namespace_prefix, version_of
from storage.manifest import Manifest
from storage.references import keys_of, objects_of
from storage.snapshots import SnapshotStore
from tests.builder.world import Life, ListLog, World, upsert
from tests.builder.yard import GRACE_S, MovedClock
from tests.storage.memory_store import MemoryStore

# A single failure is overcome by repeating; the second try meets none.
TRIES = 4
CALLS_MAX = 5_000
# A round, what it frees, and what the commit of the round has left.
COLLECTIONS_MAX = 5


class Killed(BaseException):
    """The process dies at a call: no handler of the code under test catches this."""


def once(nth: int) -> tuple[Fault, ...]:
    return (Fault(nth),)


def for_good(nth: int) -> tuple[Fault, ...]:
    """Until another process takes over."""
    return (Fault(nth, for_good=True),)


def took_effect(nth: int) -> tuple[Fault, ...]:
    return (Fault(nth, after=True),)


def killed_before(nth: int) -> tuple[Fault, ...]:
    return (Fault(nth, for_good=True, error=Killed),)


def killed_after(nth: int) -> tuple[Fault, ...]:
    """The call is the last thing that the process ever does."""
    return (Fault(nth, after=True, error=Killed), Fault(nth + 1, for_good=True, error=Killed))


Mode = Callable[[int], tuple[Fault, ...]]
MODES: tuple[Mode, ...] = (once, for_good, took_effect, killed_before, killed_after)


async def nothing(world: World) -> None: ...


@dataclass(frozen=True, slots=True)
class Story:
    """What the module's text says."""

    name: str
    prepare: Callable[[World], Awaitable[None]]
    operate: Callable[[World, IndexBuilder], Awaitable[None]]
    check: Callable[[World], Awaitable[None]] = nothing


async def run_nth(story: Story, folder: Path, *, every: bool) -> int:
    """Every N in every mode; the short form takes the first call of each kind. How many failed."""
    stored, prepared = await _prepared(story, folder / "prepared")

    async def trial(mode: Mode, nth: int) -> Watched:
        place = folder / f"{mode.__name__}-{nth}"
        objects = MemoryStore()
        objects.objects = dict(stored.objects)
        started = _Trial(story, place, objects, _copied(prepared, place, objects))
        try:
            return await started.run(mode, nth)
        except BaseException as error:
            error.add_note(f"{story.name}, call {nth}, {mode.__name__}")
            raise
        finally:
            await started.close()
            rmtree(place)

    if not every:
        # With no fault: only to see the calls.
        sample = _sample((await trial(once, CALLS_MAX)).calls)
        return sum([(await trial(mode, nth)).struck > 0 for nth, mode in sample])
    failed = 0
    for mode in MODES:
        for nth in range(1, CALLS_MAX):
            if not (await trial(mode, nth)).struck:
                break
            failed += 1
        else:
            raise AssertionError("the operation must end by itself")
    return failed


def _sample(calls: Sequence[tuple[Verb, str]]) -> list[tuple[int, Mode]]:
    """The first call of each verb on each kind of object; what decides a race in every mode."""
    kinds: set[tuple[Verb, str]] = set()
    chosen: list[tuple[int, Mode]] = []
    for nth, (verb, key) in enumerate(calls, 1):
        kind = (verb, kind_of(key))
        if kind not in kinds:
            kinds.add(kind)
            decides = verb == "put_if_absent"
            chosen += [(nth, mode) for mode in (MODES if decides else (MODES[len(kinds) % 5],))]
    return chosen


async def settled(world: World) -> None:
    """The files hold what the truth says, and the chain covers the log without gap or overlap."""
    await world.check()
    for (index, ns), life in world.truth.items():
        chain = await _chain(world, index, ns)
        for earlier, later in pairwise(chain):
            assert later.version == earlier.version + 1, "no gap in the chain of manifests"
            assert later.indexed_lsn >= earlier.indexed_lsn, "nothing is indexed twice"
            assert later.generation >= earlier.generation
            assert later.owner_epoch >= earlier.owner_epoch
        if chain and life.exists:
            assert chain[-1].indexed_lsn == life.last_lsn, "all entries up to the last, no more"
            prefix = namespace_prefix(index, ns)
            for origin, ref in objects_of(chain[-1].files, chain[-1].id_runs):
                data = await world.store.get((origin or prefix) + ref.name)
                assert checksum(data) == ref.checksum, ref.name


class Watched(FaultyStore):
    """Remembers what was asked of it."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.calls: list[tuple[Verb, str]] = []

    def _next(self, verb: Verb, key: str) -> Fault | None:
        self.calls.append((verb, key))
        return super()._next(verb, key)


class _Trial:
    """One N: `world` is of the process at work, each with a store and a cache of its own."""

    def __init__(self, story: Story, folder: Path, objects: MemoryStore, world: World) -> None:
        self._story = story
        self._folder = folder
        self._objects = objects
        self._clock = MovedClock()
        world.clock = self._clock
        self._worlds = [world]
        self._looking = beside(world, folder / "looking", objects)

    @property
    def world(self) -> World:
        return self._worlds[-1]

    async def run(self, mode: Mode, nth: int) -> Watched:
        """The store of the process that failed."""
        store = Watched(self._objects)
        builder = await self._begin(store)
        store.calls.clear()
        for fault in mode(nth):
            store.inject(fault)
        repeats = mode in (once, took_effect)
        await self._operate(builder, TRIES if repeats else 1)
        if not repeats or nth % 2:
            # The dead one can do nothing more: its store fails for good.
            await builder.revoke([0], lost=True)
            builder = await self._begin(self._objects)
        store.heal()
        await self._caught_up(builder)
        await self._story.operate(self.world, builder)
        await self._caught_up(builder)
        await self.world.write(upsert("r1", "later", seed=9.0), DeleteIds(("r2",)))
        await builder.compact()
        await self._caught_up(builder)
        await self._collected(builder)
        return store

    async def close(self) -> None:
        for world in (*self._worlds, self._looking):
            await world.close()

    async def _begin(self, store: ObjectStore) -> IndexBuilder:
        """Another process: what was in memory and in the cache is gone."""
        life = len(self._worlds)
        self._worlds.append(beside(self.world, self._folder / f"life-{life}", store))
        builder = self.world.builder()
        await builder.assign(0)
        return builder

    async def _operate(self, builder: IndexBuilder, tries: int) -> None:
        for left in range(tries - 1, -1, -1):
            try:
                return await self._story.operate(self.world, builder)
            except FirnError:
                if not left and tries > 1:
                    raise
            except Killed:
                return None
        return None

    async def _caught_up(self, builder: IndexBuilder) -> None:
        """All of the log is in the index, as somebody sees who has taken part in nothing."""
        await self.world.feed_all(builder)
        await builder.flush()
        assert builder.committable(0) == await self.world.log.end_offset(0)
        await settled(self._looking)
        await self._story.check(self._looking)

    async def _collected(self, builder: IndexBuilder) -> None:
        """Once their time has come nothing is left that nobody needs; what is needed is there."""
        for index, ns in self.world.truth:
            for _ in range(COLLECTIONS_MAX):
                self._clock.added_s += GRACE_S + 1
                self._objects.now_ms += 1000 * (GRACE_S + 1)
                if not await look_for_garbage(self.world, builder, index, ns):
                    break
            else:
                raise AssertionError(f"garbage of {ns} does not end")
            await nothing_needless(self._looking, index, ns)
        await settled(self._looking)
        await self._story.check(self._looking)


async def look_for_garbage(
    world: World, builder: IndexBuilder, index: str, ns: str, grace: Grace | None = None
) -> int:
    """As the patrol does that finds what dead processes left; objects that went."""
    if await world.manifest(index, ns) is None:
        return 0
    return (await builder._collector.collect(builder._owned[0], (index, ns), grace)).objects


async def nothing_needless(world: World, index: str, ns: str) -> None:
    """At rest there is the newest manifest, what it and snapshots name, and one round. Its hint may
    be missing: the put that failed can have been that.
    """
    prefix = namespace_prefix(index, ns)
    manifest = await world.manifest(index, ns)
    if manifest is None:
        return
    needed = set(keys_of(manifest, prefix))
    snapshots = SnapshotStore(world.store, world.manifests)
    for snapshot in await snapshots.list(prefix):
        needed |= keys_of(await snapshots.manifest(snapshot), snapshot.home)
    rest = [info.key async for info in world.store.list(prefix) if info.key not in needed]
    kinds = sorted(kind_of(key) for key in rest if kind_of(key) not in ("snapshots", "manifest"))
    assert kinds in (["boundary", "manifests"], ["manifests"]), rest


async def _prepared(story: Story, folder: Path) -> tuple[MemoryStore, World]:
    store = MemoryStore()
    world = World(folder, store=store)
    await story.prepare(world)
    await world.close()
    return store, world


def beside(world: World, folder: Path, store: ObjectStore) -> World:
    """The same log and truth, seen by a process with a cache of its own."""
    made = World(folder, store=store, settings=world.settings, clock=world.clock)
    made.log, made.dead_log, made.truth = world.log, world.dead_log, world.truth
    made.directory = world.directory
    return made


def _copied(world: World, folder: Path, store: MemoryStore) -> World:
    """A world that goes its own way from here."""
    made = beside(world, folder, store)
    made.log = ListLog(world.log.gap)
    made.log.records = list(world.log.records)
    made.truth = {
        key: Life(life.exists, dict(life.records), life.last_lsn)
        for key, life in world.truth.items()
    }
    return made


async def _chain(world: World, index: str, ns: str) -> list[Manifest]:
    """Every manifest that the store has, by version."""
    prefix = manifests_prefix(namespace_prefix(index, ns))
    versions = [version_of(info.key) async for info in world.store.list(prefix)]
    found = [await world.manifests.read(index, ns, v) for v in versions if v is not None]
    return [manifest for manifest in found if manifest is not None]
