"""The local folder as an object store, and what only it can show: crashes, other processes, a full
or odd disk.
"""

import asyncio
import errno
import multiprocessing
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from core.errors import ConfigError, InvalidRequest, Unavailable
from infra.objects.local import TEMPORARY, LocalStore
from infra.objects.open import open_store
from tests.infra.object_store_suite import RACERS, ObjectStoreSuite, keys


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalStore]:
    opened = LocalStore(tmp_path / "objects")
    yield opened
    await opened.close()


class TestLocalStore(ObjectStoreSuite):
    pass


async def test_the_file_behind_a_key_can_be_mapped(store: LocalStore) -> None:
    await store.put("a/b", b"bytes")
    assert store.local_path("a/b").read_bytes() == b"bytes"
    with pytest.raises(InvalidRequest):
        store.local_path("../etc/passwd")


async def test_temporary_files_are_never_objects(store: LocalStore, tmp_path: Path) -> None:
    """A killed process leaves a half-written file: it is not listed, not readable, and goes."""
    half = tmp_path / "objects" / TEMPORARY / "half"
    half.write_bytes(b"half of an ob")
    assert await keys(store) == []
    assert await keys(store, TEMPORARY) == []
    assert await keys(store, f"{TEMPORARY}/") == []
    with pytest.raises(InvalidRequest):
        await store.get(f"{TEMPORARY}/half")

    beside = LocalStore(tmp_path / "objects")
    assert half.exists(), "swept while another store was at work: that could be its running put"
    await beside.close()
    await store.close()
    await LocalStore(tmp_path / "objects").close()
    assert not half.exists()


PROCESSES = 8


def _race(
    queue: "multiprocessing.Queue[list[list[bool]]]", folder: Path, start: Barrier, rounds: int
) -> None:
    async def run() -> list[list[bool]]:
        store = LocalStore(folder)
        won = []
        for n in range(rounds):
            await asyncio.to_thread(start.wait)
            bodies = [f"{os.getpid()} {racer}".encode() for racer in range(RACERS // PROCESSES)]
            puts = (store.put_if_absent(f"race/{n}", body) for body in bodies)
            won.append(await asyncio.gather(*puts))
        await store.close()
        return won

    queue.put(asyncio.run(run()))


async def test_of_32_racers_in_8_processes_exactly_one_wins(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    rounds = 5
    start = context.Barrier(PROCESSES)
    queue: multiprocessing.Queue[list[list[bool]]] = context.Queue()
    racers = [
        context.Process(target=_race, args=(queue, tmp_path, start, rounds))
        for _ in range(PROCESSES)
    ]
    for process in racers:
        process.start()
    results = [await asyncio.to_thread(queue.get) for _ in racers]
    for process in racers:
        await asyncio.to_thread(process.join)
    for n in range(rounds):
        assert sum(sum(won[n]) for won in results) == 1


def _put_for_ever(folder: Path) -> None:
    async def run() -> None:
        store = LocalStore(folder)
        n = 0
        while True:
            letter = bytes([65 + n % 26])
            await asyncio.gather(
                store.put("replaced", letter * 2_000_000),
                store.put_if_absent(f"new/{n}", letter * 200_000),
            )
            n += 1

    asyncio.run(run())


async def _until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - another process tells nothing but its files
        await asyncio.sleep(0.01)


async def test_a_killed_writer_leaves_whole_objects_only(tmp_path: Path) -> None:
    folder = tmp_path / "objects"
    context = multiprocessing.get_context("spawn")
    for _ in range(3):
        writer = context.Process(target=_put_for_ever, args=(folder,))
        writer.start()
        await _until(lambda: any(folder.glob("new/*")))
        await asyncio.sleep(0.1)
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        await asyncio.to_thread(writer.join)
        store = LocalStore(folder)
        async for info in store.list(""):
            body = await store.get(info.key)
            assert len(set(body)) == 1
            assert len(body) == (2_000_000 if info.key == "replaced" else 200_000)
            await store.delete(info.key)
        assert [p.name for p in (folder / TEMPORARY).iterdir()] == ["lock"]
        await store.close()


async def test_a_full_disk_is_a_reason_to_try_again_later(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await store.put("a", b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(Unavailable, match="No space left"):
            await store.put("a", b"new")
        with pytest.raises(Unavailable):
            await store.put_if_absent("b", b"new")
    assert await keys(store) == ["a"]
    assert await store.get("a") == b"old"
    assert [p.name for p in (tmp_path / "objects" / TEMPORARY).iterdir()] == ["lock"]


async def test_a_file_system_without_hard_links_is_a_wrong_setting(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(ConfigError, match="hard links"):
        await store.put_if_absent("a", b"x")


class TestOpening:
    async def test_a_folder_is_made(self, tmp_path: Path) -> None:
        for url in (str(tmp_path / "plain"), f"file://{tmp_path}/with%20space"):
            store = open_store(url)
            await store.put("a", b"1")
            await store.close()
        assert (tmp_path / "plain" / "a").exists()
        assert (tmp_path / "with space" / "a").exists()

    @pytest.mark.parametrize("url", ["", "ftp://a/b", "s3://", "s3:///x", "gs://b", "file://h/x"])
    def test_an_unknown_form_says_which_are_known(self, url: str) -> None:
        with pytest.raises(ConfigError, match="s3://bucket/prefix"):
            open_store(url)

    def test_half_of_a_key_pair_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="both"):
            open_store("s3://bucket", s3_access_key="only")

    def test_a_missing_extra_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "infra.objects.s3", None)
        with pytest.raises(ConfigError, match=r"firndb\[s3\]"):
            open_store("s3://bucket/prefix")

    def test_a_file_where_the_folder_should_be(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(ConfigError, match="cannot be used"):
            open_store(str(tmp_path / "file"))
