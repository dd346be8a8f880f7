"""At stake: what freshness holds, waits for and lets go, so that no write falls between it and the
manifests.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.errors import LogMismatch
from core.indexes import IndexInfo, IndexState, VectorType
from core.metric import Metric
from core.operations import CreateNamespace, DeleteIds, DeleteNamespace, Upsert
from freshness.budget import MemoryLimits
from freshness.layer import FreshnessSettings
from freshness.protocol import FreshAnswer, FreshRequest, FreshStatus, OutcomeKey, Search
from tests.query.world import World, record
from tests.storage.memory_store import MemoryStore

DENSE = IndexInfo("i", "p", "name", 2, Metric.EUCLIDEAN, VectorType.DENSE, IndexState.READY)
QUERY = np.array([1.0, 1.0], dtype=np.float32)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World(DENSE, MemoryStore(), tmp_path).start()
    yield made
    await made.stop()


def request(world: World, m: int = -1, namespace: str = "n") -> FreshRequest:
    return FreshRequest(
        index_id="i",
        namespace=namespace,
        partition=world.partition(namespace),
        metric=Metric.EUCLIDEAN,
        dimension=2,
        manifest_lsn=m,
        search=Search(10, QUERY),
        touched_max=100,
        deadline_s=5.0,
    )


def ids(answer: FreshAnswer) -> list[str]:
    return sorted(hit.stored.record.id for hit in answer.hits)


async def put(world: World, *names: str, namespace: str = "n", deliver: bool = True) -> int:
    records = tuple(record(name, [1.0, at]) for at, name in enumerate(names))
    return await world.write(Upsert(records), namespace=namespace, deliver=deliver)


async def test_a_read_is_woken_by_the_write_it_waits_for(world: World) -> None:
    await put(world, "a")
    waiting = asyncio.create_task(world.fresh.read(replace(request(world), want_lsn=1)))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await put(world, "b")
    answer = await waiting
    assert answer.applied_lsn == 1
    assert ids(answer) == ["a", "b"]


async def test_a_read_that_waits_in_vain_answers_with_what_is_there(world: World) -> None:
    await put(world, "a")
    answer = await world.fresh.read(replace(request(world), want_lsn=7, deadline_s=0.01))
    assert (answer.status, answer.applied_lsn, ids(answer)) == (FreshStatus.OK, 0, ["a"])


async def test_a_manifest_ahead_of_freshness_gets_nothing_from_it(world: World) -> None:
    await put(world, "a")
    answer = await world.fresh.read(replace(request(world, m=5), want_lsn=5))
    assert (answer.status, ids(answer)) == (FreshStatus.BEHIND, [])


async def test_a_quiet_namespace_reports_the_lsn_of_its_busy_partition(world: World) -> None:
    name = next(f"q{i}" for i in range(99) if world.partition(f"q{i}") == world.partition())
    await put(world, "a", namespace=name)
    lsn = await put(world, "b")
    answer = await world.fresh.read(replace(request(world, namespace=name), want_lsn=lsn))
    assert (answer.applied_lsn, ids(answer)) == (lsn, ["a"])


async def test_nothing_is_forgotten_before_manifest_checkpoint_and_grace(world: World) -> None:
    await put(world, "a")
    reading = request(world)
    await world.flush()
    world.clock.now_s += 5.0
    await world.fresh.sweep()
    world.clock.now_s += 1000.0
    await world.fresh.sweep()
    assert ids(await world.fresh.read(reading)) == ["a"], "the checkpoint is not published"
    await world.checkpoint(world.partition())
    await world.fresh.sweep()
    assert ids(await world.fresh.read(reading)) == ["a"], "readers may still have the old manifest"
    await world.forget()
    answer = await world.fresh.read(reading)
    assert (answer.status, answer.floor_lsn) == (FreshStatus.UNPROVEN, 0)
    assert (await world.fresh.read(request(world, m=0))).status is FreshStatus.OK
    assert world.fresh.size_bytes == 0


async def test_a_namespace_that_goes_on_sends_old_readers_back(world: World) -> None:
    await put(world, "a")
    await world.flush()
    await world.checkpoint(world.partition())
    await put(world, "b")
    await world.forget()
    answer = await world.fresh.read(request(world))
    assert (answer.status, answer.floor_lsn) == (FreshStatus.REREAD, 0)
    assert ids(await world.fresh.read(request(world, m=0))) == ["b"]


async def test_lost_news_are_looked_for(world: World) -> None:
    await put(world, "a")
    await world.flush(publish=False)
    await world.checkpoint(world.partition(), publish=False)
    await world.forget()
    assert (await world.fresh.read(request(world))).status is FreshStatus.UNPROVEN


async def test_recovery_starts_at_the_checkpoint_and_is_ready_at_the_end(world: World) -> None:
    await put(world, "a")
    await world.flush()
    checkpoint = await world.checkpoint(world.partition())
    await put(world, "b")
    await world.restart_freshness()
    assert world.fresh.applied(world.partition()) == checkpoint
    assert not world.fresh.ready
    early = await world.fresh.read(replace(request(world, m=0), deadline_s=0.01))
    assert early.status is FreshStatus.NOT_READY
    waiting = asyncio.create_task(world.fresh.read(request(world, m=0)))
    await asyncio.sleep(0)
    await world.deliver()
    assert ids(await waiting) == ["b"]
    assert world.fresh.ready


async def test_transaction_markers_at_the_end_keep_nobody_waiting(world: World) -> None:
    await put(world, "a")
    world.log.markers = 1
    answer = await world.fresh.read(replace(request(world), want_lsn=1))
    assert (answer.applied_lsn, ids(answer)) == (1, ["a"])
    await world.restart_freshness()
    assert not world.fresh.ready
    await world.deliver()
    await world.fresh.sweep()
    assert world.fresh.ready


async def test_a_revoked_partition_answers_nothing_and_wakes_who_waits(world: World) -> None:
    await put(world, "a")
    waiting = asyncio.create_task(world.fresh.read(replace(request(world), want_lsn=9)))
    await asyncio.sleep(0)
    await world.fresh.revoke([world.partition()], lost=True)
    assert (await waiting).status is FreshStatus.NOT_OWNER
    assert (await world.fresh.read(request(world))).status is FreshStatus.NOT_OWNER
    assert world.fresh.size_bytes == 0


async def test_another_log_is_refused(world: World) -> None:
    await put(world, "a")
    await world.flush()
    await world.checkpoint(world.partition())
    partition = world.partition()
    world.log.log_id = "another"
    with pytest.raises(LogMismatch, match="another"):
        await world.fresh.assign(partition)
    world.log.log_id = "log"
    world.log.first = 5
    with pytest.raises(LogMismatch, match=r"\[5, 6\)"):
        await world.fresh.assign(partition)


async def test_records_come_twice_and_change_nothing(world: World) -> None:
    await put(world, "a")
    await put(world, "b")
    partition = world.partition()
    await world.fresh.apply(partition, await world.log.read(partition, 0))
    assert ids(await world.fresh.read(request(world))) == ["a", "b"]


async def test_outcomes_tell_what_was_there_before(world: World) -> None:
    await world.write(CreateNamespace(), CreateNamespace())
    await world.write(DeleteIds(("x",)))
    await world.write(DeleteNamespace(), DeleteNamespace())

    async def existed(lsn: int, request_id: str) -> bool | None:
        asked = replace(request(world), outcome_of=OutcomeKey(lsn, request_id))
        outcome = (await world.fresh.read(asked)).outcome
        assert outcome is not None
        return outcome.existed

    assert await existed(0, "r0") is None
    assert [await existed(lsn, r) for lsn, r in ((0, "r1"), (1, "r0"))] == [True, True]
    assert [await existed(2, "r0"), await existed(2, "r1")] == [True, False]
    unknown = replace(request(world), outcome_of=OutcomeKey(0, "nobody"))
    assert (await world.fresh.read(unknown)).outcome is None


async def test_a_full_namespace_says_so_until_a_manifest_covers_the_hole(tmp_path: Path) -> None:
    limits = FreshnessSettings(limits=MemoryLimits(namespace_records=2))
    world = await World(DENSE, MemoryStore(), tmp_path, freshness=limits).start()
    try:
        await put(world, "a", "b")
        [usage] = (await world.fresh.usage(0)).namespaces
        assert (usage.records, usage.fraction) == (2, 1.0)
        hole = await put(world, "c")
        answer = await world.fresh.read(request(world))
        assert (ids(answer), answer.overflowed_from) == (["a", "b"], 1)

        await world.flush(lsn=0)
        await world.checkpoint(world.partition())
        await world.forget()
        after = await put(world, "d")
        answer = await world.fresh.read(request(world, m=0))
        assert (ids(answer), answer.overflowed_from) == ([], 1), "c is missing, so d must wait"
        assert ids(await world.fresh.read(request(world, m=hole))) == ["d"]

        await world.flush(lsn=hole)
        await world.checkpoint(world.partition())
        await world.forget()
        answer = await world.fresh.read(request(world, m=hole))
        assert (ids(answer), answer.overflowed_from) == (["d"], None)
        assert answer.applied_lsn == after
    finally:
        await world.stop()


async def test_the_largest_namespace_pays_when_all_memory_is_used(tmp_path: Path) -> None:
    limits = FreshnessSettings(limits=MemoryLimits(size_bytes=100_000))
    world = await World(DENSE, MemoryStore(), tmp_path, freshness=limits).start()
    try:
        await put(world, *(f"large{i}" for i in range(170)), namespace="large")
        small = [f"small{at}" for at in range(25)]
        for name in small:
            await put(world, "s", namespace=name)
        usage = await world.fresh.usage(0)
        assert [u.namespace for u in usage.namespaces if u.overflowed] == ["large"]
        assert usage.fraction > 1.0
        for name in small:
            assert ids(await world.fresh.read(request(world, namespace=name))) == ["s"]
    finally:
        await world.stop()


async def test_searches_in_threads_see_one_state_while_writes_go_on(world: World) -> None:
    """Each write replaces all records by ones that are further away: a torn search would mix two
    distances.
    """
    names = [f"id{i:04d}" for i in range(3000)]

    async def write(distance: float) -> None:
        for start in range(0, len(names), 1000):
            part = names[start : start + 1000]
            records = tuple(record(name, [1.0 + distance, 1.0]) for name in part)
            await world.write(Upsert(records), deliver=False)
        await world.deliver()

    await write(1.0)
    for distance in range(2, 6):
        asked = replace(request(world), search=Search(3000, QUERY))
        reading = asyncio.create_task(world.fresh.read(asked))
        await asyncio.sleep(0)
        await write(float(distance))
        scores = {hit.score for hit in (await reading).hits}
        assert scores == {float(distance - 1) ** 2}
