"""One tenant's load must not become another's wait: whose turn it is, and what a busy neighbour may
take.
"""

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from builder.builder import IndexBuilder
from builder.fairness import SMALL_FLUSHES, Claim, DueQueue, FlushSlots, next_turn
from builder.jobs import Jobs
from builder.namespace import NamespaceWork
from builder.partition import OwnedPartition
from builder.policy import FlushLimits
from core.clock import SystemClock
from tests.builder.world import World, upsert


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 20)), max_size=60))
def test_what_is_due_first_comes_first(offers: list[tuple[int, int]]) -> None:
    """Whatever is offered again and again, each key comes once, at its earliest time."""
    queue: DueQueue[int] = DueQueue()
    earliest: dict[int, int] = {}
    for key, at in offers:
        queue.offer(key, float(at))
        earliest[key] = min(at, earliest.get(key, at))
    assert len(queue) == len(earliest)
    seen: list[int] = []
    for now in range(21):
        while (popped := queue.pop(float(now))) is not None:
            assert earliest[popped] == now, "not before its time, and not after"
            seen.append(popped)
    assert sorted(seen) == sorted(earliest)


def test_a_key_that_is_offered_for_ever_takes_no_room() -> None:
    queue: DueQueue[int] = DueQueue()
    for at in range(100_000, 0, -1):
        queue.offer(1, float(at))
    assert len(queue._heap) < 2_000
    queue.discard(1)
    assert queue.pop(1e9) is None


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 20))
def test_big_flushes_leave_slots_to_small_ones(wishes: list[bool], big: int) -> None:
    slots = FlushSlots(big)
    taken: list[bool] = []
    for small in wishes:
        if slots.fits(small):
            slots.take(small)
            taken.append(small)
    assert len(taken) <= max(big, SMALL_FLUSHES)
    assert taken.count(False) <= big
    if not slots.free and big < SMALL_FLUSHES:
        assert True in taken
    for small in taken:
        slots.give_back(small)
    assert slots.fits(small=False)


claims = st.builds(Claim, st.integers(0, 99), st.integers(0, 99), st.integers(0, 1 << 30))


@given(st.lists(claims, max_size=20), st.integers(0, 1 << 30))
def test_who_waits_longer_for_as_much_work_goes_first(found: list[Claim[int]], size: int) -> None:
    same = [replace(claim, bytes=size) for claim in found]
    oldest = min((claim.since for claim in same), default=None)
    best = {claim.key for claim in same if claim.since == oldest}
    chosen = next_turn(same, 100.0)
    assert chosen in best or not found
    waited = [replace(claim, since=1.0) for claim in found]
    smallest = min((claim.bytes for claim in waited), default=None)
    best = {claim.key for claim in waited if claim.bytes == smallest}
    chosen = next_turn(waited, 100.0)
    assert chosen in best or not found


@given(st.integers(1, 30), st.integers(1, 64 << 20))
def test_a_stream_of_small_jobs_does_not_starve_a_big_one(streams: int, size: int) -> None:
    """Small namespaces that want a turn again at once, for ever: the big one's comes all the same,
    after a number of turns that its size bounds.
    """
    waiting = {key: Claim(key, 0.0, 1 if key else size) for key in range(streams + 1)}
    for turn in range(1, 100 * streams * 70):
        chosen = next_turn(waiting.values(), float(turn))
        assert chosen is not None
        if chosen == 0:
            return
        waiting[chosen] = replace(waiting[chosen], since=float(turn))
    raise AssertionError("the big one never came")


def counted_turns(builder: IndexBuilder, turns: list[str]) -> None:
    """Every flush and compaction job is written down when it begins."""
    jobs: Jobs = builder._jobs

    async def flush(owned: OwnedPartition, work: NamespaceWork) -> None:
        turns.append(f"flush {work.namespace}")
        await Jobs.flush(jobs, owned, work)

    async def compact(owned: OwnedPartition, work: NamespaceWork) -> bool:
        turns.append(f"compact {work.namespace}")
        return await Jobs.compact(jobs, owned, work)

    jobs.flush, jobs.compact = flush, compact  # type: ignore[method-assign]


class TurnClock(SystemClock):
    """Stands still but for what a test adds."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


async def to_rest(builder: IndexBuilder, clock: TurnClock, rounds_max: int) -> None:
    """The builder's loop without its time: a second passes whenever a job has ended."""
    for _ in range(rounds_max):
        clock.now_s += 1.0
        builder._begin_due()
        if builder._tasks:
            await asyncio.wait(builder._tasks, return_when=asyncio.FIRST_COMPLETED)
        elif not builder._owned[0].waiting and not builder._to_compact:
            return
    raise AssertionError(f"no rest after {rounds_max} rounds")


async def test_fifty_small_namespaces_beside_a_hot_one(tmp_path: Path) -> None:
    """The hot one writes before and after each of the others and has always more to flush and to
    compact; counted in turns, none of the others waits for more than its share.
    """
    clock = TurnClock()
    world = World(tmp_path, clock=clock)
    world.settings = replace(world.settings, flush=FlushLimits(records=50), batch_bytes=2_500)
    builder = world.builder()
    turns: list[str] = []
    counted_turns(builder, turns)
    await builder.assign(0)
    small = [f"n{number}" for number in range(50)]
    for round_ in range(2):
        for number, name in enumerate(small):
            ids = [f"h{round_}-{number}-{row}" for row in range(5)]
            await world.write(upsert(*ids), ns="hot")
            await world.write(upsert(f"r{round_}"), ns=name)
    await world.feed_all(builder)
    await to_rest(builder, clock, rounds_max=1_000)
    flushed = [turn.removeprefix("flush ") for turn in turns if turn.startswith("flush")]
    first = {name: flushed.index(name) for name in small}
    hot_before = Counter(flushed[: max(first.values())])["hot"]
    assert hot_before <= 1, "what it wants next came after what all the others want"
    assert flushed.count("hot") >= 5, "it was hot indeed"
    assert "compact hot" in turns
    await world.check()
    await world.close()


async def test_a_namespace_that_fills_half_of_the_buffer_stops_only_its_own_partition(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    world.settings = replace(world.settings, flush=FlushLimits(records=1 << 30, age_s=3600.0))
    world.settings = replace(world.settings, buffer_records=100)
    builder = world.builder()
    hog = NamespaceWork("dense", "hog")
    small = NamespaceWork("dense", "small")
    for number in range(60):
        lsn = await world.write(upsert(f"r{number}"), ns="hog")
    records = await world.log.read(0, 0, max_records=1000)
    for record in records:
        write = await builder._intake.take(record)
        assert write is not None
        hog.pending.add(write, 0.0)
    builder._buffer.recount(hog)
    assert builder._buffer.hogged_by(hog)
    assert not builder._buffer.full, "the other partitions go on"
    assert not builder._buffer.hogged_by(small)
    hog.pending.done(lsn - 30)
    builder._buffer.recount(hog)
    assert not builder._buffer.hogged_by(hog)
    await world.close()
