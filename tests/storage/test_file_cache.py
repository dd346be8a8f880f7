"""The local cache: no wrong byte is ever served, nothing fetched without need, all in bounds."""

import asyncio
import gc
from pathlib import Path

import numpy as np
import pytest

from core.clock import new_uuid
from core.errors import ConfigError, CorruptData, ObjectNotFound, Unavailable
from infra.objects.local import LocalStore
from storage import file_cache, private_copy
from storage.checksum import id_hashes
from storage.cluster_file import write_cluster
from storage.delta_file import write_delta
from storage.encoded_file import put_objects
from storage.file_cache import FileCache
from storage.id_run import FileIds, write_runs
from storage.manifest import DataFile
from tests.storage.memory_store import MemoryStore
from tests.storage.samples import DENSE, assert_same_rows, opened, put_file, sample_rows

LARGE = 1 << 30
ROWS = sample_rows(50)


async def put_cluster(store: MemoryStore | LocalStore) -> DataFile:
    return await put_file(store, DENSE, write_cluster(ROWS, DENSE))


def size_of(file: DataFile) -> int:
    return file.columns.size + (0 if file.vectors is None else file.vectors.size)


def copies(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def disk_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def mappings(folder: Path) -> int:
    """Of nameless files that were made in the folder."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return sum(str(folder) in line for line in lines)


async def let_go() -> None:
    """The task that opened a reader holds it until the event loop's next turn."""
    await asyncio.sleep(0)
    gc.collect()


def damage_copies(folder: Path) -> None:
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"\xff")


def remove_copies(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


async def test_a_file_is_fetched_once(store: MemoryStore, tmp_path: Path) -> None:
    file = await put_cluster(store)
    cache = FileCache(store, tmp_path, LARGE)
    assert not cache.holds(file)
    first = await opened(cache, DENSE, file)
    assert cache.holds(file)
    assert await opened(cache, DENSE, file) is first
    assert_same_rows(first.take(np.arange(50)), ROWS)
    assert store.calls["get"] == 2  # columns and vectors
    assert (cache.hits, cache.misses, cache.copies.fetches) == (1, 1, 2)
    assert cache.copied_bytes == cache.copies.fetched_bytes == size_of(file)


async def test_a_hundred_queries_at_once_cause_one_fetch(
    store: MemoryStore, tmp_path: Path
) -> None:
    file = await put_cluster(store)
    cache = FileCache(store, tmp_path, LARGE)
    readers = await asyncio.gather(*(opened(cache, DENSE, file) for _ in range(100)))
    assert len(set(map(id, readers))) == 1
    assert store.calls["get"] == 2


async def test_a_cancelled_query_does_not_cancel_the_others(
    store: MemoryStore, tmp_path: Path
) -> None:
    file = await put_cluster(store)
    cache = FileCache(store, tmp_path, LARGE)
    impatient = asyncio.create_task(opened(cache, DENSE, file))
    patient = asyncio.create_task(opened(cache, DENSE, file))
    await asyncio.sleep(0)
    impatient.cancel()
    assert (await patient).rows == 50
    with pytest.raises(asyncio.CancelledError):
        await impatient


async def test_a_failed_open_leaves_nothing_behind(store: MemoryStore, tmp_path: Path) -> None:
    file = await put_cluster(store)
    cache = FileCache(store, tmp_path, LARGE)
    store.failing["get"] = 2
    with pytest.raises(Unavailable):
        await opened(cache, DENSE, file)
    assert (await opened(cache, DENSE, file)).rows == 50


async def test_id_runs_are_cached_too(store: MemoryStore, tmp_path: Path) -> None:
    run = write_runs([FileIds(new_uuid(), ROWS.ids)], 1)[0]
    await put_objects(store, DENSE.prefix, [run.object])
    cache = FileCache(store, tmp_path, LARGE)
    reader = await cache.open_run(DENSE.prefix, run.run)
    (entry,) = reader.with_hashes(id_hashes(["r7"])).tolist()
    assert reader.rows[entry] == 7
    assert await cache.open_run(DENSE.prefix, run.run) is reader
    assert store.calls["get"] == 1


async def test_a_damaged_download_is_fetched_again(store: MemoryStore, tmp_path: Path) -> None:
    file = await put_cluster(store)
    assert file.vectors is not None
    store.damaged_reads[DENSE.prefix + file.vectors.name] = 1
    cache = FileCache(store, tmp_path, LARGE)
    reader = await opened(cache, DENSE, file)
    assert_same_rows(reader.take(np.arange(50)), ROWS)
    assert cache.copies.corrupt_objects == 1


async def test_a_damaged_object_is_named_and_never_served(
    store: MemoryStore, tmp_path: Path
) -> None:
    file = await put_cluster(store)
    key = DENSE.prefix + file.columns.name
    store.damaged_reads[key] = 10
    cache = FileCache(store, tmp_path, LARGE)
    with pytest.raises(CorruptData, match=key):
        await opened(cache, DENSE, file)
    assert cache.copies.corrupt_objects == 2
    assert not any("arrow" in name for name in copies(tmp_path))
    store.damaged_reads.clear()  # the object was repaired
    assert (await opened(cache, DENSE, file)).rows == 50


async def test_a_cut_object_is_corrupt(store: MemoryStore, tmp_path: Path) -> None:
    file = await put_cluster(store)
    key = DENSE.prefix + file.columns.name
    store.objects[key] = store.objects[key][:-8]
    with pytest.raises(CorruptData, match=key):
        await opened(FileCache(store, tmp_path, LARGE), DENSE, file)


async def test_a_missing_object_says_so(store: MemoryStore, tmp_path: Path) -> None:
    file = await put_cluster(store)
    store.objects.clear()
    with pytest.raises(ObjectNotFound):
        await opened(FileCache(store, tmp_path, LARGE), DENSE, file)


async def test_copies_are_used_again_after_a_restart(store: MemoryStore, tmp_path: Path) -> None:
    file = await put_cluster(store)
    await opened(FileCache(store, tmp_path, LARGE), DENSE, file)
    again = FileCache(store, tmp_path, LARGE)
    assert again.copied_bytes == size_of(file)
    assert_same_rows((await opened(again, DENSE, file)).take(np.arange(50)), ROWS)
    assert store.calls["get"] == 2


async def test_copies_damaged_while_down_are_noticed(store: MemoryStore, tmp_path: Path) -> None:
    """A copy may be half on disk after a power cut, as it is not synced."""
    file = await put_cluster(store)
    await opened(FileCache(store, tmp_path, LARGE), DENSE, file)
    damage_copies(tmp_path)
    again = FileCache(store, tmp_path, LARGE)
    assert_same_rows((await opened(again, DENSE, file)).take(np.arange(50)), ROWS)
    assert again.copies.corrupt_copies == 2
    assert store.calls["get"] == 4


async def test_leftovers_are_swept_and_strangers_files_are_left_alone(
    store: MemoryStore, tmp_path: Path
) -> None:
    (tmp_path / "clusters-abc.arrow-123.part").write_bytes(b"half")
    (tmp_path / "thesis.txt").write_bytes(b"do not lose me" * 100)
    file = await put_cluster(store)
    cache = FileCache(store, tmp_path, 1)
    await opened(cache, DENSE, file)
    assert copies(tmp_path) == ["thesis.txt"]


async def test_an_emptied_cache_folder_is_filled_again(store: MemoryStore, tmp_path: Path) -> None:
    file = await put_cluster(store)
    cache = FileCache(store, tmp_path, LARGE, readers_max=0)
    await opened(cache, DENSE, file)
    await let_go()
    assert not cache.holds(file)
    remove_copies(tmp_path)
    assert_same_rows((await opened(cache, DENSE, file)).take(np.arange(50)), ROWS)


def test_a_folder_that_cannot_be_is_a_setting_to_change(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="cache folder"):
        FileCache(MemoryStore(), tmp_path / "file", LARGE)


async def test_the_least_recently_used_copies_go_first(store: MemoryStore, tmp_path: Path) -> None:
    files = [await put_cluster(store) for _ in range(4)]
    cache = FileCache(store, tmp_path, 6 * size_of(files[0]))
    for file in files[:3]:
        await opened(cache, DENSE, file)
    await opened(cache, DENSE, files[0])  # a hit, so files[1] is the oldest now
    await opened(cache, DENSE, files[3])
    assert cache.copied_bytes <= 3 * size_of(files[0])
    gc.collect()
    assert [cache.holds(file) for file in files] == [True, False, True, True]
    assert disk_bytes(tmp_path) == cache.copied_bytes


async def test_opening_a_copy_again_counts_as_its_use(store: MemoryStore, tmp_path: Path) -> None:
    files = [await put_cluster(store) for _ in range(3)]
    cache = FileCache(store, tmp_path, 4 * size_of(files[0]), readers_max=0)
    for file in (files[0], files[1], files[0], files[2]):
        await opened(cache, DENSE, file)
        await let_go()
    there = {name.split("-")[1].split(".")[0] for name in copies(tmp_path)}
    assert there == {files[0].uuid, files[2].uuid}


async def test_an_evicted_file_stays_readable_for_who_holds_it(
    store: MemoryStore, tmp_path: Path
) -> None:
    first, second = await put_cluster(store), await put_cluster(store)
    cache = FileCache(store, tmp_path, 2 * size_of(first))
    held = await opened(cache, DENSE, first)
    await opened(cache, DENSE, second)
    assert not any(first.uuid in name for name in copies(tmp_path))
    assert await opened(cache, DENSE, first) is held  # while held, no second copy is made
    assert_same_rows(held.take(np.arange(50)), ROWS)
    del held
    gc.collect()
    assert not cache.holds(first)


async def test_a_cache_smaller_than_a_file_still_works(store: MemoryStore, tmp_path: Path) -> None:
    cache = FileCache(store, tmp_path, 1)
    files = [await put_cluster(store) for _ in range(5)]
    readers = await asyncio.gather(*(opened(cache, DENSE, file) for file in files))
    for reader in readers:
        assert_same_rows(reader.take(np.arange(50)), ROWS)
    assert cache.copied_bytes == 0
    assert copies(tmp_path) == []


async def test_open_readers_are_bounded(store: MemoryStore, tmp_path: Path) -> None:
    files = [await put_cluster(store) for _ in range(6)]
    cache = FileCache(store, tmp_path, LARGE, readers_max=2)
    for file in files:
        await opened(cache, DENSE, file)
        assert cache.readers <= 2
    gc.collect()
    assert [cache.holds(file) for file in files] == [False] * 4 + [True] * 2
    await opened(cache, DENSE, files[0])
    assert store.calls["get"] == 12  # its copies are still there


async def test_readers_heap_is_bounded(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_cache, "HEAP_CHECK_USES", 1)
    files = [await put_cluster(store) for _ in range(6)]
    bound = 2 * (size_of(files[0]) + 400) + 100  # of small files the bytes are on the heap too
    cache = FileCache(store, tmp_path, LARGE, heap_bytes_max=bound)
    for file in files:
        assert len((await opened(cache, DENSE, file)).hashes) == 50  # 400 bytes
    await opened(cache, DENSE, files[-1])
    assert cache.heap_bytes <= bound
    assert cache.readers == 2
    assert cache.mapped_bytes == 0


@pytest.mark.parametrize("local", [False, True])
async def test_what_open_readers_map_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: bool
) -> None:
    monkeypatch.setattr(private_copy, "HEAP_OBJECT_BYTES", 0)
    store = LocalStore(tmp_path / "objects") if local else MemoryStore()
    files = [await put_cluster(store) for _ in range(6)]
    cache = FileCache(store, tmp_path / "cache", 4 * size_of(files[0]))
    for file in files:
        await opened(cache, DENSE, file)
        assert cache.mapped_bytes + cache.copied_bytes <= 4 * size_of(file)
        assert cache.mapped_bytes == cache.readers * size_of(file)
        assert cache.heap_bytes == 0
    assert cache.readers == (4 if local else 2)
    await cache.close()
    assert cache.mapped_bytes == 0
    await store.close()


async def test_what_is_forgotten_leaves_nothing_on_this_machine(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Physical erasure relies on it: the last reader takes the nameless bytes with it."""
    monkeypatch.setattr(private_copy, "HEAP_OBJECT_BYTES", 0)
    file, other = await put_cluster(store), await put_cluster(store)
    cache = FileCache(store, tmp_path, LARGE)
    for one in (file, other):
        await opened(cache, DENSE, one)
    assert file.vectors is not None
    cache.forget([file.columns.name, file.vectors.name])
    await let_go()
    assert not cache.holds(file)
    assert cache.mapped_bytes == cache.copied_bytes == size_of(other)
    assert not any(file.uuid in name for name in copies(tmp_path))
    assert mappings(tmp_path) == 2


async def test_of_a_local_stores_files_no_second_copies_are_kept(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "objects")
    file = await put_cluster(store)
    cache = FileCache(store, tmp_path / "cache", LARGE)
    reader = await opened(cache, DENSE, file)
    assert_same_rows(reader.take(np.arange(50)), ROWS)
    assert copies(tmp_path / "cache") == []
    assert cache.copied_bytes == 0
    await store.close()


async def test_a_damaged_file_of_a_local_store_is_never_served(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "objects")
    file = await put_cluster(store)
    path = store.local_path(DENSE.prefix + file.columns.name)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    cache = FileCache(store, tmp_path / "cache", LARGE)
    with pytest.raises(CorruptData, match=file.columns.name):
        await opened(cache, DENSE, file)
    path.unlink()
    with pytest.raises(ObjectNotFound, match=file.columns.name):
        await opened(cache, DENSE, file)
    await store.close()


async def test_close_ends_what_is_being_opened(store: MemoryStore, tmp_path: Path) -> None:
    file = await put_cluster(store)
    cache = FileCache(store, tmp_path, LARGE)
    opening = asyncio.create_task(opened(cache, DENSE, file))
    await asyncio.sleep(0)
    await cache.close()
    with pytest.raises(asyncio.CancelledError):
        await opening


async def test_deltas_and_clusters_share_one_cache(store: MemoryStore, tmp_path: Path) -> None:
    delta = await put_file(store, DENSE, write_delta(ROWS, DENSE))
    cluster = await put_cluster(store)
    cache = FileCache(store, tmp_path, LARGE)
    assert (await opened(cache, DENSE, delta)).is_delta
    assert not (await opened(cache, DENSE, cluster)).is_delta
