"""The registry survives the failure of any call: take-over, commits of many sections, their sweep.

At stake: a namespace that no listing shows, a root that names a section which is gone, a checkpoint
above what is in manifests.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builder import partition
from builder.builder import IndexBuilder
from core.operations import DeleteNamespace
from storage import registry_tree
from storage.layout import registry_prefix, registry_sections_prefix
from storage.registry import RegistryStore
from tests.builder.nth_failure import Story, run_nth
from tests.builder.world import World, upsert


@pytest.fixture(autouse=True)
def small_sections() -> Iterator[None]:
    """A few namespaces make several sections, and every commit sweeps."""
    with pytest.MonkeyPatch.context() as patch:
        for name, size in (("SECTION_ROWS", 3), ("SPLIT_ROWS", 5), ("MERGE_ROWS", 2)):
            patch.setattr(registry_tree, name, size)
        patch.setattr(partition, "SWEEP_S", 0.0)
        yield


async def seven_namespaces(world: World) -> None:
    builder = world.builder()
    await builder.assign(0)
    for number in range(7):
        await world.write(upsert("a"), ns=f"n{number:02d}")
    await world.feed_all(builder)
    await builder.flush()
    await world.write(upsert("a", "b"), ns="n03")


async def more_of_them(world: World, builder: IndexBuilder) -> None:
    """Several commits: of changes in the middle, of new names everywhere, of a deletion."""
    for names in (("n03", "n06"), ("m", "n035")):
        for name in names:
            await world.write(upsert("c"), ns=name)
        await world.feed_all(builder)
        await builder.flush()
    await world.write(DeleteNamespace(), ns="n05")
    await world.feed_all(builder)
    await builder.flush()


async def all_are_registered(world: World) -> None:
    """As a process reads it that has nothing in memory; every named section is read."""
    registry = RegistryStore(world.store)
    state = await registry.newest(0)
    assert state is not None
    rows = dict([row async for row in registry.walk(state)])
    assert set(rows) == set(world.truth)
    for key, life in world.truth.items():
        assert rows[key].deleted != life.exists
        assert rows[key].record_count == len(life.records)
        assert rows[key].indexed_lsn == life.last_lsn
    assert state.totals("dense").namespaces == sum(x.exists for x in world.truth.values())
    assert state.checkpoint == await world.log.end_offset(0)
    named = {registry_prefix(0) + ref.object.name for ref in state.sections if ref.object}
    there = {info.key async for info in world.store.list(registry_sections_prefix(0))}
    assert named <= there
    assert len(named) > 2


STORY = Story("registry", seven_namespaces, more_of_them, all_are_registered)


async def test_some_call_of_a_registry_fails(tmp_path: Path) -> None:
    assert await run_nth(STORY, tmp_path, every=False) > 5


@pytest.mark.long
async def test_every_call_of_a_registry_fails(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("calls that failed", await run_nth(STORY, tmp_path, every=True))


async def test_what_is_replaced_goes_after_a_while(tmp_path: Path) -> None:
    """However many commits there were, the store holds what is named and the last rounds'."""
    world = World(tmp_path)
    await seven_namespaces(world)
    builder = world.builders[0]
    for number in range(20):
        await world.write(upsert("x"), ns=f"n{number % 7:02d}")
        await world.feed_all(builder)
        await builder.flush()
    await all_are_registered(world)
    state = builder._owned[0].state
    there = [info async for info in world.store.list(registry_sections_prefix(0))]
    assert len(there) <= len(state.sections) + 4
    await world.close()
