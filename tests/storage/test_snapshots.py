"""Snapshot objects: a manifest kept for good, under every prefix whose collector must know of it.

At stake: files that are collected though a snapshot or a branch names them.
"""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.errors import CorruptData, NotFound, Unavailable
from core.log import NO_LSN
from storage.commit import ManifestStore
from storage.delta_file import write_delta
from storage.file_cache import FileCache
from storage.layout import NamespaceSchema, namespace_prefix, snapshot_key
from storage.manifest import Manifest
from storage.snapshots import (
    ORIGINS_MAX,
    Snapshot,
    SnapshotKind,
    SnapshotStore,
    as_attached,
)
from tests.storage.memory_store import MemoryStore
from tests.storage.samples import DENSE, opened, put_file, sample_manifest, sample_rows
from tests.storage.test_sections import LIMITS, a_manifest, plain

OTHER = namespace_prefix("index-1", "other")
BRANCH = NamespaceSchema(DENSE.index_id, "branch", DENSE.metric, DENSE.dimension)


class Shelf:
    """One namespace with a manifest, whose files may be shared."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.manifests = ManifestStore(store)
        self.snapshots = SnapshotStore(store, self.manifests)

    async def commit(self, version: int, *origins: str, **changed: Any) -> Manifest:
        files = []
        for origin in origins or ("",):
            file = await put_file(
                self.store, DENSE, write_delta(sample_rows(2, DENSE.dimension), DENSE)
            )
            files.append(msgspec.structs.replace(file, origin=origin))
        manifest = msgspec.structs.replace(sample_manifest(version, files=files), **changed)
        await self.manifests.commit(manifest)
        return manifest

    async def take(self, name: str = "s") -> Snapshot:
        return await self.snapshots.take(
            DENSE.index_id,
            DENSE.namespace,
            name=name,
            kind=SnapshotKind.SNAPSHOT,
            created_ms=5,
        )

    def keys(self) -> list[str]:
        return sorted(key for key in self.store.objects if "/snapshots/" in key)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf(MemoryStore())


async def test_what_is_taken_is_read_again(shelf: Shelf) -> None:
    await shelf.commit(1)
    manifest = await shelf.commit(2)
    made = await shelf.take("before the migration")
    read = await shelf.snapshots.read(DENSE.prefix, made.id)
    assert read == made
    assert await shelf.snapshots.manifest(made) == manifest
    assert (made.indexed_lsn, made.manifest_version) == (manifest.indexed_lsn, 2)
    again = await shelf.snapshots.read_exactly(DENSE.prefix, made.id, made.checksum())
    assert again == made
    assert await shelf.snapshots.read_exactly(DENSE.prefix, made.id, "0" * 32) is None
    assert await shelf.snapshots.read(DENSE.prefix, "0" * 32) is None


async def test_they_are_listed_by_age_and_deleted(shelf: Shelf) -> None:
    await shelf.commit(1)
    first, second = await shelf.take("first"), await shelf.take("second")
    listed = await shelf.snapshots.list(DENSE.prefix)
    assert {one.name for one in listed} == {"first", "second"}
    await shelf.snapshots.delete(first)
    await shelf.snapshots.delete(first)
    assert await shelf.snapshots.list(DENSE.prefix) == [second]


async def test_a_namespace_that_is_not_there_has_none(shelf: Shelf) -> None:
    with pytest.raises(NotFound):
        await shelf.take()
    await shelf.manifests.commit(msgspec.structs.replace(sample_manifest(1), deleted=True))
    with pytest.raises(NotFound):
        await shelf.take()
    assert shelf.keys() == []


@pytest.mark.parametrize("cut", [0, 3, 20, 30, -1])
async def test_damage_is_named(shelf: Shelf, cut: int) -> None:
    await shelf.commit(1)
    made = await shelf.take()
    (key,) = shelf.keys()
    whole = shelf.store.objects[key]
    for wrong in (whole[:cut], whole[:cut] + bytes([whole[cut] ^ 4]) + whole[cut:][1:]):
        shelf.store.objects[key] = wrong
        with pytest.raises(CorruptData, match=made.id):
            await shelf.snapshots.read(DENSE.prefix, made.id)


async def test_an_object_in_another_place_is_refused(shelf: Shelf) -> None:
    await shelf.commit(1)
    made = await shelf.take()
    shelf.store.objects[snapshot_key(OTHER, made.id)] = shelf.store.objects[shelf.keys()[0]]
    with pytest.raises(CorruptData, match="says that it is"):
        await shelf.snapshots.read(OTHER, made.id)


async def test_every_origin_has_a_copy_and_the_homes_goes_first(shelf: Shelf) -> None:
    """A home object without its copies would promise files that nobody keeps."""
    await shelf.commit(1, "", OTHER)
    made = await shelf.take()
    assert made.origins == (OTHER,)
    assert shelf.keys() == sorted(snapshot_key(p, made.id) for p in (DENSE.prefix, OTHER))
    assert await shelf.snapshots.list(OTHER) == [made]
    assert await shelf.snapshots.is_complete(made)
    shelf.store.failing["delete"] = 1
    with pytest.raises(Unavailable):
        await shelf.snapshots.delete(made)
    assert len(shelf.keys()) == 2
    await shelf.snapshots.release(DENSE.prefix, made)
    assert not await shelf.snapshots.is_complete(made)
    assert shelf.keys() == [snapshot_key(OTHER, made.id)]


async def test_too_many_origins_are_refused(shelf: Shelf) -> None:
    await shelf.commit(1, *(namespace_prefix("i", str(n)) for n in range(ORIGINS_MAX + 1)))
    with pytest.raises(Exception, match="recluster"):
        await shelf.take()
    assert shelf.keys() == []


Meanwhile = Callable[[], Coroutine[Any, Any, Any]]


class Racing(MemoryStore):
    """Something happens just after the first snapshot object is there."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Meanwhile | None = None

    async def put_if_absent(self, key: str, data: bytes) -> bool:
        created = await super().put_if_absent(key, data)
        if self.meanwhile is not None and "/snapshots/" in key:
            act, self.meanwhile = self.meanwhile, None
            await act()
        return created


async def test_a_round_of_garbage_collection_in_between_means_once_more() -> None:
    """It may have read the snapshots before this one was there, and be deleting its files."""
    store = Racing()
    shelf = Shelf(store)
    await shelf.commit(1, boundary=7)
    store.meanwhile = lambda: shelf.commit(2, boundary=8)
    made = await shelf.take()
    assert made.manifest_version == 2
    assert shelf.keys() == [snapshot_key(DENSE.prefix, made.id)]


async def test_a_flush_or_the_end_of_a_life_in_between_does_no_harm() -> None:
    """What the copied manifest names is in use from now on, whatever the newest one says."""
    store = Racing()
    shelf = Shelf(store)
    await shelf.commit(1)
    store.meanwhile = lambda: shelf.manifests.commit(
        msgspec.structs.replace(sample_manifest(2), deleted=True)
    )
    assert (await shelf.take()).manifest_version == 1


async def test_but_shared_files_may_be_free_when_the_branch_ends_in_between() -> None:
    """The pin of the branch is what kept them in use at their origin."""
    store = Racing()
    shelf = Shelf(store)
    await shelf.commit(1, OTHER)
    store.meanwhile = lambda: shelf.manifests.commit(
        msgspec.structs.replace(sample_manifest(2), deleted=True)
    )
    with pytest.raises(NotFound):
        await shelf.take()
    assert shelf.keys() == []


async def test_a_branch_of_a_snapshot_that_is_deleted_in_between_is_refused() -> None:
    store = Racing()
    shelf = Shelf(store)
    await shelf.commit(1, "", OTHER)
    snapshot = await shelf.take()
    pin = await shelf.snapshots.take_again(snapshot, created_ms=6, holder=("i", "b"))
    assert (pin.kind, pin.holder_namespace) == (SnapshotKind.BRANCH, "b")
    assert len(shelf.keys()) == 4
    await shelf.snapshots.delete(pin)
    store.meanwhile = lambda: shelf.snapshots.delete(snapshot)
    with pytest.raises(NotFound):
        await shelf.snapshots.take_again(snapshot, created_ms=6, holder=("i", "b"))
    assert shelf.keys() == []


async def test_attached_files_keep_their_place_and_count_as_of_the_attach(
    shelf: Shelf, tmp_path: Path
) -> None:
    """One copy in the cache serves both; the rows' own LSNs are of another log."""
    manifest = await shelf.commit(1)
    snapshot = await shelf.take()
    attached = as_attached(await shelf.snapshots.manifest(snapshot), DENSE.prefix, 77)
    cache = FileCache(shelf.store, tmp_path, 1 << 20)
    own = await opened(cache, DENSE, manifest.files[0])
    shared = await opened(cache, BRANCH, attached.files[0])
    assert cache.misses == 1
    assert attached.files[0].origin == DENSE.prefix
    assert shared.lsns.tolist() == [77, 77]
    assert shared.take([1]).lsns.tolist() == [77]
    assert own.lsns.tolist() != [77, 77]
    assert shared.all_ids == own.all_ids
    assert shared.by_id is own.by_id
    assert manifest.files[0].lsn_as == NO_LSN
    await cache.close()


async def test_a_big_manifest_costs_as_many_requests_as_a_small_one() -> None:
    """Its sections are named, not copied: taking it, reading it, and committing the branch."""
    costs = []
    for files in (60, 900):
        store = MemoryStore()
        manifests = ManifestStore(store, limits=LIMITS)
        shelf = SnapshotStore(store, manifests)
        source = await manifests.commit(a_manifest(files, 20, runs=5))
        assert len(source.sections) > 4
        store.calls.clear()
        key = (DENSE.index_id, DENSE.namespace)
        made = await shelf.take(*key, name="", kind=SnapshotKind.BRANCH, created_ms=1)
        copied = await shelf.manifest(made)
        assert plain(copied) == plain(source)
        attached = as_attached(copied, made.home, 7)
        target = msgspec.structs.replace(attached, namespace="branch", commit_uuid="b", version=1)
        # Another process, which has nothing of it in memory.
        elsewhere = ManifestStore(store, limits=LIMITS)
        await elsewhere.commit(target)
        costs.append(dict(store.calls))
        found = await ManifestStore(store, limits=LIMITS).newest(DENSE.index_id, "branch")
        assert found is not None
        assert plain(found) == plain(target)
        assert {file.lsn_as for file in found.files} == {7}
        assert {s.object.name for s in found.sections} == {s.object.name for s in source.sections}
    assert costs[0] == costs[1]
    assert sum(costs[0].values()) <= 24
