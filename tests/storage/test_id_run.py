"""Id runs lead from an id to its row; alike hashes, dead rows and vanished files must not mislead
them.
"""

from collections.abc import Sequence
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from core.clock import new_uuid
from core.errors import CorruptData
from storage import id_run
from storage.checksum import id_hash
from storage.delta_file import write_delta
from storage.id_run import (
    AskedIds,
    EncodedRun,
    FileIds,
    IdRunReader,
    merge_runs,
    write_runs,
)
from storage.manifest import DataFile
from tests.storage.samples import DENSE, sample_rows, with_dead

A, B, GONE = (new_uuid() for _ in range(3))
Entry = tuple[str, str, int]


def read(encoded: EncodedRun) -> IdRunReader:
    return IdRunReader(np.frombuffer(encoded.object.data, dtype=np.uint8), encoded.run)


def written(*parts: tuple[str, Sequence[str]]) -> EncodedRun:
    (run,) = write_runs([FileIds(uuid, ids) for uuid, ids in parts], 1)
    return run


def entries(run: IdRunReader) -> list[Entry]:
    files = [run.uuid(number) for number in run.numbers.tolist()]
    return list(zip(run.ids.strings(), files, run.rows.tolist(), strict=True))


def found(encoded: EncodedRun, ids: Sequence[str]) -> list[Entry]:
    run, asked = read(encoded), AskedIds(ids)
    which, places = run.find(asked, *asked.within(encoded.run))
    all_of_it = entries(run)
    assert [asked.ids[at] for at in which] == [all_of_it[place][0] for place in places]
    return sorted(all_of_it[place] for place in places)


def data_file(uuid: str, rows: int) -> DataFile:
    return write_delta(sample_rows(rows), DENSE, uuid=uuid).file


def test_every_row_of_every_file_is_found() -> None:
    ids = [f"id-{i}" for i in range(1000)]
    encoded = written((A, ids[:400]), (B, ids[400:]))
    wanted = [(name, A, row) for row, name in enumerate(ids[:400])]
    wanted += [(name, B, row) for row, name in enumerate(ids[400:])]
    assert entries(read(encoded)) == sorted(wanted)
    assert found(encoded, ids) == sorted(wanted)
    run = encoded.run
    assert (run.first, run.last, run.entries, run.as_of) == ("id-0", "id-999", 1000, 1)
    assert set(run.files) == {A, B}


def test_unknown_ids_are_not_found() -> None:
    encoded = written((A, ["x", "y"]))
    assert found(encoded, ["z", "x", "w", "xx", ""]) == [("x", A, 0)]
    assert found(encoded, []) == []


IDS = st.text(st.sampled_from("ab\x00é日\U0001f600"), max_size=4) | st.just("p" * 512)


@given(
    files=st.lists(st.lists(IDS, max_size=8), min_size=1, max_size=4),
    asked=st.lists(IDS, max_size=10),
    object_bytes=st.sampled_from([40, 200, 1 << 20]),
)
def test_all_entries_of_the_asked_ids_and_no_other(
    files: list[list[str]], asked: list[str], object_bytes: int
) -> None:
    """Ids of any bytes and of 512 characters, in one run or cut into many."""
    uuids = [f"{number:032x}" for number in range(len(files))]
    parts = [FileIds(uuid, ids) for uuid, ids in zip(uuids, files, strict=True)]
    runs = write_runs(parts, 1, object_bytes=object_bytes)
    truth = sorted(
        (name, uuid, row)
        for uuid, ids in zip(uuids, files, strict=True)
        for row, name in enumerate(ids)
    )
    held = [entry for run in runs for entry in entries(read(run))]
    assert sorted(held) == truth
    assert [name for name, _, _ in held] == [name for name, _, _ in truth], "runs follow each other"
    got = sorted(entry for run in runs for entry in found(run, asked))
    assert got == [entry for entry in truth if entry[0] in asked]
    hashes = np.array([id_hash(name) for name in asked], dtype=np.uint64)
    by_hash = [entries(read(r))[place] for r in runs for place in read(r).with_hashes(hashes)]
    assert sorted(by_hash) == got


def test_ids_of_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that takes every id for every other: only the id itself counts."""
    monkeypatch.setattr(id_run, "id_hashes", lambda ids: np.zeros(len(ids), dtype=np.uint64))
    encoded = written((A, ["a", "b", "c"]))
    assert found(encoded, ["b", "c", "d", "abc"]) == [("b", A, 1), ("c", A, 2)]


def test_hashes_that_agree_in_half_are_told_apart() -> None:
    encoded = written((A, ["a", "b"]))
    near = np.array([id_hash("a") ^ 1, id_hash("b")], dtype=np.uint64)
    assert read(encoded).with_hashes(near).tolist() == [1]


def test_dead_rows_and_vanished_files_are_not_alive() -> None:
    names = [f"{n:04}" for n in range(200)]
    run = read(written((A, names), (B, ["x", "y"]), (GONE, ["z"])))
    dead = {A: BitMap(range(0, 200, 2)), B: BitMap()}
    alive = run.alive(np.arange(len(run), dtype=np.int64), dead.get)
    assert alive.tolist() == [bool(n % 2) for n in range(200)] + [True, True, False]
    assert run.alive(np.array([202, 3, 2]), dead.get).tolist() == [False, True, False]


def test_merging_keeps_what_is_live() -> None:
    """Entries of files no longer in the manifest, and of dead rows, are left out."""
    first = read(written((A, ["k1", "k2", "k3"]), (GONE, ["k4", "k5"])))
    second = read(written((B, ["k2", "k6", "k7"])))
    files = {A: with_dead(data_file(A, 3), [1]), B: with_dead(data_file(B, 3), [2])}
    (merged,) = merge_runs([first, second], files, 9)
    assert (merged.run.as_of, set(merged.run.files)) == (9, {A, B})
    wanted = [("k1", A, 0), ("k2", B, 0), ("k3", A, 2), ("k6", B, 1)]
    assert entries(read(merged)) == wanted
    assert found(merged, ["k1", "k2", "k3", "k4", "k6", "k7"]) == wanted


def test_what_two_runs_say_of_a_row_is_said_once_after_a_merge() -> None:
    names = ["a", "b", "c"]
    once, again = read(written((A, names))), read(written((A, names), (B, ["d"])))
    files = {A: data_file(A, 3), B: data_file(B, 1)}
    (merged,) = merge_runs([once, again, once], files, 2)
    assert entries(read(merged)) == [("a", A, 0), ("b", A, 1), ("c", A, 2), ("d", B, 0)]


def test_an_id_that_is_live_twice_stays_so() -> None:
    """Damage is for a look-up to report, not for a merge to hide."""
    first, second = read(written((A, ["a"]))), read(written((B, ["a"])))
    (merged,) = merge_runs([first, second], {A: data_file(A, 1), B: data_file(B, 1)}, 2)
    assert sorted(entries(read(merged))) == sorted([("a", A, 0), ("a", B, 0)])


def test_merging_to_nothing_gives_no_run() -> None:
    run = read(written((A, ["a"]), (GONE, ["b"])))
    assert merge_runs([run], {A: with_dead(data_file(A, 1), [0])}, 1) == ()
    assert merge_runs([run], {}, 1) == ()


def test_big_runs_are_cut_into_neighbours() -> None:
    rows = np.random.default_rng(1).permutation(5000)
    ids = [f"id-{row:06}" for row in rows]
    runs = write_runs([FileIds(A, ids)], 1, object_bytes=20_000)
    assert len(runs) > 6
    assert all(run.object.ref.size <= 20_000 + 100 for run in runs)
    assert len({run.run.entries // 50 for run in runs}) <= 2, "of about equal size"
    for run, following in pairwise(runs):
        assert run.run.first < run.run.last < following.run.first
    assert [e for run in runs for e in entries(read(run))] == [
        (name, A, row) for row, name in sorted(enumerate(ids), key=lambda pair: pair[1])
    ]


def test_many_files_are_numbered_in_the_run_and_not_named_in_the_manifest() -> None:
    uuids = [f"{number:032x}" for number in range(70_000)]
    parts = [FileIds(uuid, [f"{n:08}"], np.array([n], np.uint32)) for n, uuid in enumerate(uuids)]
    runs = write_runs(parts, 1)
    assert len(runs) == 2, "16 bits number 65,536 files"
    assert all(run.run.files == () for run in runs)
    got = [entry for run in runs for entry in entries(read(run))]
    assert got == [(f"{n:08}", uuid, n) for n, uuid in enumerate(uuids)]


@settings(max_examples=50)
@given(st.lists(st.text(max_size=6), min_size=1, max_size=60), st.integers(60, 400))
def test_merging_what_was_cut_changes_nothing(ids: list[str], object_bytes: int) -> None:
    runs = write_runs([FileIds(A, ids)], 1, object_bytes=object_bytes)
    (merged,) = merge_runs([read(run) for run in runs], {A: data_file(A, len(ids))}, 2)
    assert sorted(entries(read(merged))) == sorted(e for run in runs for e in entries(read(run)))


def test_no_rows_make_no_run() -> None:
    assert write_runs([], 1) == ()
    assert write_runs([FileIds(A, [])], 1) == ()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:10], "cut off"),
        (lambda data: data[:-8], "bytes for 2 entries"),
        (lambda data: b"FIRNIDS1" + data[8:], "unknown format"),
    ],
)
def test_damage_is_corrupt_data(damage: object, message: str) -> None:
    encoded = written((A, ["a", "b"]))
    assert callable(damage)
    data = np.frombuffer(damage(encoded.object.data), dtype=np.uint8)
    with pytest.raises(CorruptData, match=message):
        IdRunReader(data, encoded.run)


@pytest.mark.parametrize("lie", [{"entries": 3}, {"first": "b"}, {"last": "c"}])
def test_a_run_unlike_the_manifests_is_corrupt(lie: dict[str, object]) -> None:
    encoded = written((A, ["a", "b"]))
    data = np.frombuffer(encoded.object.data, dtype=np.uint8)
    with pytest.raises(CorruptData, match=r"for 3 entries|the range"):
        IdRunReader(data, msgspec.structs.replace(encoded.run, **lie))
