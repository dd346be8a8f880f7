"""The registry of a partition: what exists and where to go on, one writer at a time."""

import asyncio

import msgspec
import pytest

from core.errors import CorruptData, Fenced, Unavailable
from storage.envelope import seal
from storage.layout import registry_key
from storage.registry import (
    KEEP_VERSIONS,
    MAGIC,
    RegistryConflict,
    RegistryState,
    RegistryStore,
)
from storage.registry_tree import NamespaceSummary, inline_section
from tests.storage.memory_store import MemoryStore

NAMES = {("index-1", "books"), ("index-1", "日本/../"), ("index-2", "books")}


def state(version: int, *, owner_epoch: int = 1, commit_uuid: str = "") -> RegistryState:
    return RegistryState(
        partition=3,
        log_id="log",
        log_epoch=1,
        owner_epoch=owner_epoch,
        version=version,
        commit_uuid=commit_uuid or f"{version}-{owner_epoch}",
        checkpoint=version * 100,
        sections=(
            inline_section(
                [
                    (name, NamespaceSummary(generation=1, version=version, record_count=5))
                    for name in sorted(NAMES)
                ]
            ),
        ),
    )


def stored(one: RegistryState) -> bytes:
    return seal(MAGIC, msgspec.msgpack.encode(one))


async def test_the_newest_state_is_found() -> None:
    registry = RegistryStore(MemoryStore())
    assert await registry.newest(3) is None
    for version in range(1, 4):
        await registry.commit(state(version))
    assert await registry.newest(3) == state(3)
    assert await registry.newest(30) is None


async def test_only_the_last_versions_are_kept() -> None:
    store = MemoryStore()
    for version in range(1, 21):
        await RegistryStore(store).commit(state(version))
    assert sorted(store.objects) == [
        registry_key(3, version) for version in range(21 - KEEP_VERSIONS, 21)
    ]


async def test_a_deletion_that_fails_is_made_up_for() -> None:
    store = MemoryStore()
    for version in range(1, 21):
        store.failing["delete"] = 1 if version < 20 else 0
        await RegistryStore(store).commit(state(version))
    assert len(store.objects) == KEEP_VERSIONS


async def test_32_racing_writers_have_one_winner() -> None:
    registry = RegistryStore(MemoryStore())
    racers = [state(1, commit_uuid=f"racer-{n}") for n in range(32)]
    outcomes = await asyncio.gather(*map(registry.commit, racers), return_exceptions=True)
    winners = [s for s, o in zip(racers, outcomes, strict=True) if o is None]
    assert len(winners) == 1
    assert await registry.newest(3) == winners[0]
    losers = [o for o in outcomes if o is not None]
    assert all(isinstance(o, RegistryConflict) and o.newest == winners[0] for o in losers)


async def test_a_zombie_is_fenced() -> None:
    registry = RegistryStore(MemoryStore())
    await registry.commit(state(1))
    await registry.commit(state(2, owner_epoch=2))
    with pytest.raises(Fenced, match="owner epoch 2"):
        await registry.commit(state(2))


async def test_a_zombie_asleep_until_its_version_was_deleted_is_fenced() -> None:
    """Its put succeeds, the place being free again; it must not take that for the checkpoint."""
    registry = RegistryStore(MemoryStore())
    for version in range(1, 21):
        await registry.commit(state(version, owner_epoch=2))
    with pytest.raises(Fenced):
        await registry.commit(state(2, owner_epoch=1))
    assert await registry.newest(3) == state(20, owner_epoch=2)
    with pytest.raises(RegistryConflict):
        await registry.commit(state(2, owner_epoch=2, commit_uuid="late"))


async def test_a_lost_answer_is_settled_by_committing_again() -> None:
    store = MemoryStore()
    store.lost_answers["put_if_absent"] = 1
    with pytest.raises(Unavailable):
        await RegistryStore(store).commit(state(1))
    await RegistryStore(store).commit(state(1))
    assert await RegistryStore(store).newest(3) == state(1)


FORMAT_ONE = {
    "format": 1,
    "partition": 3,
    "log_id": "log",
    "log_epoch": 1,
    "owner_epoch": 1,
    "version": 1,
    "commit_uuid": "1-1",
    "checkpoint": 100,
    "namespaces": {n: {"generation": 1, "version": 1, "record_count": 5} for n in sorted(NAMES)},
}


async def test_format_one_is_read_and_what_follows_is_format_two() -> None:
    store = MemoryStore()
    store.objects[registry_key(3, 1)] = msgspec.msgpack.encode(FORMAT_ONE)
    registry = RegistryStore(store)
    newest = await registry.newest(3)
    assert newest == state(1)
    following = await registry.changed(newest, {}, 200)
    await registry.commit(following)
    assert store.objects[registry_key(3, 2)].startswith(MAGIC)
    newest = await registry.newest(3)
    assert newest == following
    assert newest.sections == state(1).sections


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xc1", "is not a registry"),
        (msgspec.msgpack.encode({**FORMAT_ONE, "format": 3}), "format 3"),
        (stored(state(2)), "is that of partition 3, 2"),
        (stored(msgspec.structs.replace(state(1), partition=4)), "partition 4"),
        (stored(state(1))[:-1], "does not match its checksum"),
        (seal(MAGIC, b"\xc1"), "is not a registry"),
    ],
)
async def test_what_is_no_registry_is_named(data: bytes, message: str) -> None:
    store = MemoryStore()
    store.objects[registry_key(3, 1)] = data
    with pytest.raises(CorruptData, match=message):
        await RegistryStore(store).newest(3)
