"""The commit protocol: one winner a version, nothing lost or doubled, whatever the store does."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from core.errors import CorruptData, Fenced, Unavailable
from core.metric import Metric
from core.object_store import ObjectStore
from infra.objects.local import LocalStore
from storage import manifest as stored
from storage.commit import COMMIT_TRIES, ManifestConflict, ManifestStore
from storage.delta_file import write_delta
from storage.layout import NamespaceSchema, hint_key, manifest_key
from storage.manifest import Manifest, Root, decode
from tests.storage.memory_store import MemoryStore
from tests.storage.samples import DENSE, sample_manifest, sample_rows, with_dead


def encode(manifest: Manifest) -> bytes:
    return stored.encode(Root(manifest=manifest))


async def newest(store: ObjectStore, at_least: int | None = None) -> Manifest | None:
    return await ManifestStore(store).newest(DENSE.index_id, DENSE.namespace, at_least)


async def committed(store: ObjectStore, versions: int) -> list[Manifest]:
    manifests = [sample_manifest(version) for version in range(1, versions + 1)]
    for manifest in manifests:
        await ManifestStore(store).commit(manifest)
    return manifests


async def test_a_namespace_that_never_was_has_no_manifest() -> None:
    assert await newest(MemoryStore()) is None


async def test_the_newest_manifest_is_found() -> None:
    store = MemoryStore()
    manifests = await committed(store, 3)
    assert await newest(store) == manifests[-1]
    found = await ManifestStore(store).read(DENSE.index_id, DENSE.namespace, 2)
    assert found == manifests[1]


@pytest.mark.parametrize("kind", ["memory", "local"])
async def test_32_racing_writers_have_one_winner(kind: str, tmp_path: Path) -> None:
    store: ObjectStore = MemoryStore() if kind == "memory" else LocalStore(tmp_path)
    for version in range(1, 4):
        racers = [sample_manifest(version, commit_uuid=f"{version}-{n}") for n in range(32)]
        outcomes = await asyncio.gather(
            *(ManifestStore(store).commit(m) for m in racers), return_exceptions=True
        )
        winners = [m for m, o in zip(racers, outcomes, strict=True) if o == m]
        losers = [o for o in outcomes if not isinstance(o, Manifest)]
        assert len(winners) == 1
        assert all(isinstance(o, ManifestConflict) and o.newest == winners[0] for o in losers)
        assert await newest(store) == winners[0]
    await store.close()


async def test_committing_again_is_harmless() -> None:
    store = MemoryStore()
    first, second = await committed(store, 2)
    await ManifestStore(store).commit(second)
    await ManifestStore(store).commit(first)  # even when others followed
    assert await newest(store) == second


async def test_a_lost_answer_is_recognised_as_ones_own_success() -> None:
    store = MemoryStore()
    store.lost_answers["put_if_absent"] = 1
    (manifest,) = await committed(store, 1)
    assert await newest(store) == manifest
    assert len(store.objects) == 2  # the manifest and its hint


async def test_a_lost_answer_and_another_writer_in_between() -> None:
    """Ours failed without effect, theirs came first: that must not pass for our success."""
    store = MemoryStore()
    theirs = sample_manifest(1, commit_uuid="theirs")
    store.failing["put_if_absent"] = 1
    racing = asyncio.create_task(ManifestStore(store).commit(sample_manifest(1)))
    await asyncio.sleep(0)
    store.objects[manifest_key(DENSE.prefix, 1)] = encode(theirs)
    with pytest.raises(ManifestConflict) as conflict:
        await racing
    assert conflict.value.newest == theirs


async def test_an_unknown_outcome_is_said_and_can_be_settled_later() -> None:
    store = MemoryStore()
    store.lost_answers["put_if_absent"] = COMMIT_TRIES
    manifest = sample_manifest(1)
    with pytest.raises(Unavailable, match="may or may not be committed"):
        await ManifestStore(store).commit(manifest)
    await ManifestStore(store).commit(manifest)
    assert await newest(store) == manifest


async def test_a_zombie_is_fenced() -> None:
    store = MemoryStore()
    await committed(store, 2)
    manifests = ManifestStore(store)
    await manifests.commit(sample_manifest(3, owner_epoch=2))
    with pytest.raises(Fenced, match="owner epoch 2"):
        await manifests.commit(sample_manifest(3, owner_epoch=1))
    with pytest.raises(ManifestConflict):
        await manifests.commit(sample_manifest(3, owner_epoch=2, commit_uuid="rival"))


async def test_a_zombie_is_fenced_even_if_the_newer_owner_lost_that_version() -> None:
    """Version 1 is of our own epoch, only version 2 shows that we were replaced."""
    store = MemoryStore()
    await committed(store, 1)
    await ManifestStore(store).commit(sample_manifest(2, owner_epoch=9))
    with pytest.raises(Fenced):
        await ManifestStore(store).commit(sample_manifest(1, commit_uuid="late"))


async def test_a_conflict_brings_the_newest_manifest_to_rebase_on() -> None:
    store = MemoryStore()
    manifests = await committed(store, 4)
    with pytest.raises(ManifestConflict) as conflict:
        await ManifestStore(store).commit(sample_manifest(2, commit_uuid="late"))
    assert conflict.value.newest == manifests[-1]


async def test_a_hint_that_lags_costs_one_read_more() -> None:
    store = MemoryStore()
    manifests = await committed(store, 5)
    store.objects[hint_key(DENSE.prefix)] = encode(manifests[1])
    assert await newest(store) == manifests[-1]
    store.calls.clear()
    assert await newest(store, at_least=5) == manifests[-1]
    assert store.calls == {"get": 2, "list": 1}  # the hint, version 5, and what follows it
    store.calls.clear()
    assert await newest(store) == manifests[-1]
    assert store.calls == {"get": 2, "list": 1}


NOT_UTF8 = encode(sample_manifest(9)).replace(
    DENSE.namespace.encode(), b"\xff" * len(DENSE.namespace)
)


@pytest.mark.parametrize(
    "hint", [None, b"", b"\x80garbage", encode(sample_manifest(9))[:-5], NOT_UTF8]
)
async def test_without_a_usable_hint_the_store_is_listed(hint: bytes | None) -> None:
    store = MemoryStore()
    manifests = await committed(store, 5)
    if hint is None:
        del store.objects[hint_key(DENSE.prefix)]
    else:
        store.objects[hint_key(DENSE.prefix)] = hint
    assert await newest(store) == manifests[-1]


async def test_a_hint_older_than_garbage_collection_does_not_mislead() -> None:
    """Versions 1..3 were collected, a zombie wrote hint 1: version 2 is absent, and yet…"""
    store = MemoryStore()
    manifests = await committed(store, 5)
    store.objects[hint_key(DENSE.prefix)] = encode(manifests[0])
    for version in (1, 2, 3):
        del store.objects[manifest_key(DENSE.prefix, version)]
    assert await newest(store) == manifests[-1]
    assert await newest(store, at_least=2) == manifests[-1]


async def test_a_commit_outlives_a_hint_that_cannot_be_written() -> None:
    store = MemoryStore()
    store.failing["put"] = 1
    (manifest,) = await committed(store, 1)
    assert hint_key(DENSE.prefix) not in store.objects
    assert await newest(store) == manifest


async def test_the_proof_of_being_newest_is_one_request() -> None:
    store = MemoryStore()
    await committed(store, 2)
    manifests = ManifestStore(store)
    store.calls.clear()
    assert not await manifests.is_newest(DENSE.index_id, DENSE.namespace, 1)
    assert await manifests.is_newest(DENSE.index_id, DENSE.namespace, 2)
    assert sum(store.calls.values()) == 2


async def test_a_store_that_is_away_is_not_an_empty_namespace() -> None:
    store = MemoryStore()
    await committed(store, 2)
    for verb in ("get", "list"):
        store.failing[verb] = 1
        with pytest.raises(Unavailable):
            await newest(store)


@pytest.mark.parametrize(
    "other",
    [
        NamespaceSchema("index-2", "books", Metric.COSINE, 12),
        NamespaceSchema("index-1", "films", Metric.COSINE, 12),
    ],
)
async def test_another_namespaces_manifest_is_not_believed(other: NamespaceSchema) -> None:
    store = MemoryStore()
    store.objects[manifest_key(DENSE.prefix, 1)] = encode(sample_manifest(1, of=other))
    with pytest.raises(CorruptData, match="belongs to"):
        await newest(store)


async def test_a_manifest_under_another_number_is_not_believed() -> None:
    store = MemoryStore()
    store.objects[manifest_key(DENSE.prefix, 2)] = encode(sample_manifest(1))
    with pytest.raises(CorruptData, match="says that it is version 1"):
        await newest(store)


async def test_garbage_in_a_manifests_place_is_named() -> None:
    store = MemoryStore()
    key = manifest_key(DENSE.prefix, 1)
    store.objects[key] = b"\xc1"
    with pytest.raises(CorruptData, match=key):
        await newest(store)


def test_a_manifest_survives_its_encoding() -> None:
    file = with_dead(write_delta(sample_rows(20), DENSE, groups=((0, 0), (1, 7))).file, [1, 5])
    manifest = sample_manifest(3, files=[file])
    again = decode(encode(manifest), "there").manifest
    assert again == manifest
    assert list(again.files[0].dead_rows()) == [1, 5]
    assert again.files[0].live == 18


def test_every_changed_bit_and_every_missing_end_of_a_manifest_is_noticed() -> None:
    file = with_dead(write_delta(sample_rows(3), DENSE).file, [1])
    data = encode(sample_manifest(3, files=[file]))
    for place in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[place // 8] ^= 1 << place % 8
        with pytest.raises(CorruptData, match="there"):
            decode(bytes(damaged), "there")
    for end in range(len(data)):
        with pytest.raises(CorruptData, match="there"):
            decode(data[:end], "there")


def test_a_manifest_of_a_later_format_is_refused() -> None:
    later = msgspec.structs.replace(sample_manifest(1), format=3)
    with pytest.raises(CorruptData, match="manifest format 3; this build reads 2 and 1"):
        decode(encode(later), "there")


def contradictions() -> list[tuple[str, Manifest]]:
    file = write_delta(sample_rows(5), DENSE).file
    replace = msgspec.structs.replace
    return [
        ("counts 6 records", replace(sample_manifest(files=[file]), record_count=6)),
        ("names a file twice", sample_manifest(files=[file, file])),
        ("dead rows", sample_manifest(files=[replace(with_dead(file, [1]), dead_count=2)])),
        ("dead rows", sample_manifest(files=[with_dead(file, [5])])),
        ("deserialize", sample_manifest(files=[replace(file, dead=b"nonsense")])),
        ("tombstone", replace(sample_manifest(files=[file]), deleted=True)),
    ]


@pytest.mark.parametrize(("message", "manifest"), contradictions())
async def test_a_manifest_that_contradicts_itself_is_never_stored(
    message: str, manifest: Manifest
) -> None:
    store = MemoryStore()
    with pytest.raises(CorruptData, match=message):
        await ManifestStore(store).commit(manifest)
    assert not store.objects
