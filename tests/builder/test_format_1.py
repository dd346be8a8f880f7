"""A folder that format 1 left behind: read to the last bit, and gone on from by a builder."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from core.metric import Metric
from core.operations import DeleteIds, DeleteNamespace
from infra.objects.local import LocalStore
from storage.layout import hint_key, namespace_prefix
from storage.manifest import MAGIC
from tests.builder.world import DENSE, Life, ListLog, World, upsert
from tests.fixtures.folders import stored_record, unpack


class LaterLog(ListLog):
    """The fixture's log, of which what was indexed is trimmed away."""

    def __init__(self, start: int) -> None:
        super().__init__()
        self.start = start
        self._first = start

    async def append(self, *args, **kwargs) -> int:  # type: ignore[no-untyped-def]
        offset = self._first + await super().append(*args, **kwargs)
        self.records[-1] = replace(self.records[-1], offset=offset)
        return offset

    async def end_offset(self, partition: int) -> int:
        return self.records[-1].offset + 1 if self.records else self.start


@pytest.fixture
async def old(tmp_path: Path) -> AsyncIterator[World]:
    expected = unpack("format-1", tmp_path / "objects")
    world = World(tmp_path, store=LocalStore(tmp_path / "objects"))
    for metric in (Metric.COSINE, Metric.DOTPRODUCT):
        index_id = metric.value
        world.directory.indexes[index_id] = replace(DENSE, index_id=index_id, metric=metric)
    world.log = LaterLog(expected["registry"]["checkpoint"])
    for told in expected["namespaces"]:
        records = {r["id"]: stored_record(r) for r in told["records"]}
        life = Life(exists=not told["deleted"], records=records)
        world.truth[told["index"], told["namespace"]] = life
    yield world
    await world.close()


async def test_all_of_it_is_read_as_it_was_written(old: World, tmp_path: Path) -> None:
    expected = unpack("format-1", tmp_path / "again")
    assert {told["index"] for told in expected["namespaces"]} > {"dense", "sparse"}
    for told in expected["namespaces"]:
        manifest = await old.manifest(told["index"], told["namespace"])
        assert manifest is not None
        assert manifest.version == told["version"]
        assert manifest.generation == told["generation"]
        assert manifest.indexed_lsn == told["indexed_lsn"]
        assert manifest.deleted == told["deleted"]
        assert len(manifest.files) == told["files"]
        assert sum(file.dead_count for file in manifest.files) == told["dead_rows"]
        assert sum(bool(file.groups) for file in manifest.files) == told["grouped_deltas"]
        assert len(manifest.centroid_matrix()) == told["clusters"]
    await old.check()


async def test_its_registry_is_read(old: World, tmp_path: Path) -> None:
    expected = unpack("format-1", tmp_path / "again")
    assert await old.builder().assign(0) == expected["registry"]["checkpoint"]


async def test_a_builder_goes_on_from_it(old: World) -> None:
    builder = old.builder()
    await builder.assign(0)
    for index, ns in list(old.truth):
        if index == "sparse":
            await old.write(DeleteIds(("w1", "w7", "w40")), index=index, ns=ns)
        else:
            await old.write(upsert(*(f"r{n}" for n in range(5, 60))), index=index, ns=ns)
            await old.write(DeleteIds(("r6", "r70")), index=index, ns=ns)
    await old.write(DeleteNamespace(), ns="small")
    await old.feed_all(builder)
    await builder.flush()
    await old.check()
    await builder.compact()
    await old.check()
    for index, ns in old.truth:
        hint = await old.store.get(hint_key(namespace_prefix(index, ns)))
        assert hint.startswith(MAGIC), "what goes on is in format 2"
