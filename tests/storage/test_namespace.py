"""A manifest and its files together: every live record has one row, and ids lead to it."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import CorruptData
from core.metric import Metric
from storage.cluster_file import write_cluster
from storage.delta_file import write_delta
from storage.encoded_file import put_objects
from storage.file_cache import FileCache
from storage.id_run import EncodedRun, FileIds, merge_runs, write_runs
from storage.lookup import Location
from storage.manifest import DataFile, IdRun, Manifest
from storage.namespace import NamespaceReader
from storage.rows import Rows
from tests.storage.memory_store import MemoryStore
from tests.storage.samples import (
    DENSE,
    SPARSE,
    assert_same_rows,
    sample_manifest,
    sample_rows,
    with_dead,
)

OBJECT_BYTES = 600  # some 30 short ids a run


class Shelf:
    """Writes files and runs as a builder does: a later row of an id makes the older one dead."""

    def __init__(self, folder: Path) -> None:
        self.store = MemoryStore()
        self.cache = FileCache(self.store, folder, 1 << 30)
        self.files: list[DataFile] = []
        self.runs: list[IdRun] = []
        self.truth: dict[str, tuple[int, int]] = {}
        self.rows: list[Rows] = []

    async def add(self, rows: Rows, *, kind: str = "delta", with_run: bool = True) -> None:
        encoded = write_delta(rows, DENSE) if kind == "delta" else write_cluster(rows, DENSE)
        await put_objects(self.store, DENSE.prefix, encoded.objects)
        for row, record_id in enumerate(rows.ids):
            self._kill(record_id)
            self.truth[record_id] = (len(self.files), row)
        self.files.append(msgspec.structs.replace(encoded.file, in_runs=with_run))
        self.rows.append(rows)
        if with_run:
            await self.add_runs(
                write_runs([FileIds(encoded.file.uuid, rows.ids)], 1, object_bytes=OBJECT_BYTES)
            )

    async def add_runs(self, runs: Sequence[EncodedRun]) -> None:
        await put_objects(self.store, DENSE.prefix, [run.object for run in runs])
        self.runs += [run.run for run in runs]

    def delete(self, record_id: str) -> None:
        self._kill(record_id)
        self.truth.pop(record_id, None)

    def _kill(self, record_id: str) -> None:
        if record_id in self.truth:
            place, row = self.truth[record_id]
            file = self.files[place]
            self.files[place] = with_dead(file, [*file.dead_rows(), row])

    def manifest(self) -> Manifest:
        manifest = sample_manifest(files=self.files)
        return msgspec.structs.replace(manifest, id_runs=tuple(self.runs))

    def reader(self) -> NamespaceReader:
        return NamespaceReader(self.cache, self.manifest())

    def truth_of(self, ids: list[str]) -> dict[str, Location]:
        return {i: Location(*self.truth[i]) for i in ids if i in self.truth}


def renamed(rows: Rows, ids: list[str]) -> Rows:
    return Rows(ids, rows.lsns, rows.vectors, rows.sparse, rows.metadata)


async def test_ids_lead_to_their_one_live_row(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    await shelf.add(sample_rows(100), kind="cluster")
    await shelf.add(sample_rows(10, seed=1))  # overwrites r0..r9
    shelf.delete("r3")
    reader = shelf.reader()
    assert await reader.locate(["r3", "r5", "r50", "no", "r5"]) == {
        "r5": Location(1, 5),
        "r50": Location(0, 50),
    }
    assert await reader.locate([]) == {}
    assert reader.live_rows(0).tolist() == list(range(10, 100))
    assert reader.live_mask(1).tolist() == [row != 3 for row in range(10)]


async def test_records_are_read_in_their_newest_version(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    await shelf.add(sample_rows(100), kind="cluster")
    await shelf.add(sample_rows(10, seed=1))
    read = await shelf.reader().read(["r5", "r50", "none"])
    assert set(read) == {"r5", "r50"}
    for record_id, (place, row) in {"r5": (1, 5), "r50": (0, 50)}.items():
        wanted = shelf.rows[place].stored(row)
        got = read[record_id]
        assert got.lsn == wanted.lsn
        assert got.record.id == record_id
        assert got.record.metadata == wanted.record.metadata
        assert got.record.values is not None
        assert wanted.record.values is not None
        assert got.record.values.tobytes() == wanted.record.values.tobytes()


async def test_live_rows_of_a_file(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    rows = sample_rows(20)
    await shelf.add(rows)
    for record_id in ("r0", "r7", "r19"):
        shelf.delete(record_id)
    keep = np.array([row for row in range(20) if row not in (0, 7, 19)])
    assert_same_rows(await shelf.reader().live(0), rows.take(keep))


async def test_a_namespace_without_runs_is_searched_file_by_file(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    await shelf.add(sample_rows(30), with_run=False)
    await shelf.add(sample_rows(5, seed=2))
    assert await shelf.reader().locate(["r2", "r20", "x"]) == {
        "r2": Location(1, 2),
        "r20": Location(0, 20),
    }


async def test_an_empty_namespace_has_nothing(tmp_path: Path) -> None:
    reader = Shelf(tmp_path).reader()
    assert await reader.locate(["a"]) == {}
    assert await reader.read(["a"]) == {}
    assert await reader.list_ids() == []
    assert await reader.files() == []


async def test_an_id_that_is_live_twice_is_reported(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    await shelf.add(sample_rows(5))
    await shelf.add(sample_rows(5, seed=1))
    shelf.files = [msgspec.structs.replace(f, dead=b"", dead_count=0) for f in shelf.files]
    with pytest.raises(CorruptData, match="'r2' is live twice"):
        await shelf.reader().locate(["r2"])


async def test_ids_are_listed_in_order_page_by_page(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    await shelf.add(sample_rows(100), kind="cluster")
    await shelf.add(renamed(sample_rows(6), ["s1", "r5", "", "zz", "r", "r10"]))
    shelf.delete("r11")
    reader = shelf.reader()
    everything = sorted(shelf.truth)
    pages: list[str] = []
    after = None
    while page := await reader.list_ids(after=after, limit=7):
        assert len(page) <= 7
        pages += page
        after = page[-1]
    assert pages == everything
    assert await reader.list_ids("r1", limit=1000) == [i for i in everything if i.startswith("r1")]
    assert await reader.list_ids("r1", after="r12", limit=3) == ["r13", "r14", "r15"]
    assert await reader.list_ids("r1", after="s") == []
    assert await reader.list_ids("r1", after="a", limit=2) == ["r1", "r10"]
    assert await reader.list_ids("nope") == []


_NAMES = [*(f"id{i}" for i in range(9)), "id1" * 170, "idé", "id\U0001f600", "日", ""]
_IDS = st.sampled_from(_NAMES)
_STEP: st.SearchStrategy[tuple[str, list[str]]] = st.one_of(
    st.tuples(st.just("write"), st.lists(_IDS, min_size=1, max_size=6, unique=True)),
    st.tuples(st.just("bare"), st.lists(_IDS, min_size=1, max_size=6, unique=True)),
    st.tuples(st.just("delete"), st.lists(_IDS, max_size=4)),
    st.tuples(st.just("merge"), st.just([])),
    st.tuples(st.just("drop"), st.just([])),
)


_LIMITS = st.integers(1, 15)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    steps=st.lists(_STEP, max_size=12),
    pages=st.lists(
        st.tuples(st.sampled_from(["", "id", "id1", "日", "q"]), st.none() | _IDS, _LIMITS),
        min_size=1,
    ),
)
async def test_reading_agrees_with_a_dictionary(
    steps: list[tuple[str, list[str]]],
    pages: list[tuple[str, str | None, int]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Writes, deletions, merged runs and dropped files, in any order; ids of any kind."""
    shelf = Shelf(tmp_path_factory.mktemp("cache"))
    for action, ids in steps:
        if action in ("write", "bare"):
            await shelf.add(renamed(sample_rows(len(ids)), ids), with_run=action == "write")
        elif action == "delete":
            for record_id in ids:
                shelf.delete(record_id)
        elif action == "merge":
            await merge(shelf)
        else:
            drop_empty_files(shelf)
    asked = [*_NAMES, "id", "nobody"]
    reader = shelf.reader()
    assert await reader.locate(asked) == shelf.truth_of(asked)
    for prefix, after, limit in pages:
        wanted = [i for i in sorted(shelf.truth) if i.startswith(prefix)]
        wanted = [i for i in wanted if after is None or i > after][:limit]
        assert await reader.list_ids(prefix, after, limit) == wanted
    read = await reader.read(asked)
    assert {i: r.lsn for i, r in read.items()} == {
        i: shelf.rows[place].lsns[row] for i, (place, row) in shelf.truth.items()
    }


async def merge(shelf: Shelf) -> None:
    runs = [await shelf.cache.open_run(DENSE.prefix, run) for run in shelf.runs]
    files = {file.uuid: file for file in shelf.files}
    shelf.runs = []
    if runs:
        await shelf.add_runs(merge_runs(runs, files, 2, object_bytes=OBJECT_BYTES))


def drop_empty_files(shelf: Shelf) -> None:
    """What a compaction does to a file all of whose rows are dead; its runs still name it."""
    kept = [place for place, file in enumerate(shelf.files) if file.live]
    renumbered = {place: number for number, place in enumerate(kept)}
    shelf.truth = {i: (renumbered[place], row) for i, (place, row) in shelf.truth.items()}
    shelf.files = [shelf.files[place] for place in kept]
    shelf.rows = [shelf.rows[place] for place in kept]


async def test_a_sparse_namespace_reads_the_same_way(tmp_path: Path) -> None:
    store = MemoryStore()
    rows = sample_rows(20, None, sparse=True)
    encoded = write_cluster(rows, SPARSE)
    await put_objects(store, SPARSE.prefix, encoded.objects)
    manifest = sample_manifest(of=SPARSE, files=[encoded.file])
    reader = NamespaceReader(FileCache(store, tmp_path, 1 << 30), manifest)
    read = await reader.read(["r1"])
    assert read["r1"].record.values is None
    assert read["r1"].record.sparse is not None
    opened = await reader.file(0)
    assert (opened.metric, opened.dimension, opened.vectors) == (Metric.DOTPRODUCT, None, None)
