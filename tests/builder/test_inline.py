"""A tiny namespace lies in its manifest: two objects, whatever was written, in two puts a flush."""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from builder.policy import plan
from core.errors import CorruptData
from core.filters.parse import parse_filter
from core.metric import Metric
from core.operations import DeleteAll, DeleteByFilter, DeleteIds, Operation, UpdateById, Upsert
from core.records import Record, SparseValues
from infra.objects.counting import CountingStore
from infra.objects.local import LocalStore
from storage.commit import ManifestStore
from storage.file_cache import FileCache
from storage.layout import namespace_prefix
from storage.manifest import Manifest
from storage.namespace import NamespaceReader
from tests.builder.world import SMALL, World, upsert

PREFIX = namespace_prefix("dense", "n")
INLINE_BYTES = 4_000


@pytest.fixture
async def tiny(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path, store=CountingStore(LocalStore(tmp_path / "objects")))
    world.settings = replace(world.settings, inline_bytes=INLINE_BYTES)
    yield world
    await world.close()


async def newest(world: World, index: str = "dense") -> Manifest:
    manifest = await world.manifest(index)
    assert manifest is not None
    return manifest


async def objects(world: World, prefix: str = PREFIX) -> Counter[str]:
    """How many of each kind."""
    keys = [info.key.removeprefix(prefix) async for info in world.store.list(prefix)]
    return Counter(key.partition("/")[0] for key in keys)


async def test_flush_after_flush_it_is_one_file_in_the_manifest(tiny: World) -> None:
    builder = tiny.builder()
    await builder.assign(0)
    operations: list[Operation] = [
        upsert("a", "b", genre="drama"),
        upsert("b", "c", seed=2.0, genre="comedy", year=1999.0),
        UpdateById("a", None, None, {"genre": "comedy"}),
        DeleteIds(("c",)),
        upsert("d", "e", "f"),
        DeleteByFilter(parse_filter({"genre": "comedy"})),
    ]
    for number, operation in enumerate(operations, 1):
        await tiny.write(operation)
        await tiny.feed_all(builder)
        await builder.flush()
        await tiny.check()
        manifest = await newest(tiny)
        (file,) = manifest.files
        assert file.inline
        assert file.dead_count == 0
        assert not manifest.id_runs
        assert await objects(tiny) == {"manifest": 1, "manifests": number}
    assert set(tiny.truth["dense", "n"].records) == {"d", "e", "f"}


async def test_a_flush_costs_two_puts_and_a_cold_read_one_round(tiny: World) -> None:
    assert isinstance(tiny.store, CountingStore)
    builder = tiny.builder()
    await builder.assign(0)
    await tiny.write(upsert("a", "b"))
    await tiny.feed_all(builder)
    await builder.flush()
    for n in range(3):
        before = tiny.store.counts()
        await tiny.write(upsert(f"c{n}"))
        await tiny.feed_all(builder)
        await builder.flush()
        after = tiny.store.counts()
        registry = 2  # its root, and what it makes of the last one
        assert after.puts - before.puts <= 2 + registry
    cold = ManifestStore(tiny.store)
    before = tiny.store.counts()
    manifest = await cold.recent("dense", "n")
    assert manifest is not None
    cache = FileCache(tiny.store, Path("unused"), 1 << 20)
    assert set(await NamespaceReader(cache, manifest).read(["a", "c2", "nobody"])) == {"a", "c2"}
    await cache.close()
    # The hint, and the packs of which it is not known yet that a tiny namespace has none.
    assert tiny.store.counts().gets - before.gets == 3
    await cold.recent("dense", "n")
    assert tiny.store.counts().gets - before.gets == 4


async def test_it_grows_into_an_ordinary_delta_and_comes_back(tiny: World) -> None:
    builder = tiny.builder()
    await builder.assign(0)
    for start in range(0, 60, 10):
        await tiny.write(upsert(*(f"r{n}" for n in range(start, start + 10)), genre="drama"))
        await tiny.feed_all(builder)
        await builder.flush()
        await tiny.check()
    manifest = await newest(tiny)
    assert not any(file.inline for file in manifest.files)
    assert all(file.in_runs for file in manifest.files)
    # All that was inline went into the delta that was first too large.
    assert max(file.rows for file in manifest.files) > 10
    assert sum(file.rows for file in manifest.files) == 60
    await tiny.write(DeleteAll(), upsert("x", "y"))
    await tiny.feed_all(builder)
    await builder.flush()
    await tiny.check()
    manifest = await newest(tiny)
    assert [bool(file.inline) for file in manifest.files] == [True]
    assert not manifest.id_runs


async def test_compaction_leaves_it_where_it_is(tiny: World) -> None:
    builder = tiny.builder()
    await builder.assign(0)
    await tiny.write(upsert(*(f"r{n}" for n in range(25))))
    await tiny.feed_all(builder)
    await builder.flush()
    await tiny.write(DeleteIds(tuple(f"r{n}" for n in range(10))))
    await tiny.feed_all(builder)
    await builder.flush()
    before = await newest(tiny)
    assert before.files[0].inline
    assert plan(before, SMALL) is None
    await builder.compact()
    assert await newest(tiny) == before
    await tiny.check()


async def test_a_sparse_namespace_is_tiny_as_well(tiny: World) -> None:
    builder = tiny.builder()
    await builder.assign(0)
    sparse = SparseValues(np.array([1, 5], dtype=np.uint32), np.array([0.5, 2.0], dtype=np.float32))
    for n in range(3):
        await tiny.write(Upsert((Record(f"w{n}", None, sparse, {}),)), index="sparse")
        await tiny.feed_all(builder)
        await builder.flush()
    await tiny.check()
    (file,) = (await newest(tiny, "sparse")).files
    assert file.inline


async def test_wrong_bytes_in_a_manifest_are_named(tiny: World) -> None:
    """The manifest's own checksum guards them; this one, what handles them in memory."""
    builder = tiny.builder()
    await builder.assign(0)
    await tiny.write(upsert("a"))
    await tiny.feed_all(builder)
    await builder.flush()
    (file,) = (await newest(tiny)).files
    damaged = msgspec.structs.replace(file, inline=file.inline[:-1] + b"?")
    cache = FileCache(tiny.store, Path("unused"), 1 << 20)
    with pytest.raises(CorruptData, match=file.columns.name):
        await cache.open(PREFIX, damaged, Metric.EUCLIDEAN, 4)
    assert cache.holds(file)
    await cache.close()
