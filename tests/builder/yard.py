"""A world over a store in memory whose time a test moves: for what becomes garbage and goes."""

from pathlib import Path

from builder.builder import IndexBuilder
from builder.garbage.plan import Grace
from core.clock import SystemClock
from storage.layout import namespace_prefix
from storage.manifest import Manifest
from storage.references import keys_of
from tests.builder.world import World
from tests.storage.memory_store import MemoryStore

GRACE_S = 3600


class MovedClock(SystemClock):
    """Goes on by itself, and by what a test adds."""

    def __init__(self) -> None:
        self.added_s = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self.added_s


class Yard:
    """`builder` owns the partition. `pass_time` moves the store's clock and everybody's."""

    def __init__(self, folder: Path, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore()
        self.clock = MovedClock()
        self.world = World(folder, store=self.store, clock=self.clock)
        self.builder: IndexBuilder

    async def begin(self) -> "Yard":
        self.builder = self.world.builder()
        await self.builder.assign(0)
        return self

    def pass_time(self, seconds: float = GRACE_S + 1) -> None:
        self.clock.added_s += seconds
        self.store.now_ms += int(seconds * 1000)

    async def flush(self) -> None:
        await self.world.feed_all(self.builder)
        await self.builder.flush()

    async def collect(self, grace: Grace | None = None) -> int:
        """Objects that went."""
        return sum(swept.objects for swept in await self.builder.collect(grace=grace))

    async def to_rest(self) -> None:
        """Everything that can go has gone."""
        for _ in range(4):
            self.pass_time()
            await self.collect()
        assert await self.collect() == 0

    async def to_rest_but_pins(self) -> None:
        """The same, where branches make it look again and again."""
        for _ in range(4):
            self.pass_time()
            await self.collect()

    def names(self, ns: str = "n", index: str = "dense") -> list[str]:
        """Below the namespace's prefix, without it."""
        prefix = namespace_prefix(index, ns)
        return sorted(k.removeprefix(prefix) for k in self.store.objects if k.startswith(prefix))

    def count(self, folder: str) -> int:
        return sum(key.startswith(f"{folder}/") for key in self.names())

    async def newest(self, ns: str = "n") -> Manifest:
        manifest = await self.world.manifest(ns=ns)
        assert manifest is not None
        return manifest

    async def nothing_needless(self, ns: str = "n") -> None:
        """At rest there is the newest manifest with its hint, what it names, and one round."""
        manifest = await self.newest(ns)
        prefix = namespace_prefix("dense", ns)
        named = {key.removeprefix(prefix) for key in keys_of(manifest, prefix)}
        rest = [key for key in self.names(ns) if key not in named]
        folders = sorted(key.partition("/")[0] for key in rest)
        assert folders in (["boundary", "manifest", "manifests"], ["manifest", "manifests"]), rest
        await self.world.check()
