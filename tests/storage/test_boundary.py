"""Freed numbers and collected files: a writer that slept through garbage collection finds out."""

from dataclasses import replace

import pytest

from core.clock import SystemClock
from core.errors import CorruptData
from storage.boundary import TRUSTED_S, Boundary, BoundaryStore
from storage.commit import KEPT_PLACE, ManifestConflict, ManifestStore
from storage.layout import boundary_key, hint_key, manifest_key
from storage.manifest import Manifest
from tests.storage.memory_store import MemoryStore
from tests.storage.samples import DENSE, sample_manifest


class Moved(SystemClock):
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.s = 0.0

    def monotonic(self) -> float:
        return self.s


def boundary(number: int, below: int = 0, *objects: str) -> Boundary:
    return Boundary(
        index_id=DENSE.index_id,
        namespace=DENSE.namespace,
        number=number,
        manifests_below=below,
        objects=objects,
    )


async def chain(store: MemoryStore, versions: int) -> list[Manifest]:
    manifests = [sample_manifest(version) for version in range(1, versions + 1)]
    for manifest in manifests:
        await ManifestStore(store).commit(manifest)
    return manifests


async def test_a_sleepers_commit_into_a_freed_number_is_undone() -> None:
    """Slot 3 is free again: the create succeeds, and without the check it would count."""
    store, clock = MemoryStore(), Moved()
    sleeper = ManifestStore(store, clock)
    await chain(store, 2)
    assert await sleeper.newest(DENSE.index_id, DENSE.namespace) is not None
    for version in range(3, 7):
        await ManifestStore(store).commit(sample_manifest(version))
    assert await BoundaryStore(store).create(boundary(1, below=6))
    for version in range(1, 6):
        del store.objects[manifest_key(DENSE.prefix, version)]
    clock.s += TRUSTED_S
    with pytest.raises(ManifestConflict) as conflict:
        await sleeper.commit(sample_manifest(3, commit_uuid="late"))
    assert conflict.value.newest.version == 6


async def test_what_a_killed_sleeper_left_in_a_freed_number_is_never_the_newest() -> None:
    """It died between its create and its check, and an old hint points just below it."""
    store = MemoryStore()
    manifests = await chain(store, 6)
    hint = store.objects[manifest_key(DENSE.prefix, 2)]
    for version in range(1, 6):
        del store.objects[manifest_key(DENSE.prefix, version)]
    store.objects[manifest_key(DENSE.prefix, 3)] = hint
    store.objects[hint_key(DENSE.prefix)] = hint
    found = await ManifestStore(store).newest(DENSE.index_id, DENSE.namespace)
    assert found == manifests[-1]


async def test_a_writer_that_saw_the_end_of_the_chain_asks_no_more() -> None:
    store, clock = MemoryStore(), Moved()
    writer = ManifestStore(store, clock)
    await writer.commit(sample_manifest(1))
    store.calls.clear()
    await writer.commit(sample_manifest(2))
    assert store.calls == {"put_if_absent": 1, "put": 1}
    clock.s += TRUSTED_S
    store.calls.clear()
    await writer.commit(sample_manifest(3))
    assert store.calls == {"put_if_absent": 1, "put": 1, "list": 1}


async def test_a_repeated_commit_proves_nothing() -> None:
    """Version 1 is there, but others followed: it is not the end of the chain."""
    store, clock = MemoryStore(), Moved()
    manifests = await chain(store, 4)
    sleeper = ManifestStore(store, clock)
    await sleeper.commit(manifests[0])
    assert await BoundaryStore(store).create(boundary(1, below=4))
    for version in range(1, 4):
        del store.objects[manifest_key(DENSE.prefix, version)]
    with pytest.raises(ManifestConflict):
        await sleeper.commit(sample_manifest(2, commit_uuid="late"))


async def test_a_kept_place_is_no_manifest_and_not_free() -> None:
    store = MemoryStore()
    manifests = await chain(store, 3)
    store.objects[manifest_key(DENSE.prefix, 2)] = KEPT_PLACE
    reader = ManifestStore(store)
    assert await reader.read(DENSE.index_id, DENSE.namespace, 2) is None
    with pytest.raises(ManifestConflict) as conflict:
        await reader.commit(sample_manifest(2, commit_uuid="late"))
    assert conflict.value.newest == manifests[-1]


async def test_what_was_collected_since_a_round_is_told_or_all_may_be() -> None:
    store = MemoryStore()
    boundaries = BoundaryStore(store)
    assert await boundaries.newest(DENSE.prefix) is None
    assert await boundaries.collected(DENSE.prefix, 0) == frozenset()
    for number in range(1, 5):
        assert await boundaries.create(boundary(number, 0, f"deltas/{number}"))
    assert not await boundaries.create(boundary(4))
    newest = await boundaries.newest(DENSE.prefix)
    assert newest is not None
    assert newest.number == 4
    assert await boundaries.collected(DENSE.prefix, 2) == frozenset(("deltas/3", "deltas/4"))
    assert await boundaries.collected(DENSE.prefix, 4) == frozenset()
    del store.objects[boundary_key(DENSE.prefix, 2)]
    assert await boundaries.collected(DENSE.prefix, 1) is None
    assert await boundaries.collected(DENSE.prefix, 2) is not None


@pytest.mark.parametrize("damage", ["bit", "cut", "other round", "other namespace"])
async def test_a_damaged_boundary_is_named(damage: str) -> None:
    store = MemoryStore()
    boundaries = BoundaryStore(store)
    await boundaries.create(boundary(1))
    key = boundary_key(DENSE.prefix, 1)
    data = store.objects[key]
    if damage == "bit":
        store.objects[key] = data[:-1] + bytes([data[-1] ^ 1])
    elif damage == "cut":
        store.objects[key] = data[:-1]
    elif damage == "other round":
        key = boundary_key(DENSE.prefix, 2)
        store.objects[key] = data
    else:
        other = replace(DENSE, namespace="films")
        key = boundary_key(other.prefix, 1)
        store.objects[key] = data
    with pytest.raises(CorruptData, match=key):
        await boundaries.newest(key.partition("boundary/")[0])
