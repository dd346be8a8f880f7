"""What every `ObjectStore` must do. An adapter's test class inherits this and gives `store`."""

import asyncio
import os

import pytest

from core.errors import InvalidRequest, ObjectNotFound
from core.object_store import ObjectStore

RACERS = 32
BAD_KEYS = ["", "/a", "a/", "a//b", "a/../b", "..", "./a", "a/.", "ä", "a\nb", "k" * 1025]


async def keys(store: ObjectStore, prefix: str = "", start_after: str = "") -> list[str]:
    return [info.key async for info in store.list(prefix, start_after=start_after)]


class ObjectStoreSuite:
    """Fixture `store`: empty, open, closed by the fixture."""

    async def test_a_put_object_reads_back_at_once(self, store: ObjectStore) -> None:
        data = os.urandom(100_000)
        await store.put("a/b/c", data)
        assert await store.get("a/b/c") == data

    async def test_an_object_may_be_empty_or_of_many_megabytes(self, store: ObjectStore) -> None:
        big = os.urandom(1 << 20) * 20
        await store.put("big", big)
        await store.put("empty", b"")
        assert await store.get("big") == big
        assert await store.get("empty") == b""
        assert await store.get_range("big", 19 << 20, 20 << 20) == big[19 << 20 :]

    async def test_a_put_replaces_the_whole_object(self, store: ObjectStore) -> None:
        await store.put("a", b"long and old")
        await store.put("a", b"new")
        assert await store.get("a") == b"new"

    async def test_what_is_not_there_is_not_found(self, store: ObjectStore) -> None:
        await store.put("folder/a", b"1")
        for missing in ("a", "folder", "folder/b", "folder/a/b"):
            with pytest.raises(ObjectNotFound):
                await store.get(missing)
            with pytest.raises(ObjectNotFound):
                await store.get_range(missing, 0, 1)
            assert await store.stat(missing) is None

    async def test_ranges_are_half_open_and_cut_at_the_end(self, store: ObjectStore) -> None:
        await store.put("a", b"0123456789")
        assert await store.get_range("a", 0, 1) == b"0"
        assert await store.get_range("a", 3, 7) == b"3456"
        assert await store.get_range("a", 8, 100) == b"89"
        for start, end in ((10, 11), (11, 20), (3, 3), (4, 3), (-1, 3)):
            with pytest.raises(InvalidRequest):
                await store.get_range("a", start, end)

    async def test_put_if_absent_leaves_what_is_there(self, store: ObjectStore) -> None:
        assert await store.put_if_absent("a/1", b"first") is True
        assert await store.put_if_absent("a/1", b"second") is False
        assert await store.get("a/1") == b"first"

    async def test_put_if_absent_creates_again_after_a_deletion(self, store: ObjectStore) -> None:
        await store.put("a/1", b"first")
        await store.delete("a/1")
        assert await store.put_if_absent("a/1", b"second") is True

    async def test_of_32_racing_writers_exactly_one_wins(self, store: ObjectStore) -> None:
        """Commits rest on this: two winners would mean that an acknowledged flush is lost."""
        for round_ in range(10):
            key = f"race/{round_:03}"
            bodies = [f"writer {n} ".encode() * 5000 for n in range(RACERS)]
            won = await asyncio.gather(*(store.put_if_absent(key, body) for body in bodies))
            assert won.count(True) == 1
            assert await store.get(key) == bodies[won.index(True)]

    async def test_readers_see_a_whole_object_or_none(self, store: ObjectStore) -> None:
        """While it is replaced again and again, never a mixture or a part."""
        versions = [bytes([65 + n]) * 300_000 for n in range(4)]
        await store.put("a", versions[0])
        writing = True

        async def read() -> int:
            reads = 0
            while writing:
                assert await store.get("a") in versions
                reads += 1
            return reads

        readers = [asyncio.create_task(read()) for _ in range(3)]
        for n in range(20):
            await store.put("a", versions[n % 4])
        writing = False
        assert sum(await asyncio.gather(*readers)) > 0

    async def test_listing_is_in_the_order_of_whole_keys(self, store: ObjectStore) -> None:
        """`-` and `.` sort before `/`, `0` after it: a folder-by-folder walk gets these wrong."""
        wanted = sorted(
            ["a-b", "a.b", "a/b", "a/b-", "a/c/d", "a/c-d", "a/c0", "a0", "ab", "b", "b!/x", "B"]
        )
        for key in reversed(wanted):
            await store.put(key, b"x")
        assert await keys(store) == wanted
        for after in [*wanted, "a/", "a/b/zz", "a/c", "zzz", "!"]:
            assert await keys(store, start_after=after) == [k for k in wanted if k > after]

    async def test_a_prefix_may_end_within_a_name(self, store: ObjectStore) -> None:
        for key in ("x/aa", "x/ab/1", "x/ab/2", "x/abc", "x/b", "xa"):
            await store.put(key, b"x")
        assert await keys(store, "x/ab") == ["x/ab/1", "x/ab/2", "x/abc"]
        assert await keys(store, "x/ab/") == ["x/ab/1", "x/ab/2"]
        assert await keys(store, "x") == ["x/aa", "x/ab/1", "x/ab/2", "x/abc", "x/b", "xa"]
        assert await keys(store, "x/ab", start_after="x/ab/1") == ["x/ab/2", "x/abc"]
        assert await keys(store, "x/ab", start_after="x/a") == ["x/ab/1", "x/ab/2", "x/abc"]
        assert await keys(store, "nothing/here") == []
        assert await keys(store, "../") == []

    async def test_listing_goes_over_many_pages(self, store: ObjectStore) -> None:
        wanted = [f"p/{n % 7}/{n:05}" for n in range(2100)]
        for at in range(0, len(wanted), 100):
            await asyncio.gather(*(store.put(key, b"") for key in wanted[at : at + 100]))
        assert await keys(store, "p/") == sorted(wanted)
        after = sorted(wanted)[1049]
        assert await keys(store, "p/", start_after=after) == sorted(wanted)[1050:]

    async def test_a_listing_may_be_left_early(self, store: ObjectStore) -> None:
        await asyncio.gather(*(store.put(f"p/{n}", b"") for n in range(5)))
        first = ""
        async for info in store.list("p/"):
            first = info.key
            break
        assert first == "p/0"

    async def test_stat_and_list_tell_size_and_time(self, store: ObjectStore) -> None:
        await store.put("a", b"12345")
        info = await store.stat("a")
        assert info is not None
        assert (info.key, info.size) == ("a", 5)
        assert info.modified_ms > 1_600_000_000_000
        listed = [found async for found in store.list("")]
        # S3 lists with milliseconds, but tells the time of one object in seconds.
        assert [(found.key, found.size) for found in listed] == [("a", 5)]
        assert abs(listed[0].modified_ms - info.modified_ms) < 1000

    async def test_deleting_what_is_missing_succeeds(self, store: ObjectStore) -> None:
        await store.put("a/b/c", b"1")
        await store.put("a/d", b"1")
        await store.delete("a/b/c")
        await store.delete("a/b/c")
        await store.delete("a/b")
        await store.delete("a/d/e")
        await store.delete("never/was")
        assert await keys(store) == ["a/d"]
        await store.put("a/b/c", b"2")
        assert await keys(store) == ["a/b/c", "a/d"]

    @pytest.mark.parametrize("key", BAD_KEYS)
    async def test_bad_keys_are_refused(self, store: ObjectStore, key: str) -> None:
        for call in (store.get, store.delete, store.stat):
            with pytest.raises(InvalidRequest):
                await call(key)
        for put in (store.put, store.put_if_absent):
            with pytest.raises(InvalidRequest):
                await put(key, b"x")
        assert await keys(store) == []

    async def test_a_key_cannot_be_the_folder_of_another(self, store: ObjectStore) -> None:
        """Amazon's S3 allows it; file systems cannot, so no key layout may count on it."""
        await store.put("a/b", b"x")
        for key in ("a", "a/b/c"):
            try:
                await store.put(key, b"y")
            except InvalidRequest:
                assert await keys(store) == ["a/b"]
            else:
                assert await store.get(key) == b"y"
                await store.delete(key)
        assert await store.get("a/b") == b"x"

    async def test_puts_and_deletions_of_neighbours_do_not_disturb(
        self, store: ObjectStore
    ) -> None:
        """A local folder that becomes empty is removed; a put next door must survive that."""

        async def churn(name: str) -> None:
            for _ in range(20):
                await store.put(f"deep/er/{name}", b"x")
                await store.delete(f"deep/er/{name}")

        await asyncio.gather(*(churn(str(n)) for n in range(8)))
        assert await keys(store) == []

    async def test_closing_twice_is_allowed(self, store: ObjectStore) -> None:
        await store.put("a", b"1")
        await store.close()
        await store.close()
