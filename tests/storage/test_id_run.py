"""Id runs find a record's row; collisions, dead rows and vanished files must not mislead them."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import CorruptData
from storage.checksum import IdHashes, id_hashes
from storage.delta_file import write_delta
from storage.id_run import EncodedRun, IdRunReader, merge_runs, uncovered, write_run
from storage.manifest import DataFile
from tests.storage.samples import DENSE, sample_rows, with_dead


def read(encoded: EncodedRun) -> IdRunReader:
    return IdRunReader(np.frombuffer(encoded.object.data, dtype=np.uint8), encoded.run)


def hashes(*values: int) -> IdHashes:
    return np.array(values, dtype=np.uint64)


def entries(run: IdRunReader) -> list[tuple[int, str, int]]:
    files = [run.uuids[number] for number in run.files]
    return list(zip(run.hashes.tolist(), files, run.rows.tolist(), strict=True))


def data_file(uuid: str, rows: int = 10) -> DataFile:
    return write_delta(sample_rows(rows), DENSE, uuid=uuid).file


def test_every_row_of_every_file_is_found() -> None:
    ids = [f"id-{i}" for i in range(1000)]
    run = read(write_run([("a", id_hashes(ids[:400])), ("b", id_hashes(ids[400:]))]))
    assert len(run) == 1000
    found = run.lookup(id_hashes(ids))
    assert found.asked.tolist() == list(range(1000))
    assert found.files.tolist() == [0] * 400 + [1] * 600
    assert found.rows.tolist() == [*range(400), *range(600)]


def test_unknown_ids_are_not_found() -> None:
    run = read(write_run([("a", id_hashes(["x", "y"]))]))
    found = run.lookup(id_hashes(["z", "x", "w"]))
    assert (found.asked.tolist(), found.rows.tolist()) == ([1], [0])
    assert not len(run.lookup(hashes()).asked)


@given(
    st.lists(st.lists(st.integers(0, 12), max_size=8), min_size=1, max_size=4),
    st.lists(st.integers(0, 15), max_size=10),
)
def test_a_lookup_gives_all_entries_of_equal_hashes(
    files: list[list[int]], asked: list[int]
) -> None:
    """12 different hashes only: collisions within a file and among files are the rule here."""
    if not any(files):
        return
    run = read(write_run([(f"f{i}", hashes(*rows)) for i, rows in enumerate(files)]))
    found = run.lookup(hashes(*asked))
    got = sorted(zip(found.asked.tolist(), found.files.tolist(), found.rows.tolist(), strict=True))
    wanted = [
        (place, file, row)
        for place, value in enumerate(asked)
        for file, rows in enumerate(files)
        for row, there in enumerate(rows)
        if there == value
    ]
    assert got == sorted(wanted)


def test_the_largest_hash_is_a_hash_like_others() -> None:
    top = 2**64 - 1
    run = read(write_run([("a", hashes(0, top, 2**63))]))
    assert run.hashes.tolist() == [0, 2**63, top]
    assert run.lookup(hashes(top, 0)).rows.tolist() == [1, 0]


def test_merging_keeps_what_is_live() -> None:
    """Entries of files no longer in the manifest, and of dead rows, are left out."""
    first = read(write_run([("a", hashes(1, 2, 3)), ("gone", hashes(4, 5))]))
    second = read(write_run([("b", hashes(2, 6, 7))]))
    files = {"a": with_dead(data_file("a", 3), [1]), "b": with_dead(data_file("b", 3), [2])}
    merged = merge_runs([first, second], files)
    assert merged is not None
    assert merged.run.files == ("a", "b")
    assert entries(read(merged)) == [(1, "a", 0), (2, "b", 0), (3, "a", 2), (6, "b", 1)]


def test_merging_to_nothing_gives_no_run() -> None:
    run = read(write_run([("a", hashes(1)), ("gone", hashes(2))]))
    assert merge_runs([run], {"a": with_dead(data_file("a", 1), [0])}) is None
    assert merge_runs([run], {}) is None


def test_files_without_a_run_are_named() -> None:
    files = [data_file("a"), data_file("b"), data_file("c")]
    run = write_run([("b", hashes(1)), ("old", hashes(2))]).run
    assert [file.uuid for file in uncovered([run], files)] == ["a", "c"]


def test_an_empty_run_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one entry"):
        write_run([("a", hashes())])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:10], "cut off"),
        (lambda data: data[:-1], "bytes for 2 entries"),
        (lambda data: b"FIRNIDS2" + data[8:], "unknown format"),
    ],
)
def test_damage_is_corrupt_data(damage: object, message: str) -> None:
    encoded = write_run([("a", hashes(1, 2))])
    assert callable(damage)
    data = np.frombuffer(damage(encoded.object.data), dtype=np.uint8)
    with pytest.raises(CorruptData, match=message):
        IdRunReader(data, encoded.run)


def test_an_entry_count_unlike_the_manifests_is_corrupt() -> None:
    encoded = write_run([("a", hashes(1, 2))])
    data = np.frombuffer(encoded.object.data, dtype=np.uint8)
    with pytest.raises(CorruptData, match="for 3 entries"):
        IdRunReader(data, msgspec.structs.replace(encoded.run, entries=3))
