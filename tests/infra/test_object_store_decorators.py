"""Counting, retrying and failing stores: each is still a store, and does what it is for."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import astuple
from pathlib import Path

import pytest

from core.errors import DeadlineExceeded, InvalidRequest, ObjectNotFound, Unavailable
from core.object_store import ObjectStore
from infra.objects.counting import CountingStore
from infra.objects.faulty import WRITES, Fault, FaultyStore
from infra.objects.local import LocalStore
from infra.objects.retrying import RetryingStore, RetrySettings
from tests.infra.object_store_suite import ObjectStoreSuite, keys


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[LocalStore]:
    store = LocalStore(tmp_path / "objects")
    yield store
    await store.close()


class SteppedClock:
    """Time passes only by sleeping."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.slept: list[float] = []

    def now_ms(self) -> int:
        return int(self.now_s * 1000)

    def monotonic(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(0)


class TestCountingStore(ObjectStoreSuite):
    @pytest.fixture
    def store(self, local: LocalStore) -> ObjectStore:
        return CountingStore(local)

    async def test_every_request_and_byte_is_counted(self, local: LocalStore) -> None:
        store = CountingStore(local)
        await store.put("a", b"12345")
        await store.put_if_absent("a", b"123")
        await store.get("a")
        await store.get_range("a", 1, 3)
        await store.stat("a")
        await keys(store)
        await store.delete("a")
        with pytest.raises(ObjectNotFound):
            await store.get("a")
        counts = store.counts()
        assert (counts.gets, counts.puts, counts.lists) == (3, 2, 1)
        assert (counts.deletes, counts.stats, counts.requests) == (1, 1, 8)
        assert (counts.read_bytes, counts.written_bytes) == (5 + 2, 5 + 3)
        before = astuple(counts)
        await store.put("b", b"1")
        assert astuple(counts) == before, "what was taken does not change"

    async def test_a_long_listing_costs_a_request_per_thousand_keys(
        self, local: LocalStore
    ) -> None:
        await asyncio.gather(*(local.put(f"p/{n}", b"") for n in range(1001)))
        store = CountingStore(local)
        await keys(store)
        assert store.counts().lists == 2


class TestRetryingStore(ObjectStoreSuite):
    """On a store that fails every third request, it still is a store."""

    @pytest.fixture
    def store(self, local: LocalStore) -> ObjectStore:
        return RetryingStore(_Unsteady(local), RetrySettings(first_s=0.001))


class _Unsteady(FaultyStore):
    """Fails every third request before it takes effect."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self._calls = 0

    def _next(self, verb: object, key: str) -> Fault | None:
        self._calls += 1
        return Fault() if self._calls % 3 == 0 else None


class TestRetrying:
    @pytest.fixture
    def faulty(self, local: LocalStore) -> FaultyStore:
        return FaultyStore(local)

    @pytest.fixture
    def clock(self) -> SteppedClock:
        return SteppedClock()

    @pytest.fixture
    def store(self, faulty: FaultyStore, clock: SteppedClock) -> RetryingStore:
        settings = RetrySettings(first_s=1.0, longest_s=4.0, deadline_s=20.0)
        return RetryingStore(faulty, settings, clock, random.Random(1))

    async def test_waits_double_up_to_the_longest_with_jitter(
        self, store: RetryingStore, faulty: FaultyStore, clock: SteppedClock
    ) -> None:
        faulty.inject(Fault(for_good=True))
        with pytest.raises(Unavailable, match="injected"):
            await store.get("a")
        for slept, whole in zip(clock.slept, (1, 2, 4, 4, 4, 4, 4), strict=False):
            assert whole / 2 <= slept <= whole
        assert len(set(clock.slept)) == len(clock.slept)
        assert 4 <= faulty.struck <= 10
        assert clock.now_s - 1000 <= 20, "the deadline is for all tries together"

    async def test_only_unavailable_is_tried_again(
        self, store: RetryingStore, faulty: FaultyStore
    ) -> None:
        with pytest.raises(ObjectNotFound):
            await store.get("missing")
        with pytest.raises(InvalidRequest):
            await store.put("..", b"x")
        assert store.retries == 0

    async def test_an_existing_key_stays_false(
        self, store: RetryingStore, faulty: FaultyStore
    ) -> None:
        await store.put("a", b"theirs")
        faulty.inject(Fault(verbs=("put_if_absent",)))
        assert await store.put_if_absent("a", b"ours") is False
        assert await store.get("a") == b"theirs"

    async def test_a_lost_answer_makes_our_own_success_look_like_a_loss(
        self, store: RetryingStore, faulty: FaultyStore
    ) -> None:
        """The documented price: the commit above compares the uuid that it wrote."""
        faulty.inject(Fault(verbs=("put_if_absent",), after=True))
        assert await store.put_if_absent("a", b"ours") is False
        assert await store.get("a") == b"ours"

    async def test_a_listing_goes_on_where_it_broke_off(
        self, store: RetryingStore, faulty: FaultyStore
    ) -> None:
        for n in range(5):
            await faulty.put(f"p/{n}", b"")
        faulty.inject(Fault(verbs=("list",), after=True))
        assert await keys(store, "p/") == [f"p/{n}" for n in range(5)]
        assert store.retries == 1

    async def test_a_store_that_hangs_ends_at_the_deadline(self, faulty: FaultyStore) -> None:
        store = RetryingStore(faulty, RetrySettings(deadline_s=0.05))
        faulty.inject(Fault(hang=True))
        with pytest.raises(DeadlineExceeded):
            await store.get("a")
        faulty.inject(Fault(verbs=("list",), hang=True))
        async with asyncio.timeout(10):
            with pytest.raises(DeadlineExceeded):
                await keys(store, "p/")


class TestFaultyStore(ObjectStoreSuite):
    @pytest.fixture
    def store(self, local: LocalStore) -> ObjectStore:
        return FaultyStore(local)


class TestFaults:
    @pytest.fixture
    def store(self, local: LocalStore) -> FaultyStore:
        return FaultyStore(local)

    async def test_the_nth_call_fails_once(self, store: FaultyStore) -> None:
        store.inject(Fault(nth=2, verbs=("put",)))
        await store.put("a", b"1")
        with pytest.raises(Unavailable):
            await store.put("b", b"1")
        await store.put("c", b"1")
        assert await keys(store) == ["a", "c"]
        assert store.struck == 1

    async def test_for_good_until_healed_and_only_where_told(self, store: FaultyStore) -> None:
        store.inject(Fault(verbs=WRITES, prefix="x/", for_good=True))
        for _ in range(3):
            with pytest.raises(Unavailable):
                await store.put("x/a", b"1")
        with pytest.raises(Unavailable):
            await store.delete("x/a")
        await store.put("y", b"1")
        assert await store.stat("x/a") is None
        store.heal()
        await store.put("x/a", b"1")
        assert await keys(store) == ["x/a", "y"]

    async def test_a_lost_answer_has_taken_effect(self, store: FaultyStore) -> None:
        store.inject(Fault(after=True))
        with pytest.raises(Unavailable):
            await store.put("a", b"1")
        assert await store.get("a") == b"1"

    async def test_a_hanging_call_ends_when_healed(self, store: FaultyStore) -> None:
        store.inject(Fault(hang=True))
        call = asyncio.create_task(store.get("a"))
        await asyncio.sleep(0.01)
        assert not call.done()
        store.heal()
        with pytest.raises(Unavailable):
            await call
