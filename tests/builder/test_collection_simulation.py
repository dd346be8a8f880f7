"""Random interleavings of writers, readers, snapshots and collectors, one store call at a time.

A scheduler decides which actor's next call takes effect; some sleep for hours in the middle of what
they do. At stake: an object deleted that is named, a namespace that a sleeper brings back, garbage
that stays for ever. Manifests are real, their files are some bytes each: what is under test is who
may name what.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec
import pytest

from builder.chain import Target, Workshop, blank, committed_as, were_collected
from builder.garbage.collection import Collection, commit_boundary
from builder.garbage.plan import Grace
from builder.metrics import BuilderMetrics
from core.clock import SystemClock, new_uuid
from core.errors import FirnError
from core.object_store import ObjectInfo, ObjectStore
from infra.telemetry import Metrics
from storage.commit import ManifestConflict, ManifestStore
from storage.layout import NamespaceSchema, delta_name
from storage.manifest import DataFile, Manifest, ObjectRef
from storage.references import keys_of
from storage.snapshots import Snapshot, SnapshotKind, SnapshotStore
from tests.builder.world import DENSE, Directory
from tests.storage.memory_store import MemoryStore

T = TypeVar("T")
SCHEMA = NamespaceSchema("dense", "n", DENSE.metric, DENSE.dimension)
KEY = ("dense", "n")
GRACE_MS = 3_600_000
# Longer than a job may take: half of the naps of a sleeper.
NAPS_MS = (60_000, 4_000_000, 9_000_000, 40_000_000)
STEPS = 600
# What is deleted stays so, and is seen by the next look as well.
CHECK_EVERY = 10
FILES_MAX = 12
SEEDS = 1_000
SHORT_SEEDS = 40


class Dead(BaseException):
    """The actor's process died between two calls."""


@dataclass
class Bench:
    """The store, its time, and who waits for which turn."""

    random: random.Random
    store: MemoryStore = field(default_factory=MemoryStore)
    turns: dict[str, list[asyncio.Future[None]]] = field(default_factory=dict)
    asleep_until: dict[str, int] = field(default_factory=dict)

    async def turn(self, actor: str) -> None:
        turn = asyncio.get_running_loop().create_future()
        self.turns.setdefault(actor, []).append(turn)
        await turn

    async def step(self) -> bool:
        """One actor's next call takes effect; False: nobody waits for a turn."""
        await settle()
        now = self.store.now_ms
        awake = [a for a in self.turns if self.asleep_until.get(a, 0) <= now]
        if not awake:
            if not self.turns:
                return False
            self.store.now_ms = min(self.asleep_until[a] for a in self.turns)
            return True
        actor = self.random.choice(sorted(awake))
        draw = self.random.random()
        if draw < 0.04:
            self.asleep_until[actor] = now + self.random.choice(NAPS_MS)
            return True
        waiting = self.turns.pop(actor)
        if draw < 0.045:
            for turn in waiting:
                turn.set_exception(Dead())
        else:
            waiting.pop(self.random.randrange(len(waiting))).set_result(None)
            if waiting:
                self.turns[actor] = waiting
        self.store.now_ms += self.random.choice((0, 10, 1_000))
        return True

    async def end(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        """All processes die, also those that want to see a commit through."""
        for task in tasks:
            task.cancel()
        while not all(task.done() for task in tasks):
            await settle()
            for turn in [turn for waiting in self.turns.values() for turn in waiting]:
                if not turn.done():
                    turn.set_exception(Dead())
            self.turns.clear()


async def settle() -> None:
    """Everybody goes on until he waits for a turn."""
    for _ in range(12):
        await asyncio.sleep(0)


class ActorClock(SystemClock):
    """Everybody's seconds are the store's."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def monotonic(self) -> float:
        return self._store.now_ms / 1000

    def now_ms(self) -> int:
        return self._store.now_ms


class ActorStore(ObjectStore):
    """Each call waits for its actor's turn."""

    def __init__(self, bench: Bench, actor: str) -> None:
        self._bench = bench
        self._actor = actor

    async def _do(self, act: Callable[[], Awaitable[T]]) -> T:
        await self._bench.turn(self._actor)
        return await act()

    async def get(self, key: str) -> bytes:
        return await self._do(lambda: self._bench.store.get(key))

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        return await self._do(lambda: self._bench.store.get_range(key, start, end))

    async def put(self, key: str, data: bytes) -> None:
        await self._do(lambda: self._bench.store.put(key, data))

    async def put_if_absent(self, key: str, data: bytes) -> bool:
        return await self._do(lambda: self._bench.store.put_if_absent(key, data))

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        await self._bench.turn(self._actor)
        async for info in self._bench.store.list(prefix, start_after=start_after):
            yield info

    async def delete(self, key: str) -> None:
        await self._do(lambda: self._bench.store.delete(key))

    async def stat(self, key: str) -> ObjectInfo | None:
        return await self._do(lambda: self._bench.store.stat(key))

    async def close(self) -> None:
        """Nothing to do."""


class Actor:
    """A process with a store and a chain of its own; it does one thing after the other."""

    def __init__(self, bench: Bench, epoch: int, store: ObjectStore) -> None:
        self.bench = bench
        self.random = random.Random(bench.random.random())
        self.store = store
        clock = ActorClock(bench.store)
        self.manifests = ManifestStore(self.store, clock)
        self.target = Target(SCHEMA, epoch)
        self.shop = Workshop(
            store=self.store,
            chain=self.manifests,
            cache=None,  # type: ignore[arg-type]  # nothing here opens a file
            clock=clock,
            log_id="log-1",
            log_epoch=1,
            fold_bytes=1,
            inline_bytes=0,
            metrics=BuilderMetrics(Metrics()),
        )

    async def put_file(self) -> DataFile:
        name = new_uuid()
        ref = ObjectRef(name=delta_name(name), size=4, checksum="")
        await self.store.put(SCHEMA.prefix + ref.name, b"data")
        return DataFile(uuid=name, columns=ref, vectors=None, rows=1, cluster=-1)

    async def flush(self) -> None:
        """A new file on whatever is newest; in a new one for each try."""
        manifest = await self.manifests.newest(*KEY)
        if manifest is not None and len(manifest.files) > FILES_MAX:
            return
        for _ in range(4):
            made = await self.put_file()
            files = () if manifest is None else manifest.files
            try:
                await self.commit(manifest, (*files, made))
            except ManifestConflict as conflict:
                manifest = conflict.newest
                continue
            return

    async def compact(self) -> None:
        """Some files into a new one; the work is carried over to what is newest at the end."""
        manifest = await self.manifests.newest(*KEY)
        if manifest is None or len(manifest.files) < 2:
            return
        inputs = {f.uuid for f in self.random.sample(manifest.files, 2)}
        made, since = await self.put_file(), manifest.boundary
        for _ in range(4):
            if not inputs <= {file.uuid for file in manifest.files}:
                return
            names = (made.columns.name,)
            if await were_collected(self.shop, SCHEMA.prefix, names, since, manifest):
                return
            rest = tuple(file for file in manifest.files if file.uuid not in inputs)
            both = msgspec.structs.replace(made, rows=2)
            try:
                await self.commit(manifest, (*rest, both))
            except ManifestConflict as conflict:
                manifest = conflict.newest
                continue
            return

    async def commit(self, newest: Manifest | None, files: tuple[DataFile, ...]) -> None:
        own = blank(self.shop, self.target, newest)
        content = msgspec.structs.replace(
            own, files=files, record_count=sum(file.live for file in files)
        )
        await self.manifests.commit(committed_as(content, own))

    async def erase(self) -> None:
        """The namespace is deleted; the next flush begins anew."""
        manifest = await self.manifests.newest(*KEY)
        if manifest is not None:
            own = blank(self.shop, self.target, manifest)
            with suppress(ManifestConflict):
                await self.manifests.commit(msgspec.structs.replace(own, deleted=True))

    async def collect(self) -> None:
        async def commit(newest: Manifest, number: int) -> Manifest | None:
            return await commit_boundary(self.shop, self.target, newest, number)

        grace = Grace(ms=GRACE_MS)
        now_ms = self.bench.store.now_ms
        collection = Collection(self.store, *KEY, now_ms, grace, Directory([DENSE]))
        await collection.run(commit)


@dataclass
class Ledger:
    """What must hold, checked after each step, without taking part."""

    bench: Bench
    pinned: dict[str, Snapshot] = field(default_factory=dict)
    version: int = 0

    async def check(self) -> None:
        store = self.bench.store
        found = ManifestStore(store)
        newest = await found.newest(*KEY)
        if newest is None:
            assert self.version == 0, "the namespace is gone"
            return
        assert newest.version >= self.version, "an old manifest came back as the newest"
        self.version = newest.version
        missing = [key for key in keys_of(newest, SCHEMA.prefix) if key not in store.objects]
        assert not missing, f"named by manifest {newest.version} and deleted: {missing}"
        for pin in self.pinned.values():
            manifest = await SnapshotStore(store, found).manifest(pin)
            lost = [key for key in keys_of(manifest, pin.home) if key not in store.objects]
            assert not lost, f"named by snapshot {pin.id} and deleted: {lost}"


async def life(bench: Bench, name: str, epoch: int, verbs: list[str], ledger: Ledger) -> None:
    """One process after the other."""
    while True:
        with suppress(Dead):
            await work(Actor(bench, epoch, ActorStore(bench, name)), verbs, ledger)


async def work(actor: Actor, verbs: list[str], ledger: Ledger) -> None:
    snapshots = SnapshotStore(actor.store, actor.manifests)
    while True:
        verb = actor.random.choice(verbs)
        try:
            if verb == "snapshot":
                pin = await snapshots.take(
                    *KEY, name="", kind=SnapshotKind.SNAPSHOT, created_ms=actor.bench.store.now_ms
                )
                ledger.pinned[pin.id] = pin
            elif verb == "unpin":
                if ledger.pinned:
                    name = actor.random.choice(sorted(ledger.pinned))
                    await snapshots.delete(ledger.pinned.pop(name))
            else:
                await getattr(actor, verb)()
        except FirnError:
            continue  # fenced, or too late: another day


async def simulate(seed: int) -> int:
    """Objects at the end of it."""
    bench = Bench(random.Random(seed))
    ledger = Ledger(bench)
    casts = {
        "owner": (2, ["flush", "flush", "compact", "erase"]),
        "zombie": (1, ["flush", "compact", "collect"]),
        "compactor": (2, ["compact", "compact", "flush"]),
        "collector": (2, ["collect"]),
        "second": (2, ["collect", "snapshot"]),
        "keeper": (2, ["snapshot", "unpin"]),
    }
    tasks = [
        asyncio.create_task(life(bench, name, epoch, verbs, ledger))
        for name, (epoch, verbs) in casts.items()
    ]
    try:
        for number in range(STEPS):
            await bench.step()
            bench.store.now_ms += bench.random.choice((0, 0, 0, 600_000))
            if number % CHECK_EVERY == 0:
                await settle()
                await ledger.check()
    finally:
        await bench.end(tasks)
    for task in tasks:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
    return await at_rest(bench, ledger)


async def at_rest(bench: Bench, ledger: Ledger) -> int:
    """All that can go goes: what is left is named by the newest manifest or a snapshot."""
    last = Actor(bench, 9, bench.store)
    keep = SnapshotStore(bench.store, last.manifests)
    for pin in await keep.list(SCHEMA.prefix):
        if pin.id not in ledger.pinned:  # its taker died before it knew
            await keep.delete(pin)
    for _ in range(8):
        bench.store.now_ms += 3 * GRACE_MS
        await last.collect()
    await ledger.check()
    newest = await last.manifests.newest(*KEY)
    if newest is None:
        return 0
    needed = set(keys_of(newest, SCHEMA.prefix))
    for pin in ledger.pinned.values():
        needed |= keys_of(await keep.manifest(pin), pin.home)
    data = [k for k in bench.store.objects if "/deltas/" in k]
    assert set(data) == needed, "orphans are gone, and nothing else"
    manifests = [k for k in bench.store.objects if "/manifests/" in k]
    assert len(manifests) == 1
    return len(bench.store.objects)


async def test_some_interleavings() -> None:
    for seed in range(SHORT_SEEDS):
        await told(seed)


@pytest.mark.long
async def test_many_interleavings(record_property: Callable[[str, object], None]) -> None:
    objects = [await told(seed) for seed in range(SHORT_SEEDS, SEEDS)]
    record_property("interleavings", len(objects))


async def told(seed: int) -> int:
    try:
        return await simulate(seed)
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise
