"""Fetch and list, cold: which objects they ask the store for, and in how many rounds."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.indexes import IndexInfo, IndexState, VectorType
from core.metric import Metric
from core.operations import DeleteIds, Upsert
from storage.file_cache import FileCache
from storage.manifest import Manifest
from tests.query.world import World, record
from tests.storage.rounds import RoundStore

DENSE = IndexInfo("i", "p", "name", 2, Metric.COSINE, VectorType.DENSE, IndexState.READY)


@pytest.fixture
def store() -> RoundStore:
    return RoundStore()


@pytest.fixture
async def world(
    tmp_path: Path, store: RoundStore, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    made = await World(DENSE, store, tmp_path).start()
    monkeypatch.setattr(made.random, "random", lambda: 0.1)  # deltas, and a run for each
    yield made
    await made.stop()


async def cold(world: World, store: RoundStore, folder: Path) -> Manifest:
    """40 records in files, nothing of them in memory or in a cache."""
    await world.write(Upsert(tuple(record(f"r{n:02}", [1, n]) for n in range(40))))
    manifest = await world.flush()
    assert len(manifest.files) == len(manifest.id_runs) > 0
    await world.checkpoint(world.partition())
    await world.forget()
    await world.cache.close()
    world.cache = FileCache(store, folder / "cold", 1 << 30)
    await world.restart_freshness()
    store.keys.clear()
    return manifest


def after_the_manifest(store: RoundStore) -> list[list[str]]:
    """By round, what was fetched of data files and id runs."""
    rounds = [[key for key in keys if "/deltas/" in key or "/ids/" in key] for keys in store.keys]
    return [keys for keys in rounds if keys]


async def test_a_page_of_ids_reads_no_data_file(
    world: World, store: RoundStore, tmp_path: Path
) -> None:
    manifest = await cold(world, store, tmp_path)
    page = await world.service.list_ids(DENSE, "n", prefix="r1")
    assert page.ids == tuple(f"r1{n}" for n in range(10))
    fetched = [key for keys in after_the_manifest(store) for key in keys]
    assert len(fetched) == len(manifest.id_runs)
    assert all("/ids/" in key for key in fetched)


async def test_a_fetch_reads_runs_and_then_files(
    world: World, store: RoundStore, tmp_path: Path
) -> None:
    manifest = await cold(world, store, tmp_path)
    result = await world.service.fetch(DENSE, "n", ["r07", "r33", "no"])
    assert list(result.records) == ["r07", "r33"]
    runs, files = after_the_manifest(store)
    assert len(runs) == len(manifest.id_runs)
    assert all("/ids/" in key for key in runs)
    assert len(files) <= 2
    assert all("/deltas/" in key for key in files)


async def test_counting_what_is_hidden_reads_no_data_file(
    world: World, store: RoundStore, tmp_path: Path
) -> None:
    await cold(world, store, tmp_path)
    await world.write(DeleteIds(("r01", "r39", "no")), Upsert((record("r02", [1, 1]),)))
    assert (await world.service.stats(DENSE)).total == 38
    fetched = [key for keys in after_the_manifest(store) for key in keys]
    assert fetched
    assert all("/ids/" in key for key in fetched)
