"""Private copies: what was verified is what is read, whoever writes to whatever file."""

import errno
import gc
import os
from pathlib import Path

import pytest

from storage.private_copy import HEAP_OBJECT_BYTES, private_copy

LARGE = bytes(range(256)) * (HEAP_OBJECT_BYTES // 256 + 1)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_large_copy_is_mapped_and_has_no_name_and_no_descriptor(tmp_path: Path) -> None:
    before = open_files()
    copy = private_copy(LARGE, tmp_path)
    assert (copy.heap_bytes, copy.mapped_bytes) == (0, len(LARGE))
    assert copy.data.to_pybytes() == LARGE
    assert not copy.data.is_mutable
    assert os.listdir(tmp_path) == []
    assert open_files() == before
    mapped = Path("/proc/self/maps").read_text().count(str(tmp_path))
    del copy
    gc.collect()
    assert Path("/proc/self/maps").read_text().count(str(tmp_path)) == mapped - 1


def test_a_small_copy_stays_in_memory(tmp_path: Path) -> None:
    for data in (b"", b"x", LARGE[:HEAP_OBJECT_BYTES]):
        copy = private_copy(data, tmp_path)
        assert (copy.heap_bytes, copy.mapped_bytes) == (len(data), 0)
        assert copy.data.to_pybytes() == data


@pytest.mark.parametrize("error", [errno.EOPNOTSUPP, errno.EISDIR])
def test_a_file_system_without_nameless_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    real = os.open

    def refusing(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(error, os.strerror(error))
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", refusing)
    copy = private_copy(LARGE, tmp_path)
    assert copy.mapped_bytes == len(LARGE)
    assert copy.data.to_pybytes() == LARGE
    assert os.listdir(tmp_path) == []


def test_a_full_disk_stops_no_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, start: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    copy = private_copy(LARGE, tmp_path)
    assert (copy.heap_bytes, copy.mapped_bytes) == (len(LARGE), 0)
    assert copy.data.to_pybytes() == LARGE


def test_a_vanished_folder_stops_no_reads(tmp_path: Path) -> None:
    copy = private_copy(LARGE, tmp_path / "gone")
    assert copy.heap_bytes == len(LARGE)
    assert copy.data.to_pybytes() == LARGE
