"""What the way by id costs in requests, and that it leads to the one live row after any history."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builder.builder import IndexBuilder
from builder.chain import Target
from builder.compaction.compact import commit_rewrite, execute
from builder.compaction.run_policy import CoverFiles, MergeRuns, deepest
from builder.policy import Compaction, plan
from core.clock import new_uuid
from core.operations import DeleteIds, UpdateById
from storage.file_cache import FileCache
from storage.layout import NamespaceSchema
from storage.manifest import DataFile, IdRun, Manifest
from storage.namespace import NamespaceReader
from tests.builder.world import DENSE, SMALL, World, upsert
from tests.storage.memory_store import MemoryStore
from tests.storage.rounds import RoundStore

SCHEMA = NamespaceSchema("dense", "n", DENSE.metric, DENSE.dimension)
RECORDS = [f"r{number:03}" for number in range(300)]


class KeyStore(MemoryStore):
    """Remembers what is fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []

    async def get(self, key: str) -> bytes:
        self.fetched.append(key)
        return await super().get(key)

    @property
    def data_files(self) -> list[str]:
        return [key for key in self.fetched if "/clusters/" in key or "/deltas/" in key]


@pytest.fixture
def keys() -> KeyStore:
    return KeyStore()


@pytest.fixture
async def stored(tmp_path: Path, keys: KeyStore) -> World:
    """300 records at rest: clusters of about 20 and some deltas; runs of about 15 entries."""
    world = World(tmp_path, store=keys)
    builder = await started(world)
    for start in range(0, 300, 60):
        await world.write(upsert(*RECORDS[start : start + 60]))
        await flushed(world, builder)
        await builder.compact()
    await world.write(DeleteIds(tuple(RECORDS[100:200:2])), upsert(*RECORDS[0:20], seed=2.0))
    await flushed(world, builder)
    await builder.compact()
    await world.check()
    await builder.revoke([0], lost=True)
    return world


async def started(world: World) -> IndexBuilder:
    builder = world.builder()
    await builder.assign(0)
    return builder


async def flushed(world: World, builder: IndexBuilder) -> None:
    await world.feed_all(builder)
    await builder.flush()


async def newest(world: World) -> Manifest:
    manifest = await world.manifest()
    assert manifest is not None
    return manifest


async def done(world: World, job: Compaction) -> Manifest:
    shop = world.parts().workshop(world.settings)
    snapshot = await newest(world)
    rewrite = await execute(shop, SCHEMA, snapshot, job, SMALL)
    target = Target(SCHEMA, snapshot.owner_epoch)
    manifest = await commit_rewrite(shop, target, snapshot, rewrite)
    assert manifest is not None
    return manifest


async def committed(
    world: World, manifest: Manifest, files: Sequence[DataFile], runs: Sequence[IdRun]
) -> None:
    """The manifest with these instead, as its next version."""
    fresh = {"version": manifest.version + 1, "commit_uuid": new_uuid()}
    changed = {"files": tuple(files), "id_runs": tuple(runs)}
    sizes = sum(run.object.size for run in manifest.id_runs) - sum(r.object.size for r in runs)
    byte_count = manifest.byte_count - sizes
    await world.manifests.commit(
        msgspec.structs.replace(manifest, **fresh, **changed, byte_count=byte_count)
    )


def bare(files: Sequence[DataFile]) -> list[DataFile]:
    """As earlier builds wrote them: no run has their ids."""
    return [msgspec.structs.replace(file, in_runs=False) for file in files]


def cold(world: World, manifest: Manifest, folder: Path) -> tuple[NamespaceReader, RoundStore]:
    """A reader that has nothing yet but the manifest."""
    assert isinstance(world.store, MemoryStore)
    store = RoundStore()
    store.objects = world.store.objects
    return NamespaceReader(FileCache(store, folder, 1 << 30), manifest), store


def covering(manifest: Manifest, name: str) -> list[IdRun]:
    return [run for run in manifest.id_runs if run.first <= name <= run.last]


async def test_a_cold_read_by_id_takes_two_rounds(stored: World, tmp_path: Path) -> None:
    """The runs that may have the id, all at once; then the objects of its file, all at once."""
    manifest = await newest(stored)
    assert len(manifest.files) > 10
    assert len(manifest.id_runs) > 10
    for number, name in enumerate(["r005", "r150", "r151", "r299"]):
        reader, store = cold(stored, manifest, tmp_path / str(number))
        located = await reader.locate([name])
        runs = covering(manifest, name)
        assert len(runs) <= SMALL.id_runs.overlap
        assert sorted(store.keys[0]) == sorted(reader.prefix + r.object.name for r in runs)
        read = await reader.read([name])
        if name == "r150":  # deleted
            assert (located, read, store.rounds) == ({}, {}, 1)
            continue
        file = manifest.files[located[name].file]
        objects = [ref.name for ref in (file.columns, file.vectors) if ref is not None]
        assert store.rounds == 2
        assert sorted(store.keys[1]) == sorted(reader.prefix + name for name in objects)
        assert read[name].lsn == stored.truth[("dense", "n")].records[name].lsn


async def test_merged_runs_make_it_one_run_and_the_file(stored: World, tmp_path: Path) -> None:
    before = await newest(stored)
    manifest = await done(stored, MergeRuns((tuple(run.object.name for run in before.id_runs),)))
    await stored.check()
    assert len(deepest(manifest.id_runs)) == 1
    assert sum(run.entries for run in manifest.id_runs) == manifest.record_count
    reader, store = cold(stored, manifest, tmp_path / "cold")
    read = await reader.read(["r077"])
    assert list(read) == ["r077"]
    assert [len(keys) for keys in store.keys] == [1, 2]
    # Many ids of all files: still two rounds.
    reader, store = cold(stored, manifest, tmp_path / "colder")
    assert len(await reader.read(RECORDS)) == 250
    assert store.rounds == 2


async def test_an_upsert_reads_no_data_file(stored: World, keys: KeyStore, tmp_path: Path) -> None:
    """Finding what it replaces takes runs only; so does a deletion."""
    stored.cache = FileCache(stored.store, tmp_path / "cold", 1 << 30)
    builder = await started(stored)
    keys.fetched.clear()
    await stored.write(upsert(*RECORDS[40:90], "new"), DeleteIds(("r003", "r007", "nobody")))
    await flushed(stored, builder)
    assert keys.data_files == []
    assert any("/ids/" in key for key in keys.fetched)
    await stored.write(UpdateById("r222", set_metadata={"a": "b"}))
    await flushed(stored, builder)
    assert 1 <= len(keys.data_files) <= 2, "one file: the record that is patched"
    await stored.check()


async def test_a_page_of_ids_opens_the_runs_that_it_lies_in(stored: World, tmp_path: Path) -> None:
    manifest = await newest(stored)
    manifest = await done(stored, MergeRuns((tuple(run.object.name for run in manifest.id_runs),)))
    reader, store = cold(stored, manifest, tmp_path / "cold")
    live = sorted(stored.truth[("dense", "n")].records)
    assert await reader.list_ids("r2", after="r249", limit=5) == live[-50:-45]
    fetched = [key for keys in store.keys for key in keys]
    wanted = [run for run in manifest.id_runs if run.last > "r249" and run.first <= live[-46]]
    assert sorted(fetched) == sorted(reader.prefix + run.object.name for run in wanted)
    assert await reader.list_ids("q") == await reader.list_ids("r3") == []
    assert len([key for keys in store.keys for key in keys]) == len(fetched)


async def test_a_page_behind_dead_entries_needs_few_rounds(stored: World, tmp_path: Path) -> None:
    """All but the last records die; their entries are still there."""
    manifest = await newest(stored)
    await done(stored, MergeRuns((tuple(run.object.name for run in manifest.id_runs),)))
    builder = await started(stored)
    await stored.write(DeleteIds(tuple(RECORDS[:295])))
    await flushed(stored, builder)
    manifest = await newest(stored)
    assert len(manifest.id_runs) > 12
    reader, store = cold(stored, manifest, tmp_path / "cold")
    assert await reader.list_ids(limit=3) == ["r295", "r296", "r297"]
    assert store.rounds <= 6, "1, 1, 2, 4, 8, the rest"
    await builder.compact()
    assert plan(await newest(stored), SMALL) is None
    entries = sum(run.entries for run in (await newest(stored)).id_runs)
    assert entries <= 5 + SMALL.id_runs.garbage_min
    await stored.check()


async def test_files_of_earlier_builds_get_runs_beside_flushes(stored: World) -> None:
    before = await newest(stored)
    await committed(stored, before, bare(before.files), ())
    await stored.check()
    manifest = await newest(stored)
    job = plan(manifest, SMALL)
    assert isinstance(job, CoverFiles)
    shop = stored.parts().workshop(stored.settings)
    everything = CoverFiles(tuple(file.uuid for file in manifest.files))
    rewrite = await execute(shop, SCHEMA, manifest, everything, SMALL)
    builder = await started(stored)
    await stored.write(upsert(*RECORDS[0:50:5], seed=5.0), DeleteIds(tuple(RECORDS[201:220])))
    await flushed(stored, builder)
    following = await newest(stored)
    target = Target(SCHEMA, following.owner_epoch)
    after = await commit_rewrite(shop, target, following, rewrite)
    assert after is not None
    assert all(file.in_runs for file in after.files)
    await stored.check()
    await builder.compact()
    await stored.check()


NAMES = [
    *(f"doc-{number:04}" for number in range(80)),
    *("doc", "doc-", "doc-00", " ", "~", "../doc", "Doc-0001", "doc-\x7f"),
    *("k" * 512, "k" * 511 + "l"),
]
Steps = list[tuple[str, list[str]]]
KINDS = {
    "upsert": 30,
    "delete": 8,
    "update": 8,
    "flush": 30,
    "compact": 4,
    "one job": 12,
    "merge": 4,
    "restart": 2,
    "bare": 2,
}


def history(random: Random) -> Steps:
    """Many small flushes, so that there are runs to merge."""
    drawn = random.choices(list(KINDS), list(KINDS.values()), k=60)
    return [(kind, random.sample(NAMES, random.randint(1, 12))) for kind in drawn]


async def lived(folder: Path, steps: Steps) -> None:
    world = World(folder)
    builder = await started(world)
    for kind, names in steps:
        match kind:
            case "upsert":
                await world.write(upsert(*names, seed=float(len(world.log.records))))
            case "delete":
                await world.write(DeleteIds(tuple(names)))
            case "update":
                await world.write(*(UpdateById(name, set_metadata={"a": 1.0}) for name in names))
            case "restart":
                await builder.revoke([0], lost=True)
                builder = await started(world)
            case _:
                await flushed(world, builder)
                await _compacted(world, builder, kind)
                await world.check()
    await flushed(world, builder)
    await _compacted(world, builder, "merge")
    await world.check()
    await builder.compact()
    await world.check()
    await _at_rest(world)
    await world.close()


async def _compacted(world: World, builder: IndexBuilder, kind: str) -> None:
    manifest = await world.manifest()
    if manifest is None or not manifest.files:
        return
    if kind == "compact":
        await builder.compact()
    elif kind == "bare":
        await committed(world, manifest, bare(manifest.files), ())
    elif kind == "one job":
        job = await asyncio.to_thread(plan, manifest, SMALL)
        if job is not None:
            await done(world, job)
    elif kind == "merge" and len(manifest.id_runs) > 1:
        await done(world, MergeRuns((tuple(run.object.name for run in manifest.id_runs[1:]),)))


async def _at_rest(world: World) -> None:
    manifest = await world.manifest()
    if manifest is None or not manifest.files:
        return
    limits = SMALL.id_runs
    assert len(deepest(manifest.id_runs)) <= limits.overlap
    covered = sum(file.live for file in manifest.files if file.in_runs)
    garbage = sum(run.entries for run in manifest.id_runs) - covered
    assert 0 <= garbage <= max(limits.garbage * covered, limits.garbage_min)


QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=10, deadline=None, suppress_health_check=QUIET)
@given(random=st.randoms(use_true_random=True))
async def test_any_history_by_id(random: Random, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every live record live in one row, found and listed, counts exact, garbage bounded."""
    await lived(tmp_path_factory.mktemp("world"), history(random))


@pytest.mark.long
@pytest.mark.timeout(1800)
@settings(max_examples=500, deadline=None, suppress_health_check=QUIET)
@given(random=st.randoms(use_true_random=True))
async def test_many_histories_by_id(
    random: Random, tmp_path_factory: pytest.TempPathFactory
) -> None:
    await lived(tmp_path_factory.mktemp("world"), history(random))
