"""At stake: what the files cover is let go, even if its news are missing, wrong or never come."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.errors import CorruptData
from core.indexes import IndexInfo, IndexState, VectorType
from core.metric import Metric
from core.operations import DeleteIds, UpdateById, Upsert
from freshness.namespace import NamespaceMemory
from freshness.protocol import NamespacesRequest
from storage.layout import hint_key, manifest_key, namespace_prefix
from tests.query.world import PARTITIONS, World, record
from tests.storage.memory_store import MemoryStore

DENSE = IndexInfo("i", "p", "name", 2, Metric.EUCLIDEAN, VectorType.DENSE, IndexState.READY)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World(DENSE, MemoryStore(), tmp_path).start()
    yield made
    await made.stop()


async def held(world: World) -> set[str]:
    answers = [await world.fresh.namespaces(NamespacesRequest("i", p)) for p in range(PARTITIONS)]
    return {one.name for answer in answers for one in answer.held}


async def test_entries_that_made_no_manifest_are_forgotten_behind_the_checkpoint(
    world: World,
) -> None:
    """A client that deletes where nothing is must not fill the memory for good."""
    await world.write(DeleteIds(("x",)), namespace="nothing")
    world.truths.clear()  # as for the builder: there is no namespace, and nothing to commit
    await world.forget()
    assert await held(world) == {"nothing"}
    await world.checkpoint(world.partition("nothing"))
    await world.forget()
    assert await held(world) == set()


async def test_a_corrupt_manifest_does_not_keep_the_memory_of_others(world: World) -> None:
    for namespace in ("n", "o"):
        await world.write(Upsert((record("a", [1.0, 1.0]),)), namespace=namespace)
        await world.flush(namespace, publish=False)
    for partition in range(PARTITIONS):
        await world.checkpoint(partition, publish=False)
    prefix = namespace_prefix("i", "n")
    for key in (hint_key(prefix), manifest_key(prefix, 1)):
        await world.store.put(key, b"broken")
    with pytest.raises(CorruptData):
        await world.manifests.newest("i", "n")
    await world.forget()
    assert "o" not in await held(world)


def test_deletions_and_updates_are_forgotten_in_small_steps_too() -> None:
    """A namespace of a million tombstones must not hold the event loop for a second."""
    memory = NamespaceMemory(-1)
    empty = memory.size_bytes
    for lsn in range(100):
        memory.apply(lsn, 0, DeleteIds((f"gone-{lsn}", "again")))
        memory.apply(lsn, 1, UpdateById(f"patched-{lsn % 60}", set_metadata={"at": float(lsn)}))
    steps, held = 0, memory.records
    while memory.evict(89, 10):
        assert held - memory.records <= 20
        steps, held = steps + 1, memory.records
    assert steps >= 6
    # of 90 to 99: ten tombstones, the one of "again", ten patched ids
    assert memory.records == 21
    while memory.evict(99, 10):
        pass
    assert memory.is_empty
    assert memory.size_bytes == empty
