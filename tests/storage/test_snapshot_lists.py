"""The list of a backup's snapshots: read as it was put, or refused; nothing is replaced."""

import pytest

from core.errors import CorruptData
from storage.layout import backup_list_key, backup_part_key, backup_prefix, kind_of
from storage.prefixes import index_prefixes
from storage.snapshot_lists import (
    FIRST_PART,
    ListedSnapshot,
    ListPart,
    SnapshotList,
    SnapshotLists,
    prefix_of,
)
from tests.storage.memory_store import MemoryStore

ID = "b" * 32


def part(number: int, *names: str, backup_id: str = ID) -> ListPart:
    return ListPart(
        backup_id=backup_id,
        number=number,
        before=(number - FIRST_PART) * len(names),
        snapshots=tuple(
            ListedSnapshot(
                namespace=name,
                snapshot_id="5" * 32,
                checksum="c" * 32,
                origins=("other/" + "a" * 64 + "/",),
                records=7,
                bytes=70,
            )
            for name in names
        ),
    )


async def listed(lists: SnapshotLists, *parts: ListPart) -> SnapshotList:
    digests = [await lists.add(one) for one in parts]
    whole = SnapshotList(
        backup_id=ID,
        index_id="films",
        created_ms=5,
        parts=tuple(digest for digest in digests if digest is not None),
        namespaces=sum(len(one.snapshots) for one in parts),
        records=7,
        bytes=70,
    )
    assert await lists.finish(whole)
    return whole


async def test_it_is_read_as_it_was_put() -> None:
    lists = SnapshotLists(MemoryStore())
    parts = [part(1, "a", "__default__"), part(2, "\N{SNOWFLAKE}/..", "x" * 512)]
    whole = await listed(lists, *parts)
    assert await lists.read(ID) == whole
    assert [await lists.part(ID, n, whole.parts[n - 1]) for n in (1, 2)] == parts
    assert [one async for one in lists.parts(ID)] == list(zip(parts, whole.parts, strict=True))
    assert prefix_of(whole, parts[0].snapshots[0]).startswith("films/")


async def test_nothing_is_replaced() -> None:
    lists = SnapshotLists(MemoryStore())
    whole = await listed(lists, part(1, "a"))
    assert await lists.add(part(1, "b")) is None
    assert not await lists.finish(whole)
    assert await lists.read(ID) == whole


async def test_parts_end_at_the_first_gap() -> None:
    """What a process left that was not alone is not taken for the beginning."""
    lists = SnapshotLists(MemoryStore())
    for number in (1, 2, 4):
        await lists.add(part(number, "a"))
    assert [one.number async for one, _ in lists.parts(ID)] == [1, 2]
    assert await lists.read(ID) is None


async def test_the_second_who_begins_leaves_a_mark() -> None:
    lists = SnapshotLists(MemoryStore())
    assert await lists.begin(ID)
    assert not await lists.was_begun_again(ID)
    assert not await lists.begin(ID)
    assert not await lists.begin(ID)
    assert await lists.was_begun_again(ID)


async def test_every_changed_bit_and_every_mix_up_is_noticed() -> None:
    store = MemoryStore()
    lists = SnapshotLists(store)
    whole = await listed(lists, part(1, "a"), part(2, "b"))
    for key, read in (
        (backup_list_key(ID), lambda: lists.read(ID)),
        (backup_part_key(ID, 1), lambda: lists.part(ID, 1, whole.parts[0])),
    ):
        good = await store.get(key)
        for place in range(0, len(good), 7):
            bad = bytearray(good)
            bad[place] ^= 1 << (place % 8)
            await store.put(key, bytes(bad))
            with pytest.raises(CorruptData):
                await read()
        await store.put(key, good[:-1])
        with pytest.raises(CorruptData):
            await read()
        await store.put(key, good)
        await read()
    aside = MemoryStore()
    await SnapshotLists(aside).add(part(1, "another"))
    await store.put(backup_part_key(ID, 1), await aside.get(backup_part_key(ID, 1)))
    with pytest.raises(CorruptData, match="is not the part"):
        await lists.part(ID, 1, whole.parts[0])
    await store.put(backup_part_key(ID, 1), await store.get(backup_part_key(ID, 2)))
    with pytest.raises(CorruptData, match="says that it is"):
        await anext(aiter(lists.parts(ID)))
    await store.delete(backup_part_key(ID, 2))
    with pytest.raises(CorruptData, match="gone"):
        await lists.part(ID, 2, whole.parts[1])


async def test_all_of_it_is_deleted_and_it_is_no_index() -> None:
    store = MemoryStore()
    lists = SnapshotLists(store)
    await lists.begin(ID)
    await lists.begin(ID)
    await listed(lists, part(1, "a"), part(2, "b"))
    await SnapshotLists(store).add(part(1, "a", backup_id="c" * 32))
    assert [index async for index in index_prefixes(store)] == []
    assert kind_of(backup_list_key(ID)) == kind_of(backup_part_key(ID, 1)) == "backups"
    await lists.delete(ID)
    keys = [info.key async for info in store.list("")]
    assert not [key for key in keys if key.startswith(backup_prefix(ID))]
    assert len(keys) == 1, "another backup's stays"
    await lists.delete(ID)
