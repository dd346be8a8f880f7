"""How a manifest is divided into sections, so that a commit costs the same whatever its size.

A log-structured tree of three levels. The *base* sections hold files, runs and centroids. A root
holds the edits since; when these grow too many, they become a section of edits; when those weigh
much against the base, all is merged: base sections that nothing has changed stay as they are, the
others are written again. Pure functions; storage/section_store.py has the objects.

With e bytes of edits a commit, a root of at most R, a base of T and at most M of edit sections, a
commit writes on average about R for the root and its hint, e * M / (2 R) for the pack of the edit
sections, and 2 e * T / M for merged sections and their pack. The last two are least at
M = 2 sqrt(R T), where they grow like the root of T (bench/manifest_cost.py).
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import TypeVar

import msgspec
import numpy as np
from pyroaring import BitMap

from core.clock import new_uuid
from core.log import NO_LSN
from storage.encoded_file import EncodedObject
from storage.layout import section_name
from storage.manifest import (
    DataFile,
    Edits,
    IdRun,
    Manifest,
    Root,
    SectionKind,
    SectionRef,
    encode,
    encode_section,
    encoded_size,
)

# A namespace whose manifest is smaller has no sections: about 100 clusters, 300,000 records.
FLAT_BYTES_MAX = 128 << 10
# Edits beside the sections in a root. Written twice a commit (manifest and hint).
ROOT_BYTES_MAX = 128 << 10
SECTION_BYTES_MAX = 256 << 10
# Many more never fit, and need not be encoded to see it.
_FLAT_FILES_MAX = 1_000

Entry = TypeVar("Entry", DataFile, IdRun)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes; see the constants. The tests have smaller ones."""

    flat_bytes: int = FLAT_BYTES_MAX
    root_bytes: int = ROOT_BYTES_MAX
    section_bytes: int = SECTION_BYTES_MAX

    def edits_bytes(self, base_bytes: int) -> int:
        """How much of edit sections may stand beside a base of so many bytes."""
        return max(2 * self.root_bytes, int(2 * sqrt(self.root_bytes * base_bytes)))


LIMITS = Limits()


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """What a list of sections holds.

    files, runs: by number; None where removed. centroids: as a manifest's. spans: for each section
    the numbers [first, end) of its files, runs or centroid rows. touched: places of base sections
    that later ones edit.
    """

    sections: tuple[SectionRef, ...] = ()
    files: tuple[DataFile | None, ...] = ()
    runs: tuple[IdRun | None, ...] = ()
    centroids: bytes = b""
    spans: tuple[tuple[int, int], ...] = ()
    touched: frozenset[int] = frozenset()

    @property
    def base_bytes(self) -> int:
        return sum(s.object.size for s in self.sections if s.kind is not SectionKind.EDITS)

    @property
    def edits_bytes(self) -> int:
        return sum(s.object.size for s in self.sections if s.kind is SectionKind.EDITS)


NOTHING = Held()


@dataclass(frozen=True, slots=True, eq=False)
class Division:
    """A manifest ready to be stored: `objects` first, then `data` (the root, encoded).

    manifest: the one asked for, naming its sections. changed: files that `held` had not, or with
    other dead rows, before.
    """

    manifest: Manifest
    data: bytes
    objects: tuple[EncodedObject, ...]
    held: Held
    changed: tuple[DataFile, ...]


def extended(held: Held, sections: Iterable[tuple[SectionRef, Edits]], row_bytes: int) -> Held:
    """With these sections after those that it has. row_bytes: of a centroid, 0 in a sparse
    index.
    """
    state = _State(held)
    for section, edits in sections:
        state.apply(edits, section.origin, row_bytes, section.lsn_as)
        state.end_section(section, edits, row_bytes)
    return state.held()


def resolve(root: Root, held: Held) -> Manifest:
    """The flat manifest; `held` is of the root's sections."""
    manifest = root.manifest
    if not manifest.sections:
        return manifest
    state = _State(held)
    state.apply(root.edits, "", 4 * manifest.dimension)
    return msgspec.structs.replace(
        manifest,
        files=tuple(file for file in state.files if file is not None),
        id_runs=tuple(run for run in state.runs if run is not None),
        centroids=bytes(state.centroids),
    )


def root_of(manifest: Manifest, edits: Edits) -> Root:
    """As it is stored, where `edits` are what its sections lack."""
    if not manifest.sections:
        return Root(manifest=manifest)
    bare = msgspec.structs.replace(manifest, files=(), id_runs=(), centroids=b"")
    return Root(manifest=bare, edits=edits)


def edits_since(held: Held, manifest: Manifest) -> Edits:
    """What turns `held` into the manifest."""
    files = {file.uuid: file for file in manifest.files}
    removed: list[int] = []
    dead: dict[int, bytes | tuple[int, ...]] = {}
    added: list[DataFile] = []
    for number, had in enumerate(held.files):
        if had is None:
            continue
        now = files.pop(had.uuid, None)
        if now is had:
            continue
        died = None if now is None else _died(had, now)
        if now is None or died is None:
            removed.append(number)
            added += [] if now is None else [now]
        elif died:
            dead[number] = died
    runs = {run.object.name: run for run in manifest.id_runs}
    removed_runs: list[int] = []
    for number, run in enumerate(held.runs):
        if run is None:
            continue
        same = runs.get(run.object.name)
        if same is run or same == run:
            del runs[run.object.name]
        else:
            removed_runs.append(number)
    centroids, clusters = _moved_centroids(held.centroids, manifest)
    return Edits(
        files=(*added, *files.values()),
        removed=tuple(removed),
        dead=dead,
        id_runs=tuple(runs.values()),
        removed_runs=tuple(removed_runs),
        centroids=centroids,
        clusters=clusters,
    )


def divide(manifest: Manifest, held: Held, limits: Limits = LIMITS) -> Division:
    """`held` is of `manifest.sections`."""
    flat = _flat(manifest, limits)
    if flat is not None:
        return flat
    edits = edits_since(held, manifest)
    size = encoded_size(edits)
    changed = (*edits.files, *_edited(manifest, held, edits))
    objects: tuple[EncodedObject, ...] = ()
    if size > limits.root_bytes or not held.sections:
        room = limits.edits_bytes(held.base_bytes) - held.edits_bytes
        if size <= min(limits.section_bytes, room):
            held, objects = _spilled(held, manifest, edits)
        else:
            held, objects = _merged(held, manifest, edits, limits)
        edits = Edits()
    named = msgspec.structs.replace(manifest, sections=held.sections)
    return Division(named, encode(root_of(named, edits)), objects, held, changed)


def _flat(manifest: Manifest, limits: Limits) -> Division | None:
    """Without sections, if it is small."""
    most = limits.flat_bytes // 2 if manifest.sections else limits.flat_bytes
    if len(manifest.files) > _FLAT_FILES_MAX or len(manifest.centroids) > most:
        return None
    plain = msgspec.structs.replace(manifest, sections=())
    data = encode(Root(manifest=plain))
    return Division(plain, data, (), NOTHING, plain.files) if len(data) <= most else None


def _edited(manifest: Manifest, held: Held, edits: Edits) -> Iterator[DataFile]:
    uuids = {file.uuid for n in edits.dead if (file := held.files[n]) is not None}
    return (file for file in manifest.files if file.uuid in uuids)


def _died(had: DataFile, now: DataFile) -> bytes | tuple[int, ...] | None:
    """The rows that died since; None if more than that changed."""
    replace = msgspec.structs.replace
    if now != replace(had, dead=now.dead, dead_count=now.dead_count):
        return None
    if now.dead == had.dead:
        return ()
    before, after = had.dead_rows(), now.dead_rows()
    if not before <= after:
        return None
    rows = after - before
    packed = rows.serialize()
    return packed if len(packed) < 3 * len(rows) else tuple(rows)


def _moved_centroids(had: bytes, manifest: Manifest) -> tuple[dict[int, bytes], int | None]:
    now, row_bytes = manifest.centroids, 4 * manifest.dimension
    if now is had or now == had:
        return {}, None
    if not row_bytes:
        return {}, 0
    before = np.frombuffer(had, dtype=np.uint8).reshape(-1, row_bytes)
    after = np.frombuffer(now, dtype=np.uint8).reshape(-1, row_bytes)
    common = min(len(before), len(after))
    differ = np.flatnonzero((before[:common] != after[:common]).any(axis=1)).tolist()
    rows = [*differ, *range(common, len(after))]
    return {a: now[a * row_bytes : b * row_bytes] for a, b in _spans(rows)}, len(after)


def _spans(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """[first, end) of the runs of consecutive numbers; ascending."""
    cuts = [i for i, (a, b) in enumerate(pairwise(numbers), 1) if b != a + 1]
    bounds = [0, *cuts, len(numbers)]
    return [(numbers[a], numbers[b - 1] + 1) for a, b in pairwise(bounds) if a < b]


def _spilled(
    held: Held, manifest: Manifest, edits: Edits
) -> tuple[Held, tuple[EncodedObject, ...]]:
    """The root's edits as a section."""
    section, encoded = _section(SectionKind.EDITS, edits, 4 * manifest.dimension)
    longer = extended(held, [(section, edits)], 4 * manifest.dimension)
    return _with_own(longer, manifest), (encoded,)


def _merged(
    held: Held, manifest: Manifest, edits: Edits, limits: Limits
) -> tuple[Held, tuple[EncodedObject, ...]]:
    """Base sections only: those that nothing has changed, and new ones of all the rest."""
    row_bytes = 4 * manifest.dimension
    state = _State(held)
    state.apply(edits, "", row_bytes)
    kept = [
        place
        for place, section in enumerate(held.sections)
        if section.kind is not SectionKind.EDITS
        and place not in state.touched
        and 2 * section.object.size >= limits.section_bytes
    ]
    parts: list[tuple[SectionRef, Edits]] = [
        (held.sections[place], _content(held, place, row_bytes)) for place in kept
    ]
    old_files = {file.uuid for _, part in parts for file in part.files}
    old_runs = {run.object.name for _, part in parts for run in part.id_runs}
    fresh = [
        *_packed((f for f in manifest.files if f.uuid not in old_files), limits),
        *_packed((r for r in manifest.id_runs if r.object.name not in old_runs), limits),
        *_rows(
            manifest.centroids,
            row_bytes,
            [held.spans[p] for p in kept if held.sections[p].kind is SectionKind.CENTROIDS],
            limits,
        ),
    ]
    objects: list[EncodedObject] = []
    for kind, part in fresh:
        section, encoded = _section(kind, part, row_bytes)
        parts.append((section, part))
        objects.append(encoded)
    # What is kept has its origins already.
    state = _State(NOTHING)
    for section, part in parts:
        state.apply(part, "", row_bytes)
        state.end_section(section, part, row_bytes)
    return _with_own(state.held(), manifest), tuple(objects)


def _content(held: Held, place: int, row_bytes: int) -> Edits:
    """Of a base section that nothing has changed, its origins given to all in it."""
    first, end = held.spans[place]
    match held.sections[place].kind:
        case SectionKind.FILES:
            return Edits(files=tuple(f for f in held.files[first:end] if f is not None))
        case SectionKind.ID_RUNS:
            return Edits(id_runs=tuple(r for r in held.runs[first:end] if r is not None))
        case _:
            return Edits(centroids={first: held.centroids[first * row_bytes : end * row_bytes]})


def _packed(entries: Iterable[Entry], limits: Limits) -> Iterator[tuple[SectionKind, Edits]]:
    """Full sections; what is larger than one has one of its own."""
    part: list[Entry] = []
    size = 0
    for entry in entries:
        entry_size = encoded_size(entry)
        if part and size + entry_size > limits.section_bytes:
            yield _of(part)
            part, size = [], 0
        part.append(entry)
        size += entry_size
    if part:
        yield _of(part)


def _of(part: Sequence[Entry]) -> tuple[SectionKind, Edits]:
    files = tuple(entry for entry in part if isinstance(entry, DataFile))
    runs = tuple(entry for entry in part if isinstance(entry, IdRun))
    kind = SectionKind.FILES if files else SectionKind.ID_RUNS
    return kind, Edits(files=files, id_runs=runs)


def _rows(
    centroids: bytes, row_bytes: int, kept: Sequence[tuple[int, int]], limits: Limits
) -> Iterator[tuple[SectionKind, Edits]]:
    """Sections of the centroids outside of the ranges that are kept."""
    if not row_bytes:
        return
    total, most = len(centroids) // row_bytes, max(1, limits.section_bytes // row_bytes)
    ends = [0, *(end for _, end in sorted(kept))]
    firsts = [*(first for first, _ in sorted(kept)), total]
    for gap, gap_end in zip(ends, firsts, strict=True):
        for first in range(gap, gap_end, most):
            end = min(first + most, gap_end)
            rows = centroids[first * row_bytes : end * row_bytes]
            yield SectionKind.CENTROIDS, Edits(centroids={first: rows})


def _section(kind: SectionKind, edits: Edits, row_bytes: int) -> tuple[SectionRef, EncodedObject]:
    encoded = EncodedObject.of(section_name(new_uuid()), encode_section(edits))
    rows = sum(map(len, edits.centroids.values())) // row_bytes if row_bytes else 0
    entries = len(edits.files) + len(edits.id_runs) + rows
    return SectionRef(object=encoded.ref, kind=kind, entries=entries), encoded


def _with_own(held: Held, manifest: Manifest) -> Held:
    """The same, in the manifest's own objects: the next comparison sees at once what is equal."""
    files = {file.uuid: file for file in manifest.files}
    return Held(
        held.sections,
        tuple(None if file is None else files[file.uuid] for file in held.files),
        held.runs,
        manifest.centroids,
        held.spans,
        held.touched,
    )


class _State:
    """A `Held` while sections are applied to it."""

    def __init__(self, held: Held) -> None:
        self.files = list(held.files)
        self.runs = list(held.runs)
        self.centroids = bytearray(held.centroids)
        self.touched = set(held.touched)
        self._sections = list(held.sections)
        self._spans = list(held.spans)
        # Numbers of files and of runs begin here in each section.
        self._file_starts = _starts(held, SectionKind.FILES)
        self._run_starts = _starts(held, SectionKind.ID_RUNS)

    def held(self) -> Held:
        return Held(
            tuple(self._sections),
            tuple(self.files),
            tuple(self.runs),
            bytes(self.centroids),
            tuple(self._spans),
            frozenset(self.touched),
        )

    def apply(self, edits: Edits, origin: str, row_bytes: int, lsn_as: int = NO_LSN) -> None:
        for number in edits.removed:
            self.files[number] = None
            self._touch(self._file_starts, number)
        for number, rows in edits.dead.items():
            self.files[number] = _with_died(self.files[number], rows)
            self._touch(self._file_starts, number)
        for number in edits.removed_runs:
            self.runs[number] = None
            self._touch(self._run_starts, number)
        for first, rows in edits.centroids.items():
            start = first * row_bytes
            # Sections come in any order; what is between comes with another one.
            self.centroids.extend(bytes(max(0, start - len(self.centroids))))
            self.centroids[start : start + len(rows)] = rows
            self._touch_rows(first, first + len(rows) // row_bytes)
        if edits.clusters is not None:
            self._touch_rows(edits.clusters, len(self.centroids) // row_bytes if row_bytes else 0)
            del self.centroids[edits.clusters * row_bytes :]
        self.files += [_counted_as(_of_origin(file, origin), lsn_as) for file in edits.files]
        self.runs += [_of_origin(run, origin) for run in edits.id_runs]

    def end_section(self, section: SectionRef, edits: Edits, row_bytes: int) -> None:
        """What was applied last was that section."""
        place = len(self._sections)
        self._sections.append(section)
        match section.kind:
            case SectionKind.FILES:
                span = (len(self.files) - len(edits.files), len(self.files))
                self._file_starts.append((span[0], place))
            case SectionKind.ID_RUNS:
                span = (len(self.runs) - len(edits.id_runs), len(self.runs))
                self._run_starts.append((span[0], place))
            case SectionKind.CENTROIDS:
                ((first, rows),) = edits.centroids.items()
                span = (first, first + len(rows) // row_bytes)
            case SectionKind.EDITS:
                span = (0, 0)
        self._spans.append(span)

    def _touch(self, starts: list[tuple[int, int]], number: int) -> None:
        """Numbers beyond the base's own are of what sections of edits have added."""
        at = bisect_right(starts, (number, len(self._sections))) - 1
        if at >= 0 and number < self._spans[starts[at][1]][1]:
            self.touched.add(starts[at][1])

    def _touch_rows(self, first: int, end: int) -> None:
        for place, section in enumerate(self._sections):
            if section.kind is SectionKind.CENTROIDS:
                start, stop = self._spans[place]
                if first < stop and start < end:
                    self.touched.add(place)


def _starts(held: Held, kind: SectionKind) -> list[tuple[int, int]]:
    """(first number, place) of the sections of that kind, ascending."""
    return [
        (held.spans[place][0], place)
        for place, section in enumerate(held.sections)
        if section.kind is kind
    ]


def _with_died(file: DataFile | None, rows: bytes | tuple[int, ...]) -> DataFile | None:
    assert file is not None, "edits are of what is there"
    dead = file.dead_rows()
    if isinstance(rows, bytes):
        dead |= BitMap.deserialize(rows)
    else:
        dead.update(rows)
    dead.run_optimize()
    return msgspec.structs.replace(file, dead=dead.serialize(), dead_count=len(dead))


def _of_origin(entry: Entry, origin: str) -> Entry:
    if not origin or entry.origin:
        return entry
    return msgspec.structs.replace(entry, origin=origin)


def _counted_as(file: DataFile, lsn: int) -> DataFile:
    return file if lsn == NO_LSN else msgspec.structs.replace(file, lsn_as=lsn)
