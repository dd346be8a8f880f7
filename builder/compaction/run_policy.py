"""When to merge id runs, and which: pure functions from the manifest's runs to a job.

Runs are an LSM. A look-up opens every run whose range covers the id, so few should overlap; a merge
writes each entry that it takes once more. Ids that arrive in order (numbers, times) make runs that
follow each other: these overlap nothing and are left alone, but for small ones, which are joined so
that their number stays bounded.

A run that came over all ids makes one run too many everywhere, and what a merge may hold in memory
reaches over a part of the ids only: one job merges in many places, for one commit.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from storage.id_run import OBJECT_BYTES
from storage.manifest import DataFile, IdRun, Manifest


@dataclass(frozen=True, slots=True)
class RunLimits:
    """overlap: the most runs at rest whose ranges share an id; a cold look-up fetches them all.
    Fewer would be written oftener: simulated for a million random ids in flushes of 10,000, each
    entry is written 3.3 times, 95 bytes a record beside a row of 1,700; with compactions that move
    each row three times more, 250 beside 6,800; ids in order, 55. An entry has some 30 bytes
    (`bench/id_runs.py`); `tests/builder/test_run_policy.py` holds the bounds.
    object_bytes: of one run. small: runs below a quarter of that may number twice `overlap`.
    garbage: entries that count for nothing, over live ones, before the oldest runs are rewritten:
    1.0 writes two entries for each one dropped. garbage_min: fewer are left alone.
    bare_rows: rows in files that no run covers, from which on they get one. merge_bytes: of the
    runs that one merge holds in memory (two always go). job_bytes: of all merges of a job, one
    after the other: 4 s of work, which is lost where the process ends.
    """

    overlap: int = 8
    object_bytes: int = OBJECT_BYTES
    garbage: float = 1.0
    garbage_min: int = 4_096
    bare_rows: int = 1_000
    merge_bytes: int = 32 << 20
    job_bytes: int = 128 << 20


@dataclass(frozen=True, slots=True)
class MergeRuns:
    """Live entries of each group of id runs (object names) into runs that do not overlap.

    No run is in two groups.
    """

    groups: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class CoverFiles:
    """Id runs for these files (uuids), whose ids are in none."""

    files: tuple[str, ...]


RunJob = MergeRuns | CoverFiles
# First and last id.
Span = tuple[str, str]


def plan_runs(manifest: Manifest, limits: RunLimits, urgency: float = 1.0) -> RunJob | None:
    """The next job, or None at rest; for `urgency` > 1 only if that many times the overlap that is
    wanted is there, which is what goes before other compactions.
    """
    runs = manifest.id_runs
    merges = _thin(runs, urgency * limits.overlap, limits)
    if merges is not None or urgency > 1.0:
        return merges
    return _cover(manifest.files, limits) or _join(runs, limits) or _clean(manifest, limits)


def deepest(runs: Sequence[IdRun], outside: Sequence[Span] = ()) -> list[IdRun]:
    """The runs that cover the lowest of those ids that the most runs cover; of ids in no span of
    `outside` at which a run begins.
    """
    ends = sorted(run.last for run in runs)
    best, depth, ended = "", 0, 0
    for begun, run in enumerate(sorted(runs, key=lambda run: run.first), start=1):
        while ends[ended] < run.first:
            ended += 1
        if begun - ended > depth and not any(a <= run.first <= b for a, b in outside):
            best, depth = run.first, begun - ended
    return [run for run in runs if run.first <= best <= run.last] if depth else []


def _thin(runs: Sequence[IdRun], most: float, limits: RunLimits) -> MergeRuns | None:
    """Merges wherever more than `most` runs overlap, the deepest places first.

    What a merge makes is not known before it is done, so that each has a span of ids of its own: a
    place within is looked at by the next job.
    """
    if len(deepest(runs)) <= most:
        return None
    left, done = list(runs), list[Span]()
    groups: list[tuple[str, ...]] = []
    room, weight = limits.job_bytes, _weights(runs)
    while len(crowd := deepest(left, done)) > most:
        group = _held(_lightest(crowd, weight, limits), limits)
        room -= sum(run.object.size for run in group)
        if groups and room < 0:
            break
        groups.append(tuple(run.object.name for run in group))
        done.append((min(run.first for run in group), max(run.last for run in group)))
        taken = set(groups[-1])
        left = [run for run in left if run.object.name not in taken]
    return MergeRuns(tuple(groups))


def _weights(runs: Sequence[IdRun]) -> dict[str, float]:
    """By name: what a run's kind would take over all ids. A narrow one is a part of something big
    that was cut into objects, and is not rewritten for a few entries from everywhere.
    """
    bounds = sorted({bound for run in runs for bound in (run.first, run.last)})
    rank = {bound: place for place, bound in enumerate(bounds)}
    return {
        run.object.name: run.object.size * len(bounds) / (rank[run.last] - rank[run.first] + 1)
        for run in runs
    }


def _lightest(
    crowd: Sequence[IdRun], weight: Mapping[str, float], limits: RunLimits
) -> list[IdRun]:
    """The three lightest, or all but what is wanted; then on, as long as each adds no more than
    there is.
    """
    least = max(3, len(crowd) - limits.overlap + 1)
    by_weight = sorted(crowd, key=lambda run: (weight[run.object.name], run.object.name))
    chosen, total = by_weight[:1], weight[by_weight[0].object.name]
    for run in by_weight[1:]:
        adds = weight[run.object.name]
        if len(chosen) >= least and adds > total:
            break
        chosen.append(run)
        total += adds
    return chosen


def _join(runs: Sequence[IdRun], limits: RunLimits) -> MergeRuns | None:
    """The smallest neighbours, `overlap` at least: so each entry is joined about once on its way
    from one size to one `overlap` times as big.
    """
    small = [run for run in runs if 4 * run.object.size < limits.object_bytes]
    if len(small) <= 2 * limits.overlap:
        return None
    small.sort(key=lambda run: (run.first, run.last))
    group = small
    for most in sorted({run.object.size for run in small}):
        fitting = [run if run.object.size <= most else None for run in small]
        groups = (list(group) for fits, group in groupby(fitting, key=bool) if fits)
        group = [run for run in max(groups, key=len) if run is not None]
        if len(group) >= limits.overlap:
            break
    return _one(group, limits)


def _clean(manifest: Manifest, limits: RunLimits) -> MergeRuns | None:
    """The run that was written first, with those that overlap it.

    The next time it is another's turn; once all had theirs, what was garbage in the beginning is
    gone.
    """
    entries = sum(run.entries for run in manifest.id_runs)
    live = sum(file.live for file in manifest.files if file.in_runs)
    if entries - live <= max(limits.garbage * live, limits.garbage_min):
        return None
    # Versions of another namespace, whose files this one shares, compare with none of its own.
    by_age = sorted(
        manifest.id_runs, key=lambda run: (0 if run.origin else run.as_of, run.object.name)
    )
    oldest = by_age[0]
    around = [run for run in by_age if run.first <= oldest.last and oldest.first <= run.last]
    return _one(around, limits, least=1)


def _cover(files: Iterable[DataFile], limits: RunLimits) -> CoverFiles | None:
    """Ids of a job are in memory as strings: about as many as the runs' bytes allow."""
    bare = [file for file in files if not file.in_runs and not file.inline]
    if sum(file.live for file in bare) < limits.bare_rows and len(bare) <= limits.overlap:
        return None
    chosen: list[str] = []
    room = limits.merge_bytes // 64
    for file in bare:
        room -= file.live
        if chosen and room < 0:
            break
        chosen.append(file.uuid)
    return CoverFiles(tuple(chosen)) if chosen else None


def _one(runs: Sequence[IdRun], limits: RunLimits, least: int = 2) -> MergeRuns:
    return MergeRuns((tuple(run.object.name for run in _held(runs, limits, least)),))


def _held(runs: Sequence[IdRun], limits: RunLimits, least: int = 2) -> list[IdRun]:
    """The first ones that one merge may hold, `least` at least."""
    chosen: list[IdRun] = []
    room = limits.merge_bytes
    for run in runs:
        room -= run.object.size
        if len(chosen) >= least and room < 0:
            break
        chosen.append(run)
    return chosen
