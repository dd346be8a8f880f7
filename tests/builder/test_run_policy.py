"""Merging id runs: bounds that hold at rest, an end that is reached, and what rewriting costs."""

from collections import Counter
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builder.compaction.run_policy import CoverFiles, MergeRuns, RunLimits, deepest, plan_runs
from core.clock import new_uuid
from storage.manifest import DataFile, IdRun, Manifest, ObjectRef

LIMITS = RunLimits()
SMALL = RunLimits(
    overlap=3,
    object_bytes=2_000,
    garbage_min=20,
    bare_rows=10,
    merge_bytes=9_000,
    job_bytes=36_000,
)
ENTRY_BYTES = 30  # an id of 12 characters
Keys = npt.NDArray[np.int64]


def data_file(rows: int, *, in_runs: bool, inline: bytes = b"") -> DataFile:
    columns = ObjectRef("deltas/x.arrow", 1, "")
    return DataFile(
        uuid=new_uuid(),
        columns=columns,
        vectors=None,
        rows=rows,
        cluster=-1,
        in_runs=in_runs,
        inline=inline,
    )


@dataclass
class Simulation:
    """Runs as (key, version) pairs; an entry is garbage once its key has a newer version.

    flushed, merged: bytes written. heaviest: the most bytes that one merge read. added: runs that
    came, which no merge made.
    """

    limits: RunLimits
    newest: dict[int, int] = field(default_factory=dict)
    runs: dict[str, tuple[IdRun, list[tuple[int, int]]]] = field(default_factory=dict)
    version: int = 1
    flushed: int = 0
    merged: int = 0
    heaviest: int = 0
    added: int = 0
    jobs: int = 0

    def put(self, keys: "list[int] | Keys") -> None:
        """New versions of these keys in one run: a flush, or rows moved by a compaction."""
        self.version += 1
        for key in keys:
            self.newest[int(key)] = self.version
        before = len(self.runs)
        self.flushed += self._add([(int(key), self.version) for key in keys])
        self.added += len(self.runs) - before

    def delete(self, keys: list[int]) -> None:
        self.version += 1
        for key in keys:
            self.newest.pop(key, None)

    def settle(self, jobs_max: int = 300) -> None:
        for _ in range(jobs_max):
            job = plan_runs(self.manifest(), self.limits)
            if job is None:
                return
            assert isinstance(job, MergeRuns)
            self.jobs += 1
            sizes = [sum(self.runs[n][0].object.size for n in names) for names in job.groups]
            assert len(sizes) == 1 or sum(sizes) <= self.limits.job_bytes
            for names in job.groups:
                self._merge(names)
            self.version += 1
        raise AssertionError("merging finds no rest")

    def manifest(self) -> Manifest:
        runs = tuple(run for run, _ in self.runs.values())
        files = (data_file(len(self.newest), in_runs=True),)
        return manifest_of(files, runs, self.version)

    def entries(self) -> Counter[tuple[int, int]]:
        return Counter(entry for _, entries in self.runs.values() for entry in entries)

    def live(self) -> Counter[tuple[int, int]]:
        return Counter(self.newest.items())

    def _merge(self, names: tuple[str, ...]) -> None:
        taken = [self.runs.pop(name) for name in names]
        self.heaviest = max(self.heaviest, sum(run.object.size for run, _ in taken))
        live = {
            (key, version)
            for _, entries in taken
            for key, version in entries
            if self.newest.get(key) == version
        }
        self.merged += self._add(sorted(live))

    def _add(self, entries: list[tuple[int, int]]) -> int:
        entries = sorted(entries)
        size = len(entries) * ENTRY_BYTES
        parts = -(-size // self.limits.object_bytes)
        for part in range(parts):
            held = entries[len(entries) * part // parts : len(entries) * (part + 1) // parts]
            name = new_uuid()
            run = IdRun(
                object=ObjectRef(name, len(held) * ENTRY_BYTES, ""),
                entries=len(held),
                files=(),
                first=f"{held[0][0]:012}",
                last=f"{held[-1][0]:012}",
                as_of=self.version,
            )
            self.runs[name] = (run, held)
        return size


def manifest_of(files: tuple[DataFile, ...], runs: tuple[IdRun, ...], version: int = 1) -> Manifest:
    return Manifest(
        index_id="i",
        namespace="n",
        log_id="l",
        log_epoch=1,
        version=version,
        generation=0,
        owner_epoch=1,
        commit_uuid="c",
        files=files,
        id_runs=runs,
    )


def assert_at_rest(simulation: Simulation) -> None:
    limits, live = simulation.limits, simulation.live()
    runs = [run for run, _ in simulation.runs.values()]
    assert len(deepest(runs)) <= limits.overlap
    small = [run for run in runs if 4 * run.object.size < limits.object_bytes]
    assert len(small) <= 2 * limits.overlap
    entries = simulation.entries()
    assert live <= entries, "nothing live is lost"
    garbage = entries.total() - live.total()
    assert garbage <= max(limits.garbage * live.total(), limits.garbage_min)


KEYS = st.lists(st.integers(0, 400), min_size=1, max_size=60, unique=True)
STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "put", "delete"]), KEYS)
    | st.tuples(st.just("range"), st.tuples(st.integers(0, 400), st.integers(1, 200)))
    | st.tuples(st.just("settle"), st.none()),
    max_size=40,
)


@given(steps=STEPS)
@settings(max_examples=100, deadline=None)
def test_merging_comes_to_rest_within_its_bounds(steps: list[tuple[str, object]]) -> None:
    simulation = Simulation(SMALL)
    for kind, what in steps:
        if isinstance(what, tuple):
            simulation.put(list(range(what[0], what[0] + what[1])))
        elif not isinstance(what, list):
            simulation.settle()
        elif kind == "put":
            simulation.put(what)
        else:
            simulation.delete(what)
    simulation.settle()
    assert_at_rest(simulation)
    two_runs = 2 * SMALL.object_bytes
    assert simulation.heaviest <= max(SMALL.merge_bytes, two_runs)
    assert simulation.jobs <= 2 * simulation.added


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=20))
def test_the_deepest_place_is_found(spans: list[tuple[int, int]]) -> None:
    runs = [
        IdRun(
            object=ObjectRef(str(number), 1, ""),
            entries=1,
            files=(),
            first=f"{min(span):02}",
            last=f"{max(span):02}",
            as_of=1,
        )
        for number, span in enumerate(spans)
    ]
    depth = max((sum(r.first <= f"{at:02}" <= r.last for r in runs) for at in range(31)), default=0)
    crowd = deepest(runs)
    assert len(crowd) == depth
    if crowd:
        assert max(r.first for r in crowd) <= min(r.last for r in crowd), "they share an id"


def test_random_ids_are_written_few_times() -> None:
    """200,000 records in flushes of 2,000, and after every third one 18,000 rows that a compaction
    moved: bytes of runs written for each record, of which 1.7 KB are stored a time and 6.8 in all.
    """
    random = np.random.default_rng(1)
    ids = random.permutation(200_000)
    simulation = Simulation(LIMITS)
    for flush in range(100):
        simulation.put(ids[2_000 * flush : 2_000 * (flush + 1)])
        simulation.settle()
        if flush % 3 == 2:
            known = 2_000 * (flush + 1)
            simulation.put(ids[random.choice(known, min(known, 18_000), replace=False)])
            simulation.settle()
    assert_at_rest(simulation)
    written = simulation.flushed + simulation.merged
    assert written / 200_000 < 400
    assert written / simulation.flushed < 3.5


@pytest.mark.parametrize(("flush", "moved", "jobs"), [(20, 0, 1.0), (200, 1_800, 2.0)])
def test_a_big_namespace_has_few_jobs(flush: int, moved: int, jobs: float) -> None:
    """As 30 million random ids in 225 objects, with everything a thousand times smaller: a flush
    makes one run too many everywhere, and a merge reaches over eight objects only. Bounds are for
    each flush, and for each move of rows.
    """
    limits = replace(
        LIMITS, object_bytes=4_000, merge_bytes=32_000, job_bytes=128_000, garbage_min=40
    )
    random = np.random.default_rng(1)
    ids = random.permutation(30_000)
    simulation = Simulation(limits)
    came = 0
    for number, known in enumerate(range(flush, len(ids) + 1, flush)):
        simulation.put(ids[known - flush : known])
        simulation.settle()
        came += 1
        if moved and number % 3 == 2:
            simulation.put(ids[random.choice(known, min(known, moved), replace=False)])
            simulation.settle()
            came += 1
    assert simulation.jobs <= jobs * came


def test_ids_in_order_cost_next_to_nothing() -> None:
    """Flushes of 5,000: small runs are joined once or twice, big ones never again."""
    simulation = Simulation(LIMITS)
    for flush in range(100):
        simulation.put(list(range(5_000 * flush, 5_000 * (flush + 1))))
        simulation.settle()
    runs = [run for run, _ in simulation.runs.values()]
    assert len(deepest(runs)) == 1
    assert simulation.merged < 1.5 * simulation.flushed
    big = {n for n, (run, _) in simulation.runs.items() if 4 * run.object.size >= 4 << 20}
    assert len(big) >= 4
    simulation.put(list(range(500_000, 505_000)))
    simulation.settle()
    assert big <= simulation.runs.keys()


def test_garbage_is_rewritten_once() -> None:
    """A namespace that loses nine tenths of its records, evenly."""
    simulation = Simulation(LIMITS)
    simulation.put(list(range(300_000)))
    simulation.settle()
    simulation.delete([key for key in range(300_000) if key % 10])
    simulation.merged = 0
    simulation.settle()
    assert_at_rest(simulation)
    assert simulation.merged <= 30_000 * ENTRY_BYTES
    simulation.settle(jobs_max=1)


def test_runs_of_another_namespace_are_cleaned_first_and_once() -> None:
    """A branch's runs say versions of its source, which may be higher than all of its own."""
    simulation = Simulation(LIMITS)
    simulation.version = 1_000
    simulation.put(list(range(300_000)))
    simulation.version = 1
    for name, (run, entries) in simulation.runs.items():
        foreign = msgspec.structs.replace(run, origin="source/")
        simulation.runs[name] = (foreign, entries)
    simulation.delete([key for key in range(300_000) if key % 10])
    simulation.settle(jobs_max=10)
    assert_at_rest(simulation)


def test_one_job_merges_wherever_too_many_overlap() -> None:
    """Twelve objects over all ids, and one run too many in each of them."""
    limits = replace(SMALL, merge_bytes=8_100, job_bytes=100_000)
    simulation = Simulation(limits)
    for _ in range(limits.overlap + 1):
        simulation.put(list(range(800)))
    job = plan_runs(simulation.manifest(), limits)
    assert isinstance(job, MergeRuns)
    assert [len(names) for names in job.groups] == [4] * 12
    simulation.settle()
    assert simulation.jobs == 1
    assert_at_rest(simulation)
    narrow = replace(limits, job_bytes=40_500)
    simulation = Simulation(narrow)
    for _ in range(limits.overlap + 1):
        simulation.put(list(range(800)))
    simulation.settle()
    assert simulation.jobs == 3, "of five merges, five and two"


def test_what_is_urgent_goes_first() -> None:
    simulation = Simulation(LIMITS)
    for _ in range(2 * LIMITS.overlap):
        simulation.put([1, 9])
    assert plan_runs(simulation.manifest(), LIMITS, urgency=2.0) is None
    assert plan_runs(simulation.manifest(), LIMITS) is not None
    simulation.put([1, 9])
    assert plan_runs(simulation.manifest(), LIMITS, urgency=2.0) is not None


@pytest.mark.parametrize("rows", [999, 1000])
def test_files_in_no_run_get_one_once_it_pays(rows: int) -> None:
    bare, covered = data_file(rows, in_runs=False), data_file(5000, in_runs=True)
    inline = data_file(5000, in_runs=False, inline=b"rows")
    job = plan_runs(manifest_of((bare, covered, inline), ()), LIMITS)
    assert job == (CoverFiles((bare.uuid,)) if rows == 1000 else None)


def test_many_small_files_in_no_run_get_one() -> None:
    files = tuple(data_file(10, in_runs=False) for _ in range(LIMITS.overlap + 1))
    assert plan_runs(manifest_of(files, ()), LIMITS) == CoverFiles(
        tuple(file.uuid for file in files)
    )
    narrow = replace(LIMITS, merge_bytes=64 * 25)
    job = plan_runs(manifest_of(files, ()), narrow)
    assert job == CoverFiles(tuple(file.uuid for file in files[:2]))
