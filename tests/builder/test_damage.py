"""Every object of a namespace, damaged in every way: named in the error or healed by another copy,
never a state that is not the newest, and all is well once the good bytes are back.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from builder.rebuild import rebuild
from core.errors import CorruptData, ObjectNotFound
from core.filters.parse import parse_filter
from core.operations import DeleteByFilter, UpdateById
from core.records import StoredRecord
from storage.commit import ManifestStore
from storage.file_cache import FileCache
from storage.layout import base_pack_key, edits_pack_key, namespace_prefix
from storage.namespace import NamespaceReader
from storage.references import keys_of
from storage.registry import RegistryStore
from storage.sections import Limits
from tests.builder.test_background import running, until
from tests.builder.world import DENSE, World, record, same, upsert
from tests.storage.memory_store import MemoryStore

PREFIX = namespace_prefix("dense", "n")
# Copies of the sections, as the hint is one of the manifest.
PACKS = (base_pack_key(PREFIX), edits_pack_key(PREFIX))
# So small that the manifest is divided.
LIMITS = Limits(flat_bytes=2_000, root_bytes=1_000, section_bytes=2_000)


def flipped(data: bytes, at: float) -> bytes:
    """One bit, at this share of the length."""
    place = min(int(at * len(data)), len(data) - 1)
    return data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :]


Damage = Callable[[bytes, bytes], bytes | None]
DAMAGES: dict[str, Damage] = {
    "empty": lambda data, other: b"",
    "half": lambda data, other: data[: len(data) // 2],
    "missing": lambda data, other: None,
    "another object's": lambda data, other: other,
    **{
        f"bit at {at:.0%}": lambda data, other, at=at: flipped(data, at)  # type: ignore[misc]
        for at in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
    },
}
SHORT = ["empty", "half", "missing", "bit at 50%"]
# Where an object's key lies, and whether reading the namespace needs just these bytes.
KINDS: dict[str, tuple[str, str]] = {
    "cluster vectors": ("clusters/", ".ann"),
    "cluster columns": ("clusters/", ".arrow"),
    "delta": ("deltas/", ".arrow"),
    "id run": ("ids/", ""),
    "section": ("sections/", ""),
}
DATA = [kind for kind in KINDS if kind != "section"]


@dataclass
class Damaged:
    """A namespace at rest in a remote store, with clusters, a delta and a divided manifest.

    named: keys of what its newest manifest names.
    """

    world: World
    store: MemoryStore
    folder: Path
    named: list[str]
    caches: int = 0

    def keys(self, kind: str) -> list[str]:
        below, suffix = KINDS[kind]
        return [k for k in self.named if k.startswith(PREFIX + below) and k.endswith(suffix)]

    @property
    def newest(self) -> str:
        return max(k for k in self.store.objects if k.startswith(f"{PREFIX}manifests/"))

    def damage(self, key: str, how: str) -> Callable[[], None]:
        """The way back."""
        data = self.store.objects[key]
        other = next(d for k, d in self.store.objects.items() if k != key and d != data)
        bad = DAMAGES[how](data, other)
        if bad is None:
            del self.store.objects[key]
        else:
            self.store.objects[key] = bad

        def put_back() -> None:
            self.store.objects[key] = data

        return put_back

    def cache(self) -> FileCache:
        self.caches += 1
        return FileCache(self.store, self.folder / f"cache {self.caches}", 1 << 30)

    async def read_all(self, cache: FileCache | None = None) -> None:
        """By who knows nothing yet: every object, every row, every id."""
        cache = cache or self.cache()
        manifest = await ManifestStore(self.store, limits=LIMITS).newest("dense", "n")
        assert manifest is not None
        life = self.world.truth["dense", "n"]
        assert manifest.indexed_lsn == life.last_lsn, "the newest state or an error"
        reader = NamespaceReader(cache, manifest)
        found: dict[str, StoredRecord] = {}
        for place in range(len(manifest.files)):
            rows = await reader.live(place)
            found |= {rows.ids[row]: rows.stored(row) for row in range(len(rows))}
        same(found, life.records)
        same(await reader.read(list(life.records)), life.records)


@pytest.fixture
async def damaged(tmp_path: Path) -> AsyncIterator[Damaged]:
    store = MemoryStore()
    world = World(tmp_path, store=store)
    world.manifests = ManifestStore(store, limits=LIMITS)
    builder = world.builder()
    await builder.assign(0)
    for start in range(0, 120, 30):
        await world.write(upsert(*(f"r{n}" for n in range(start, start + 30)), genre="drama"))
        await world.feed_all(builder)
        await builder.flush()
        await builder.compact()
    await world.write(upsert("r1", "r50", "new", genre="comedy"))
    await world.write(upsert("a", "b"), ns="other")
    await world.feed_all(builder)
    await builder.flush()
    await builder.revoke([0], lost=False)
    manifest = await world.manifest()
    assert manifest is not None
    ready = Damaged(world, store, tmp_path, sorted(keys_of(manifest, PREFIX)))
    assert all(ready.keys(kind) for kind in KINDS), sorted(store.objects)
    await ready.read_all()
    yield ready
    await world.close()


ALL = [pytest.param(how, marks=[] if how in SHORT else pytest.mark.long) for how in DAMAGES]


@pytest.mark.parametrize("how", ALL)
async def test_a_damaged_object_of_the_store_is_named_and_never_served(
    damaged: Damaged, how: str
) -> None:
    for kind in KINDS:
        for key in damaged.keys(kind):
            put_back = damaged.damage(key, how)
            packs = {k: v for k in PACKS if (v := damaged.store.objects.pop(k, None)) is not None}
            cache = damaged.cache()
            with pytest.raises((CorruptData, ObjectNotFound), match=key.removeprefix(PREFIX)):
                await damaged.read_all(cache)
            if kind in DATA and how != "missing":
                assert cache.copies.corrupt_objects == 2, "looked at twice, and counted"
            put_back()
            damaged.store.objects.update(packs)
            await damaged.read_all(cache)


@pytest.mark.parametrize("how", ALL)
async def test_a_damaged_copy_of_the_cache_is_fetched_again(damaged: Damaged, how: str) -> None:
    for kind in DATA:
        key = damaged.keys(kind)[0]
        await damaged.read_all(damaged.cache())
        folder = damaged.folder / f"cache {damaged.caches}"
        path = folder / key.removeprefix(PREFIX).replace("/", "-", 1)
        bad = DAMAGES[how](path.read_bytes(), b"the bytes of another object")
        if bad is None:
            path.unlink()
        else:
            path.write_bytes(bad)
        again = FileCache(damaged.store, folder, 1 << 30)
        await damaged.read_all(again)
        assert again.copies.fetches == 1
        assert again.copies.corrupt_copies == (how != "missing")
        assert again.copies.corrupt_objects == 0


@pytest.mark.parametrize("how", ALL)
async def test_a_damaged_manifest_is_healed_by_its_copy_or_named(
    damaged: Damaged, how: str
) -> None:
    """Never an older state in its place."""
    key, hint = damaged.newest, f"{PREFIX}manifest"
    put_back = damaged.damage(key, how)
    await damaged.read_all()
    copy = damaged.store.objects.pop(hint)
    if how != "missing":  # what nothing tells of cannot be missed: the copy is there for that
        with pytest.raises(CorruptData, match=key):
            await damaged.read_all()
    put_back()
    await damaged.read_all()
    damaged.store.objects[hint] = copy
    damaged.damage(hint, how)
    await damaged.read_all()


@pytest.mark.parametrize("how", ALL)
async def test_a_damaged_registry_is_named(damaged: Damaged, how: str) -> None:
    key = max(k for k in damaged.store.objects if k.startswith("registry/"))
    state = await RegistryStore(damaged.store).newest(0)
    assert state is not None
    put_back = damaged.damage(key, how)
    if how == "missing":
        older = await RegistryStore(damaged.store).newest(0)
        assert older is None or older.checkpoint <= state.checkpoint, "so it replays what it may"
    else:
        with pytest.raises(CorruptData, match=key):
            await RegistryStore(damaged.store).newest(0)
    put_back()
    assert await RegistryStore(damaged.store).newest(0) == state


def damage_all(damaged: Damaged, kind: str, how: str) -> Callable[[], None]:
    """All objects of the kind; a manifest with its copy."""
    both = [damaged.newest, f"{PREFIX}manifest"]
    keys = both if kind == "manifest" else damaged.keys(kind)
    ways_back = [damaged.damage(key, how) for key in keys]
    packs = {k: v for k in PACKS if (v := damaged.store.objects.pop(k, None)) is not None}

    def put_back() -> None:
        for way_back in ways_back:
            way_back()
        damaged.store.objects.update(packs)

    return put_back


async def indexed(world: World) -> bool:
    """Whether all entries of the namespace are."""
    manifest = await world.manifest()
    return manifest is not None and manifest.indexed_lsn == world.truth["dense", "n"].last_lsn


@pytest.mark.parametrize("kind", [*KINDS, "manifest"])
async def test_the_builder_pauses_one_namespace_and_goes_on_when_the_file_is_back(
    damaged: Damaged, kind: str
) -> None:
    """By itself: nobody restarts it, and nothing is lost meanwhile."""
    world = damaged.world
    world.cache, world.manifests = damaged.cache(), ManifestStore(damaged.store, limits=LIMITS)
    put_back = damage_all(damaged, kind, "half")
    builder = await running(world, paused_retry_s=0.05)
    patched = [UpdateById(name, set_metadata={"seen": True}) for name in ("r1", "r50", "r77")]
    await world.write(*patched, DeleteByFilter(parse_filter({"genre": "horror"})))
    await world.write(*(UpdateById(f"r{n}", record(f"r{n}").values) for n in range(0, 120, 7)))
    await world.write(upsert("c"), ns="other")
    await world.feed_all(builder)

    async def others_go_on() -> bool:
        other = await world.manifest(ns="other")
        paused = {n.namespace: n.paused for n in builder.status().partitions[0].namespaces}
        assert not paused.get("other")
        return other is not None and other.record_count == 3 and "Corrupt" in paused["n"]

    await until(others_go_on, "one pauses, the other goes on")
    put_back()

    await until(lambda: indexed(world), "the builder goes on when the bytes are back")
    await builder.stop()
    await world.check()


async def test_a_lost_newest_manifest_does_not_lose_what_it_held(damaged: Damaged) -> None:
    """Its copy is lost with it: an older state would be taken for the newest, and what was indexed
    since, below the checkpoint, would never come back. The registry remembers.
    """
    world = damaged.world
    damage_all(damaged, "manifest", "missing")
    world.cache, world.manifests = damaged.cache(), ManifestStore(damaged.store, limits=LIMITS)
    builder = await running(world, paused_retry_s=0.05)
    await world.write(upsert("r3", "after", seed=2.0))
    await world.feed_all(builder)

    async def paused() -> bool:
        namespaces = builder.status().partitions[0].namespaces
        return any("the registry says" in n.paused for n in namespaces if n.namespace == "n")

    await until(paused, "the builder does not go on from an older state")
    await rebuild(world.parts(), world.log, DENSE, "n", settings=world.settings)

    await until(lambda: indexed(world), "the builder goes on from the rebuilt manifest")
    await builder.stop()
    await world.check()
    await damaged.read_all()


@pytest.mark.parametrize("how", ["half", "missing"])
@pytest.mark.parametrize("kind", [*KINDS, "manifest"])
async def test_a_rebuild_makes_a_damaged_namespace_anew(
    damaged: Damaged, kind: str, how: str
) -> None:
    """From the log alone. A manifest that is damaged with its copy is removed before: then an older
    one is the newest, and the rebuilt one takes its place.
    """
    world = damaged.world
    world.cache, world.manifests = damaged.cache(), ManifestStore(damaged.store, limits=LIMITS)
    damage_all(damaged, kind, how)
    if kind == "manifest" and how == "half":
        with pytest.raises(CorruptData, match=damaged.newest):
            await rebuild(world.parts(), world.log, DENSE, "n", settings=world.settings)
        del damaged.store.objects[damaged.newest]
    await rebuild(world.parts(), world.log, DENSE, "n", settings=world.settings)
    await damaged.read_all()
    await world.check()
