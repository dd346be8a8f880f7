"""At stake: a damaged file is an error that names it, in its own namespace only, and only while it
is damaged; queries under way are not touched by it.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from core.errors import CorruptData
from core.indexes import IndexInfo, IndexState, VectorType
from core.metric import Metric
from core.operations import Upsert
from infra.objects.local import LocalStore
from query.model import QueryRequest
from storage.layout import namespace_prefix
from storage.manifest import Manifest
from tests.query.world import World, record

DIMENSION = 64
INFO = IndexInfo("i", "p", "n", DIMENSION, Metric.COSINE, VectorType.DENSE, IndexState.READY)
ROWS = 900
QUERY = np.ones(DIMENSION, dtype=np.float32)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Two namespaces in a local store's files, and nothing of them in freshness."""
    made = await World(INFO, LocalStore(tmp_path / "objects"), tmp_path).start()
    random = np.random.default_rng(5)
    for namespace in ("n", "other"):
        vectors = random.standard_normal((ROWS, DIMENSION))
        rows = (record(f"r{i}", v.tolist(), genre=f"g{i % 7}") for i, v in enumerate(vectors))
        await made.write(Upsert(tuple(rows)), namespace=namespace)
        await made.flush(namespace)
        await made.checkpoint(made.partition(namespace))
    await made.forget()
    yield made
    await made.stop()
    await made.store.close()


def files_of(world: World, manifest: Manifest) -> list[Path]:
    prefix = namespace_prefix("i", "n")
    names = [ref.name for f in manifest.files for ref in (f.columns, f.vectors) if ref is not None]
    paths = [world.store.local_path(prefix + name) for name in names]
    return [path for path in paths if path is not None]


async def best(world: World, namespace: str = "n") -> list[str]:
    request = QueryRequest(5, QUERY, include_values=True)
    return [m.id for m in (await world.service.query(INFO, namespace, request)).matches]


def expected(world: World, namespace: str = "n") -> list[str]:
    return [i for i, _ in world.ranked(world.truth(namespace).now, 5, QUERY)]


@pytest.mark.parametrize("how", ["cut", "flipped", "removed"])
async def test_a_damaged_file_fails_its_own_namespace_until_it_is_back(
    world: World, how: str
) -> None:
    manifest = await world.manifests.newest("i", "n")
    assert manifest is not None
    for path in files_of(world, manifest):
        good = path.read_bytes()
        match how:
            case "cut":
                os.truncate(path, len(good) // 2)
            case "flipped":
                path.write_bytes(good[:-9] + bytes([good[-9] ^ 4]) + good[-8:])
            case "removed":
                path.unlink()
        await world.cache.close()
        world.cache._held.clear()
        for _ in range(2):
            with pytest.raises(CorruptData, match=path.name):
                await best(world)
        assert await best(world, "other") == expected(world, "other")
        path.write_bytes(good)
        assert await best(world) == expected(world)
    found = world.cache.copies
    assert (found.corrupt_objects > 0) == (how != "removed")


async def test_queries_go_on_over_files_that_are_damaged_meanwhile(world: World) -> None:
    """They read what was verified; the damage is noticed by who opens the file next."""
    manifest = await world.manifests.newest("i", "n")
    assert manifest is not None
    right = expected(world)
    assert await best(world) == right
    running = [asyncio.create_task(best(world)) for _ in range(20)]
    for path in files_of(world, manifest):
        os.truncate(path, 0)
    assert await asyncio.gather(*running) == [right] * 20
    for _ in range(20):
        assert await best(world) == right
    await world.cache.close()
    world.cache._held.clear()
    with pytest.raises(CorruptData, match="does not match its checksum"):
        await best(world)
