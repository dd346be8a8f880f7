"""Big manifests in the store: few rounds for a cold reader, and damage that is named."""

import random
from pathlib import Path

import pytest

from core.clock import SystemClock
from core.errors import CorruptData
from query.manifests import ManifestCache
from storage.commit import ManifestConflict, ManifestStore
from storage.delta_file import write_delta
from storage.file_cache import FileCache
from storage.layout import base_pack_key, edits_pack_key, hint_key, manifest_key
from storage.manifest import Manifest, SectionKind
from storage.references import keys_of
from tests.storage.memory_store import MemoryStore
from tests.storage.rounds import RoundStore
from tests.storage.samples import DENSE, put_file, sample_manifest, sample_rows
from tests.storage.test_sections import LIMITS, a_file, a_manifest, changed, plain, step

PREFIX = DENSE.prefix
OWNER = (DENSE.index_id, DENSE.namespace)


def opened(store: MemoryStore) -> ManifestStore:
    """What knows nothing yet."""
    return ManifestStore(store, limits=LIMITS)


async def committed(store: MemoryStore, steps: int = 0) -> Manifest:
    """A divided manifest and changes of it, each a commit."""
    manifests, rng = opened(store), random.Random(7)
    manifest = await manifests.commit(numbered(a_manifest(40, 100, runs=10)))
    for number in range(steps):
        kind = rng.choice(["flush", "flush", "split"])
        following = step(manifest, kind, rng, 1_000 * (number + 1))
        manifest = await manifests.commit(numbered(following))
    return manifest


def numbered(manifest: Manifest) -> Manifest:
    return changed(manifest, commit_uuid=f"commit-{manifest.version}")


async def test_a_cold_reader_needs_one_round_whatever_was_committed_before() -> None:
    store = RoundStore()
    seen: set[SectionKind] = set()
    for steps in (0, 3, 10, 25):
        store.objects.clear()
        manifest = await committed(store, steps)
        store.keys.clear()
        found = await opened(store).recent(*OWNER)
        assert found is not None
        assert plain(found) == plain(manifest)
        assert store.keys == [[hint_key(PREFIX), base_pack_key(PREFIX), edits_pack_key(PREFIX)]]
        seen |= {section.kind for section in found.sections}
    assert SectionKind.EDITS in seen


async def test_a_cold_read_of_data_takes_two_rounds(tmp_path: Path) -> None:
    """Manifest with all its sections, then files; nothing else in between."""
    store = RoundStore()
    encoded = [write_delta(sample_rows(3, seed=n), DENSE) for n in range(25)]
    files = [await put_file(store, DENSE, one) for one in encoded]
    manifest = await opened(store).commit(sample_manifest(files=files))
    assert manifest.sections
    cold = ManifestCache(opened(store), FileCache(store, tmp_path, 1 << 20), SystemClock())
    store.keys.clear()
    state = await cold.get(*OWNER)
    assert state.reader is not None
    assert len(await state.reader.files()) == 25
    assert [len(keys) for keys in store.keys] == [3, 25]


async def test_the_packs_of_a_small_namespace_are_asked_for_once() -> None:
    store = RoundStore()
    await opened(store).commit(numbered(a_manifest(3, 5)))
    assert set(store.objects) == {manifest_key(PREFIX, 1), hint_key(PREFIX)}
    reader = opened(store)
    store.keys.clear()
    await reader.recent(*OWNER)
    await reader.recent(*OWNER)
    assert [len(keys) for keys in store.keys] == [3, 1]


async def test_what_the_packs_lack_is_fetched_by_name_in_one_more_round() -> None:
    store = RoundStore()
    manifest = await committed(store, 25)
    for key in (base_pack_key(PREFIX), edits_pack_key(PREFIX)):
        store.keys.clear()
        held = store.objects.pop(key)
        found = await opened(store).recent(*OWNER)
        assert found is not None
        assert plain(found) == plain(manifest)
        assert store.rounds == 2
        store.objects[key] = held[:-1]  # damaged: as good as none
        assert plain(await opened(store).recent(*OWNER) or manifest) == plain(manifest)


async def test_a_reader_that_follows_fetches_only_what_is_new() -> None:
    store = RoundStore()
    manifest = await committed(store, 3)
    reader, writer = opened(store), opened(store)
    await reader.recent(*OWNER)
    following = step(manifest, "flush", random.Random(1), 99_000)
    after = await writer.commit(numbered(following))
    store.keys.clear()
    assert plain(await reader.newest(*OWNER) or manifest) == plain(numbered(following))
    new = {PREFIX + s.object.name for s in set(after.sections) - set(manifest.sections)}
    assert {key for keys in store.keys for key in keys} == {hint_key(PREFIX), *new}


async def test_a_damaged_section_is_asked_for_again_and_then_named() -> None:
    store = MemoryStore()
    manifest = await committed(store)
    store.objects.pop(base_pack_key(PREFIX))
    key = PREFIX + manifest.sections[0].object.name
    store.damaged_reads[key] = 1
    assert plain(await opened(store).newest(*OWNER) or manifest) == plain(manifest)
    store.objects[key] = store.objects[key][:-1] + b"?"
    with pytest.raises(CorruptData, match=key):
        await opened(store).newest(*OWNER)
    store.objects.pop(key)
    with pytest.raises(CorruptData, match=key):
        await opened(store).newest(*OWNER)


async def test_a_hint_whose_sections_are_collected_is_passed_over() -> None:
    store = MemoryStore()
    first = await committed(store)
    old_hint = store.objects[hint_key(PREFIX)]
    fresh = tuple(a_file(n) for n in range(5_000, 5_040))
    second = await opened(store).commit(numbered(changed(first, version=2, files=fresh)))
    for section in set(first.sections) - set(second.sections):
        store.objects.pop(PREFIX + section.object.name)
    store.objects[hint_key(PREFIX)] = old_hint
    found = await opened(store).recent(*OWNER)
    assert found is not None
    assert plain(found) == plain(second)
    assert await opened(store).read(*OWNER, 1) is None


async def test_a_writer_whose_sections_are_collected_meets_the_conflict() -> None:
    store = MemoryStore()
    first = await committed(store)
    stalled, late = opened(store), numbered(step(first, "flush", random.Random(2), 50_000))
    fresh = tuple(a_file(n) for n in range(5_000, 5_040))
    second = await opened(store).commit(
        changed(first, version=2, files=fresh, commit_uuid="theirs")
    )
    for section in set(first.sections) - set(second.sections):
        store.objects.pop(PREFIX + section.object.name)
    with pytest.raises(ManifestConflict) as conflict:
        await stalled.commit(late)
    assert plain(conflict.value.newest) == plain(second)


async def test_a_lost_answer_gives_the_manifest_that_is_stored() -> None:
    """The repeated commit makes other sections; those that count are in the store."""
    store = MemoryStore()
    first = await committed(store)
    fresh = tuple(a_file(n) for n in range(5_000, 5_040))
    second = numbered(changed(first, version=2, files=fresh))
    store.lost_answers["put_if_absent"] = 1
    manifests = opened(store)
    stored = await manifests.commit(second)
    again = await manifests.commit(second)
    assert stored.sections == again.sections
    for found in (await opened(store).newest(*OWNER), await opened(store).recent(*OWNER)):
        assert found is not None
        assert found.sections == stored.sections
        assert plain(found) == plain(stored)


async def test_a_namespace_that_shrinks_is_two_objects_again() -> None:
    store = MemoryStore()
    manifest = await committed(store, 25)
    empty = numbered(changed(manifest, version=99, files=(), id_runs=(), centroids=b""))
    manifests = opened(store)
    await manifests.newest(*OWNER)
    small = await manifests.commit(empty)
    assert not small.sections
    assert not {base_pack_key(PREFIX), edits_pack_key(PREFIX)} & set(store.objects)
    assert not keys_of(small, PREFIX)


async def test_a_copy_of_the_root_gives_the_same_manifest() -> None:
    """What a snapshot keeps: its size does not grow with the namespace."""
    store = MemoryStore()
    manifest = await committed(store, 10)
    manifests = opened(store)
    copy = await manifests.encoded(manifest)
    assert len(copy) < len(store.objects[manifest_key(PREFIX, manifest.version)]) + 100
    assert plain(await opened(store).decoded(copy, PREFIX, "there")) == plain(manifest)


async def test_every_section_is_named_as_needed() -> None:
    store = MemoryStore()
    manifest = await committed(store, 10)
    names = keys_of(manifest, PREFIX)
    assert names >= {PREFIX + section.object.name for section in manifest.sections}
    assert names >= {PREFIX + file.columns.name for file in manifest.files}
