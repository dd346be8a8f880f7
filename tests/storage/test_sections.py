"""Dividing a manifest: whatever changes, what is read back is what was committed, and a commit
writes little of it.
"""

import random
from dataclasses import dataclass, field

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from storage.encoded_file import EncodedObject
from storage.manifest import (
    DataFile,
    IdRun,
    Manifest,
    ObjectRef,
    SectionKind,
    SectionRef,
    decode,
    decode_section,
)
from storage.sections import NOTHING, Division, Held, Limits, divide, extended, resolve
from tests.storage.samples import sample_manifest, with_dead

DIMENSION = 12
ROW_BYTES = 4 * DIMENSION
LIMITS = Limits(flat_bytes=2_000, root_bytes=1_500, section_bytes=3_000)
# The largest that one entry gets here, and a reference in a root.
ENTRY_BYTES, REFERENCE_BYTES = 400, 170
HEADER_BYTES = 600


def a_file(number: int, rows: int = 1_000) -> DataFile:
    ref = ObjectRef(name=f"clusters/{number:032x}.arrow", size=number, checksum="c" * 32)
    return DataFile(uuid=f"{number:032x}", columns=ref, vectors=None, rows=rows, cluster=number)


def a_run(number: int) -> IdRun:
    ref = ObjectRef(name=f"ids/{number:032x}", size=number, checksum="d" * 32)
    return IdRun(object=ref, entries=5, files=(f"{number:032x}",), first="a", last="b")


def a_manifest(files: int, clusters: int, runs: int = 0, version: int = 1) -> Manifest:
    return changed(
        sample_manifest(version),
        files=tuple(map(a_file, range(files))),
        id_runs=tuple(map(a_run, range(runs))),
        centroids=np.arange(clusters * DIMENSION, dtype="<f4").tobytes(),
    )


def changed(manifest: Manifest, **fields: object) -> Manifest:
    made = msgspec.structs.replace(manifest, **fields)
    return msgspec.structs.replace(made, record_count=sum(file.live for file in made.files))


def plain(manifest: Manifest) -> object:
    """Comparable: order means nothing, nor does the way in which a bitmap is written."""
    files = {
        f.uuid: (msgspec.structs.replace(f, dead=b""), tuple(f.dead_rows())) for f in manifest.files
    }
    runs = {run.object.name: run for run in manifest.id_runs}
    rest = msgspec.structs.replace(manifest, files=(), id_runs=(), sections=())
    return files, runs, rest


@dataclass
class Chain:
    """One namespace's commits; every one is read back by a reader that knows nothing."""

    manifest: Manifest
    held: Held = NOTHING
    objects: dict[str, EncodedObject] = field(default_factory=dict)
    spilled: int = 0
    merged: int = 0

    def commit(self, manifest: Manifest, limits: Limits = LIMITS) -> Division:
        division = divide(manifest, self.held, limits)
        self.objects.update({o.ref.name: o for o in division.objects})
        kinds = {s.kind for s in division.manifest.sections if s not in self.manifest.sections}
        self.spilled += kinds == {SectionKind.EDITS}
        self.merged += bool(kinds - {SectionKind.EDITS})
        self.manifest, self.held = division.manifest, division.held
        assert plain(self.manifest) == plain(manifest)
        assert plain(self.read(division.data)) == plain(manifest)
        return division

    def read(self, data: bytes) -> Manifest:
        root = decode(data, "there")
        held = self.reread(root.manifest.sections)
        return resolve(root, held)

    def reread(self, sections: tuple[SectionRef, ...]) -> Held:
        parts = []
        for section in sections:
            stored = self.objects[section.object.name]
            assert stored.ref == section.object
            parts.append((section, decode_section(stored.data, "there")))
        return extended(NOTHING, parts, ROW_BYTES)


def step(manifest: Manifest, kind: str, rng: random.Random, fresh: int) -> Manifest:
    """One change of the kind that flushes, compactions and deletions make."""
    files, runs = list(manifest.files), list(manifest.id_runs)
    matrix = manifest.centroid_matrix().copy()
    match kind:
        case "flush":
            files.append(a_file(fresh))
            runs.append(a_run(fresh))
            for place in rng.sample(range(len(files)), min(5, len(files))):
                files[place] = dying(files[place], rng, few=True)
        case "many die":
            files = [dying(file, rng, few=False) for file in files]
        case "compact":
            for _ in range(min(3, len(files))):
                files.pop(rng.randrange(len(files)))
            files += [a_file(fresh), a_file(fresh + 1)]
            runs = [*runs[3:], a_run(fresh)]
        case "regroup":
            files = [msgspec.structs.replace(f, groups=((fresh, 0),)) for f in files[:5]] + files[
                5:
            ]
        case "split":
            row = np.full((1, DIMENSION), fresh, dtype="<f4")
            matrix = np.concatenate([matrix, row])
            matrix[rng.randrange(len(matrix))] = -fresh
        case "recluster":
            files = [a_file(fresh + n) for n in range(rng.randrange(40))]
            runs = [a_run(fresh)]
            matrix = np.full((rng.randrange(60), DIMENSION), fresh, dtype="<f4")
        case "delete all":
            files, runs, matrix = [], [], matrix[:0]
        case "shuffle":
            rng.shuffle(files)
            rng.shuffle(runs)
    return changed(
        manifest,
        version=manifest.version + 1,
        files=tuple(files),
        id_runs=tuple(runs),
        centroids=matrix.astype("<f4").tobytes(),
    )


def dying(file: DataFile, rng: random.Random, *, few: bool) -> DataFile:
    rows = file.dead_rows() | BitMap(rng.sample(range(file.rows), 3 if few else 200))
    return with_dead(file, list(rows))


COMMON = st.sampled_from(["flush", "flush", "flush", "compact", "split", "many die", "regroup"])
RARE = st.sampled_from(["recluster", "delete all", "shuffle"])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(COMMON, COMMON, COMMON, RARE), max_size=25),
    st.integers(0, 40),
    st.integers(0, 60),
    st.randoms(use_true_random=False),
    st.booleans(),
)
def test_what_is_read_is_what_was_committed(
    kinds: list[str], files: int, clusters: int, rng: random.Random, reopened: bool
) -> None:
    chain = Chain(sample_manifest())
    chain.commit(a_manifest(files, clusters, runs=files // 4))
    for number, kind in enumerate(kinds):
        if reopened:  # another process goes on
            chain.held = chain.reread(chain.manifest.sections)
        division = chain.commit(step(chain.manifest, kind, rng, 1_000 * (number + 1)))
        sections = division.manifest.sections
        if sections:
            bound = HEADER_BYTES + LIMITS.root_bytes + REFERENCE_BYTES * len(sections)
            assert len(division.data) <= bound
        else:
            assert len(division.data) <= LIMITS.flat_bytes
        for encoded in division.objects:
            assert encoded.ref.size <= LIMITS.section_bytes + ENTRY_BYTES


def test_a_small_manifest_has_no_sections() -> None:
    division = Chain(sample_manifest()).commit(a_manifest(5, 10))
    assert not division.objects
    assert not division.manifest.sections


def test_a_big_one_is_divided_once_and_then_edited() -> None:
    chain = Chain(sample_manifest())
    first = chain.commit(a_manifest(40, 100, runs=20))
    assert {s.kind for s in first.manifest.sections} == {
        SectionKind.FILES,
        SectionKind.ID_RUNS,
        SectionKind.CENTROIDS,
    }
    assert len(first.data) < HEADER_BYTES + REFERENCE_BYTES * len(first.manifest.sections)
    second = chain.commit(step(chain.manifest, "flush", random.Random(1), 1_000))
    assert not second.objects
    assert second.manifest.sections == first.manifest.sections


def test_sections_that_nothing_has_changed_are_not_written_again() -> None:
    """One file goes, others come and go: its section is written again, the rest stays."""
    chain = Chain(sample_manifest())
    chain.commit(a_manifest(60, 200))
    before = chain.manifest.sections
    home = next(s for s in before if s.kind is SectionKind.FILES)
    stays = chain.manifest.files[1:]
    for version in range(2, 100):
        guests = tuple(a_file(1_000 * version + n) for n in range(12))
        chain.commit(changed(chain.manifest, version=version, files=(*stays, *guests)))
    assert chain.merged >= 3
    full = [s for s in before if 2 * s.object.size >= LIMITS.section_bytes and s != home]
    assert len(full) >= 4
    assert set(full) <= set(chain.manifest.sections)
    assert home not in chain.manifest.sections


def test_a_changed_centroid_rewrites_its_own_section_only() -> None:
    chain = Chain(sample_manifest())
    chain.commit(a_manifest(0, 1_000))
    before = [s for s in chain.manifest.sections if 2 * s.object.size >= LIMITS.section_bytes]
    assert len(before) > 10
    for version in range(2, 800):
        matrix = chain.manifest.centroid_matrix().copy()
        matrix[version % 60] = -version
        chain.commit(changed(chain.manifest, version=version, centroids=matrix.tobytes()))
    assert chain.merged >= 2
    assert len(set(before) - set(chain.manifest.sections)) == 1


def test_a_branch_names_the_sections_of_its_source() -> None:
    """Every file in them lies with the source, and what is added lies with the branch."""
    chain = Chain(sample_manifest())
    chain.commit(a_manifest(40, 100, runs=20))
    sections = tuple(
        msgspec.structs.replace(s, origin="index-1/source/") for s in chain.manifest.sections
    )
    chain.held = chain.reread(sections)
    files = tuple(f for f in chain.held.files if f is not None)
    runs = tuple(r for r in chain.held.runs if r is not None)
    assert {f.origin for f in files} == {r.origin for r in runs} == {"index-1/source/"}
    branch = changed(chain.manifest, files=files, id_runs=runs, sections=sections)
    assert not chain.commit(branch).objects
    assert chain.manifest.sections == sections
    stays = chain.manifest.files[1:]
    for version in range(2, 60):
        guests = tuple(a_file(1_000 * version + n) for n in range(12))
        chain.commit(changed(chain.manifest, version=version, files=(*stays, *guests)))
    assert chain.merged >= 2
    assert {f.origin for f in chain.manifest.files if f.cluster >= 1_000} == {""}
    assert {f.origin for f in chain.manifest.files if f.cluster < 1_000} == {"index-1/source/"}


def test_only_what_changed_is_looked_at_before_a_commit() -> None:
    chain = Chain(sample_manifest())
    chain.commit(a_manifest(40, 100))
    files = list(chain.manifest.files)
    files[7] = with_dead(files[7], [1, 2])
    files.append(a_file(99))
    division = chain.commit(changed(chain.manifest, version=2, files=tuple(files)))
    assert {f.uuid for f in division.changed} == {files[7].uuid, files[-1].uuid}
