"""The builder left to itself: it flushes, compacts, checkpoints, and survives trouble."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from builder.builder import IndexBuilder
from builder.policy import FlushLimits
from builder.rebuild import rebuild
from core.errors import Unavailable
from infra.objects.local import LocalStore
from infra.telemetry import Metrics
from storage.file_cache import FileCache
from storage.layout import namespace_prefix
from tests.builder.world import DENSE, World, upsert


async def until(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    """Bounded by a generous minute: nothing here measures time."""
    deadline = time.monotonic() + 60
    while not await holds():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


async def running(world: World, **changes: object) -> IndexBuilder:
    limits = FlushLimits(age_s=0.02)
    world.settings = replace(world.settings, flush=limits, registry_s=0.01, **changes)  # type: ignore[arg-type]
    builder = world.builder()
    await builder.assign(0)
    await builder.start()
    return builder


async def test_writes_reach_the_index_and_the_checkpoint_by_themselves(world: World) -> None:
    builder = await running(world)
    for number in range(40):
        last = await world.write(upsert(f"r{number}", f"r{number - 1}"))
        await world.feed_all(builder)
        await asyncio.sleep(0.01)

    async def durable() -> bool:
        return builder.committable(0) == last + 1

    await until(durable, "the checkpoint reaches the end")

    async def at_rest() -> bool:
        manifest = await world.manifest()
        assert manifest is not None
        return sum(file.is_delta for file in manifest.files) <= 3

    await until(at_rest, "compaction follows")

    async def quiet() -> bool:
        return not builder._to_compact and not builder._tasks

    await until(quiet, "at rest nothing is looked at again and again")
    await builder.stop()
    await world.check()


async def test_stop_flushes_what_is_left(world: World) -> None:
    builder = await running(world)
    await world.write(upsert("a"))
    await world.feed_all(builder)
    await builder.stop()
    await world.check()


class AwayStore(LocalStore):
    """Takes no manifests whose key holds `away`."""

    away = "nothing is"

    async def put_if_absent(self, key: str, data: bytes) -> bool:
        if self.away in key:
            raise Unavailable("away")
        return await super().put_if_absent(key, data)


async def test_a_checkpoint_never_passes_an_unflushed_entry(tmp_path: Path) -> None:
    """One namespace is stuck, the others go on: replay must begin at its first entry."""
    store = AwayStore(tmp_path / "objects")
    world = World(tmp_path, store=store)
    builder = await running(world, backoff_max_s=0.05)
    store.away = namespace_prefix("dense", "stuck")
    await world.write(upsert("a"), ns="good")
    stuck = await world.write(upsert("a"), ns="stuck")
    await world.write(upsert("b"), ns="good")
    await world.feed_all(builder)

    async def good_is_flushed() -> bool:
        manifest = await world.manifest(ns="good")
        return manifest is not None and manifest.record_count == 2

    await until(good_is_flushed, "the others go on")

    async def up_to_the_stuck() -> bool:
        return builder.committable(0) == stuck

    await until(up_to_the_stuck, "the checkpoint reaches the stuck entry")
    store.away = "nothing is"
    await builder.stop()
    await world.check()
    await world.close()


async def test_a_full_buffer_holds_the_log_back_until_the_store_is_there(tmp_path: Path) -> None:
    """Memory is bounded while the store is away; nothing is lost, and it goes on by itself."""
    store = AwayStore(tmp_path / "objects")
    world = World(tmp_path, store=store)
    builder = await running(world, buffer_records=20, backoff_max_s=0.05)
    store.away = "/manifests/"
    for number in range(100):
        await world.write(upsert(f"r{number}"), ns=f"n{number % 3}")
    feeding = asyncio.create_task(world.feed_all(builder))

    async def full() -> bool:
        return builder.status().buffered_records > 20

    await until(full, "the bound is reached")
    await asyncio.sleep(0.1)
    assert not feeding.done()
    assert builder.status().buffered_records <= 21
    store.away = "nothing is"
    await feeding
    await builder.stop()
    await world.check()
    await world.close()


async def test_a_damaged_namespace_pauses_alone_and_a_rebuild_heals_it(
    world: World, tmp_path: Path
) -> None:
    """A damaged id run: where its ids live is not known. Its entries wait, with bounded memory."""
    first = await running(world)
    await world.write(upsert("a", "b"), ns="n")
    await world.feed_all(first)
    await first.stop()
    manifest = await world.manifest()
    assert manifest is not None
    prefix = namespace_prefix("dense", "n")
    await world.store.put(prefix + manifest.id_runs[0].object.name, b"decayed")
    world.cache = FileCache(world.store, tmp_path / "new cache", 1 << 30)
    builder = await running(world, paused_retry_s=0.05)
    for number in range(10):
        await world.write(upsert("a", seed=float(number)), ns="n")
        await world.write(upsert(f"r{number}"), ns="good")
    await world.feed_all(builder)

    async def others_go_on() -> bool:
        good = await world.manifest(ns="good")
        paused = [n.paused for n in builder.status().partitions[0].namespaces if n.namespace == "n"]
        return good is not None and good.record_count == 10 and "CorruptData" in paused[0]

    await until(others_go_on, "one pauses, the other goes on")
    for number in range(10, 20):
        await world.write(upsert("a", seed=float(number)), ns="n")
    await world.feed_all(builder)

    async def let_go() -> bool:
        """A try reads them again and lets them go again."""
        held = [n for n in builder.status().partitions[0].namespaces if n.namespace == "n"]
        return held[0].pending_bytes == 0

    await until(let_go, "the log has its entries")
    end = await world.log.end_offset(0)

    async def passed() -> bool:
        return builder.committable(0) == end

    await until(passed, "the checkpoint is not held back by one namespace")
    registry = await world.registry.newest_with_holds(0)
    assert registry[1] == {("dense", "n"): manifest.indexed_lsn + world.log.gap}
    await rebuild(world.parts(), world.log, DENSE, "n", settings=world.settings)

    async def healed() -> bool:
        return not builder._owned[0].held and not builder._owned[0].waiting

    await until(healed, "the builder follows the rebuilt manifest")
    await builder.stop()
    await world.check()


async def test_idle_namespaces_are_forgotten(world: World) -> None:
    builder = await running(world, idle_namespaces=5)
    for number in range(40):
        await world.write(upsert("a"), ns=f"n{number}")
    await world.feed_all(builder)

    async def forgotten() -> bool:
        return len(builder._owned[0].works) <= 5

    await until(forgotten, "only a few stay in memory")
    await world.write(upsert("b"), ns="n0")
    await world.feed_all(builder)
    await builder.stop()
    await world.check()


async def test_status_says_what_is_pending_and_what_is_indexed(world: World) -> None:
    builder = world.builder()
    await builder.assign(0)
    await world.write(upsert("a", "b"))
    await world.feed_all(builder)
    (partition,) = builder.status().partitions
    (namespace,) = partition.namespaces
    assert (namespace.pending_records, namespace.records, namespace.files) == (2, 0, None)
    await builder.flush()
    (namespace,) = builder.status().partitions[0].namespaces
    assert (namespace.pending_records, namespace.records) == (0, 2)
    assert namespace.files is not None
    assert (namespace.files.deltas, namespace.files.clusters) == (1, 0)


async def test_metrics_count_the_work(world: World) -> None:
    parts = replace(world.parts(), metrics=Metrics())
    builder = IndexBuilder(parts, world.settings)
    world.builders.append(builder)
    await builder.assign(0)
    for number in range(6):
        await world.write(upsert(f"r{number}"))
        await world.feed_all(builder)
        await builder.flush()
    await builder.compact()
    text = parts.metrics.text().decode()
    assert "firndb_builder_flushes_total 6.0" in text
    assert "firndb_builder_ingested_log_records_total 6.0" in text
    assert 'firndb_builder_compactions_total{job="FoldFiles"}' in text
    assert f'firndb_builder_checkpoint_offset{{partition="0"}} {builder.applied(0)}.0' in text


async def test_what_a_dead_process_left_uncompacted_is_compacted_by_the_next(world: World) -> None:
    first = world.builder()
    await first.assign(0)
    for number in range(8):
        await world.write(upsert(f"r{number}"))
        await world.feed_all(first)
        await first.flush()
    await first.revoke([0], lost=True)
    second = await running(world)

    async def at_rest() -> bool:
        manifest = await world.manifest()
        return manifest is not None and sum(f.is_delta for f in manifest.files) <= 3

    await until(at_rest, "it is compacted without a write")
    await second.stop()
    await world.check()


@pytest.mark.parametrize("batch_bytes", [1, 300, 1 << 20])
async def test_a_backlog_is_flushed_in_bounded_batches(world: World, batch_bytes: int) -> None:
    world.settings = replace(world.settings, batch_bytes=batch_bytes)
    builder = world.builder()
    await builder.assign(0)
    for number in range(12):
        await world.write(upsert(f"r{number}", f"r{number // 2}"))
    await world.feed_all(builder)
    await builder.flush()
    await world.check()
