"""The policies: bounds that hold at rest, an end that is reached, and what rewriting costs."""

from collections import Counter
from collections.abc import Iterable
from itertools import count, islice
from math import ceil

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from builder.compaction.successor import with_files
from builder.policy import (
    Compaction,
    CompactionLimits,
    FirstClustering,
    FlushLimits,
    FoldClusters,
    FoldFiles,
    MergeClusters,
    MergeDeltas,
    PendingLoad,
    clusters_of,
    delta_debt,
    due_in_s,
    may_need_compaction,
    plan,
    sizes_of,
)
from core.clock import new_uuid
from storage.groups import UNGROUPED, group_live
from storage.manifest import DataFile, Manifest, ObjectRef

LIMITS = CompactionLimits()
DIMENSION = 384
ROW_BYTES = 4 * DIMENSION


class Simulation:
    """A namespace as metadata only: what jobs would do to the files, with evenly spread rows."""

    def __init__(self, limits: CompactionLimits, dimension: int = DIMENSION) -> None:
        self.limits = limits
        self.random = np.random.default_rng(1)
        self.rewritten = 0
        self.jobs: Counter[str] = Counter()
        self.manifest = Manifest(
            index_id="i",
            namespace="n",
            log_id="l",
            log_epoch=1,
            version=1,
            generation=0,
            owner_epoch=1,
            commit_uuid="c",
            dimension=dimension,
        )

    @property
    def numbers(self) -> list[int]:
        """Of the clusters that there are."""
        if not self.manifest.centroids:
            return []
        vacant = np.isnan(self.manifest.centroid_matrix()[:, 0])
        return np.flatnonzero(~vacant).tolist()

    def flush(self, rows: int, replaced: int = 0) -> None:
        """`rows` new versions, of which `replaced` make older rows dead, drawn evenly."""
        files = [self._with_deaths(file, replaced) for file in self.manifest.files]
        groups = self._spread(rows) if self.numbers else Counter({UNGROUPED: rows})
        self._set([*files, self._file("deltas", groups)])

    def delete(self, share: float) -> None:
        """That share of every file's rows."""
        total = sum(f.live for f in self.manifest.files)
        dead = int(total * share)
        self._set([self._with_deaths(file, dead) for file in self.manifest.files])

    def settle(self, jobs_max: int = 500) -> None:
        for _ in range(jobs_max):
            job = plan(self.manifest, self.limits)
            if job is None:
                return
            assert may_need_compaction(self.manifest, self.limits)
            self._do(job)
        raise AssertionError("compaction finds no rest")

    def _do(self, job: Compaction) -> None:
        self.jobs[type(job).__name__] += 1
        files, before = list(self.manifest.files), self.manifest.record_count
        match job:
            case MergeDeltas(files=uuids):
                groups: Counter[int] = Counter()
                for file in files:
                    if file.uuid in uuids:
                        groups += Counter(group_live(file))
                if self.numbers:
                    groups += self._spread(groups.pop(UNGROUPED, 0))
                self._replace(uuids, [self._file("deltas", groups)])
            case FoldFiles(files=uuids):
                live = sum(f.live for f in files if f.uuid in uuids)
                size = live if self.manifest.dimension else self.limits.sparse_file_rows
                parts = [min(size, live - at) for at in range(0, live, size)]
                made = [self._file("clusters", Counter({-1: rows})) for rows in parts]
                self._replace(uuids, made, [] if len(uuids) == len(files) else None)
            case FirstClustering(clusters=clusters, files=()):
                self._set(files, numbers=range(clusters))
            case FirstClustering(clusters=clusters, files=uuids):
                live = sum(f.live for f in files if f.uuid in uuids)
                assert live * ROW_BYTES <= self.limits.job_bytes
                made = [
                    self._file("clusters", Counter({number: rows}))
                    for number, rows in enumerate(_parts(live, clusters))
                ]
                self._replace(uuids, made, range(clusters))
            case MergeClusters(clusters=numbers):
                assert len(numbers) < len(self.numbers)
                left = [n for n in self.numbers if n not in numbers]
                moved = sum(self._taken(number) for number in numbers)
                self._set(list(self.manifest.files), numbers=left)
                self._move(moved, left)
            case FoldClusters(clusters=numbers):
                for number in numbers:
                    self._fold(number)
        assert self.manifest.record_count == before

    def _fold(self, number: int) -> None:
        """A split takes a tenth of its neighbours' rows as well, as far as they may go."""
        live = self._taken(number)
        parts = _parts(live, clusters_of(live * ROW_BYTES, self.limits))
        free = (n for n in count() if n not in self.numbers)
        numbers = [number, *islice(free, len(parts) - 1)]
        made = [
            self._file("clusters", Counter({n: rows}))
            for n, rows in zip(numbers, parts, strict=True)
        ]
        everyone = {*self.numbers, *numbers}
        self._set([*self.manifest.files, *made], numbers=everyone)
        if len(parts) == 1:
            return
        moved, files = 0, []
        near = self.random.permutation(sorted(everyone - set(numbers)))[:16].tolist()
        for file in self.manifest.files:
            if not file.is_delta and file.cluster in near:
                least = sizes_of(DIMENSION, self.limits).least
                gone = min(file.live // 10, max(0, file.live - least))
                moved += gone
                file = self._without(file, gone)
            files.append(file)
        self._set(files)
        self._move(moved, numbers)

    def _taken(self, number: int) -> int:
        """The cluster's live rows, which are gone from its file and its groups afterwards."""
        live, kept = 0, []
        for file in self.manifest.files:
            if file.is_delta:
                groups = Counter(group_live(file))
                live += groups.pop(number, 0)
                if groups.total():
                    kept.append(self._file("deltas", groups, rewritten=False))
            elif file.cluster == number:
                live += file.live
            else:
                kept.append(file)
        self._set(kept)
        return live

    def _move(self, rows: int, numbers: list[int]) -> None:
        """`rows` more in a delta, evenly among `numbers`."""
        if rows:
            spread = Counter(self.random.choice(numbers, size=rows).tolist())
            self._set([*self.manifest.files, self._file("deltas", spread)])

    def _replace(
        self,
        uuids: "list[str] | tuple[str, ...]",
        made: list[DataFile],
        numbers: Iterable[int] | None = None,
    ) -> None:
        kept = [f for f in self.manifest.files if f.uuid not in uuids]
        self._set([*kept, *made], numbers=numbers)

    def _set(self, files: list[DataFile], numbers: Iterable[int] | None = None) -> None:
        matrix = self.manifest.centroids
        if numbers is not None:
            used = sorted(numbers)
            rows = np.full((used[-1] + 1 if used else 0, DIMENSION), np.nan, dtype="<f4")
            rows[used] = 0.0
            matrix = rows.tobytes()
        self.manifest = with_files(self.manifest, files, [], matrix)

    def _file(self, kind: str, groups: "Counter[int]", *, rewritten: bool = True) -> DataFile:
        rows = groups.total()
        if kind == "clusters" or len(groups) > 1 or -1 not in groups:
            self.rewritten += rows if rewritten else 0
        uuid, first, ranges = new_uuid(), 0, []
        for number, size in sorted(groups.items()):
            if number >= 0 and kind == "deltas":
                ranges.append((number, first))
            first += size
        return DataFile(
            uuid=uuid,
            columns=ObjectRef(name=f"{kind}/{uuid}.arrow", size=rows, checksum=""),
            vectors=None,
            rows=rows,
            cluster=next(iter(groups)) if kind == "clusters" else -1,
            groups=tuple(ranges),
            in_runs=True,
        )

    def _spread(self, rows: int) -> "Counter[int]":
        return Counter(self.random.choice(self.numbers, size=rows).tolist())

    def _with_deaths(self, file: DataFile, deaths: int) -> DataFile:
        total = sum(f.live for f in self.manifest.files)
        return self._without(file, min(file.live, ceil(deaths * file.live / max(total, 1))))

    def _without(self, file: DataFile, deaths: int) -> DataFile:
        """`deaths` more of its rows dead."""
        dead = file.dead_rows()
        live = np.setdiff1d(np.arange(file.rows), np.array(dead, dtype=np.int64))
        dead |= BitMap(self.random.choice(live, deaths, replace=False).tolist())
        return msgspec.structs.replace(file, dead=dead.serialize(), dead_count=len(dead))


def _parts(rows: int, parts: int) -> list[int]:
    return [rows // parts + int(n < rows % parts) for n in range(parts)]


def assert_at_rest(manifest: Manifest, limits: CompactionLimits) -> None:
    deltas = [f for f in manifest.files if f.is_delta]
    assert len(deltas) <= limits.deltas
    assert delta_debt(manifest, limits) == 0
    if not manifest.dimension:
        return
    row_bytes = 4 * manifest.dimension
    settled, added = Counter[int](), Counter[int]()
    for file in manifest.files:
        (added if file.is_delta else settled).update(group_live(file))
        assert file.is_delta or file.live * row_bytes <= limits.split_bytes
    if not manifest.centroids:
        return
    assert added[UNGROUPED] * row_bytes <= len(deltas) * limits.cluster_bytes / 4
    for number in range(len(manifest.centroid_matrix())):
        if np.isnan(manifest.centroid_matrix()[number]).any():
            assert number not in settled
            assert number not in added
            continue
        rows = settled[number] + added[number]
        assert limits.cluster_bytes <= 4 * rows * row_bytes or len(settled) == 1
        assert 3 * rows * row_bytes <= 4 * limits.split_bytes
        floor = limits.cluster_bytes // row_bytes // 4
        held = sum(file.rows for file in manifest.files if file.cluster == number)
        assert added[number] <= limits.fold_fraction * max(held, floor)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("flush"), st.integers(1, 6000), st.floats(0, 1)),
        st.tuples(st.just("delete"), st.just(0), st.floats(0, 1)),
    ),
    max_size=25,
)


@given(steps=STEPS, dense=st.booleans(), settle_each=st.booleans())
@settings(max_examples=30, deadline=None)
def test_compaction_comes_to_rest_within_its_bounds(
    steps: list[tuple[str, int, float]], dense: bool, settle_each: bool
) -> None:
    simulation = Simulation(LIMITS, DIMENSION if dense else 0)
    for kind, rows, share in steps:
        if kind == "flush":
            simulation.flush(rows, int(rows * share))
        else:
            simulation.delete(share)
        if settle_each:
            simulation.settle()
    simulation.settle()
    assert_at_rest(simulation.manifest, LIMITS)


def test_rewriting_stays_bounded_under_churn() -> None:
    """40,000 records, then 10 rounds that each overwrite a tenth, in flushes of 500: rows written
    by compaction and flush for each row that came. The goal for all bytes is 5.
    """
    simulation = Simulation(LIMITS)
    for _ in range(80):
        simulation.flush(500)
        simulation.settle()
    simulation.rewritten = 0
    for _ in range(80):
        simulation.flush(500, replaced=500)
        simulation.settle()
    amplification = simulation.rewritten / 40_000
    assert amplification < 5.0, simulation.jobs


def test_a_backlog_is_clustered_in_jobs_of_bounded_memory() -> None:
    """200,000 rows (300 MB) that no compaction has seen yet."""
    simulation = Simulation(LIMITS)
    for _ in range(10):
        simulation.flush(20_000)
    simulation.settle()
    assert_at_rest(simulation.manifest, LIMITS)
    assert len(simulation.numbers) >= 37
    assert all(file.groups for file in simulation.manifest.files if file.is_delta)


def test_a_shrunk_namespace_gets_fewer_clusters() -> None:
    simulation = Simulation(LIMITS)
    simulation.flush(40_000)
    simulation.settle()
    assert len(simulation.numbers) > 10
    simulation.delete(0.95)
    simulation.settle()
    assert simulation.numbers == []
    assert len(simulation.manifest.files) == 1


def test_tiny_namespaces_are_left_alone() -> None:
    """A handful of dead rows is no reason to write files."""
    simulation = Simulation(LIMITS)
    simulation.flush(10)
    simulation.delete(0.5)
    assert plan(simulation.manifest, LIMITS) is None
    assert not may_need_compaction(simulation.manifest, LIMITS)


@given(
    records=st.integers(0, 50_000),
    size=st.integers(0, 1 << 26),
    age_s=st.floats(0, 100),
    operations=st.integers(0, 100),
    debt=st.floats(0, 50),
)
def test_flushing(records: int, size: int, age_s: float, operations: int, debt: float) -> None:
    """More of anything never speaks against a flush; memory bounds hold whatever the debt."""
    limits = FlushLimits()
    load = PendingLoad(records, size, age_s, operations)
    more = PendingLoad(records + 1, size + 1, age_s + 1, operations + 1)
    wait = due_in_s(load, limits, debt)
    flushing = wait <= 0
    assert due_in_s(more, limits, debt) <= wait
    assert due_in_s(load, limits, 0.0) <= wait
    if not flushing:
        assert due_in_s(PendingLoad(records, size, age_s + wait, operations), limits, debt) <= 1e-6
    if records >= limits.records or size >= limits.bytes:
        assert flushing
    if age_s >= limits.age_s:
        assert due_in_s(load, limits, 0.0) <= 0
