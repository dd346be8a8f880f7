"""Bytes of an object that nobody else can reach, so that what was verified is what is read.

A mapped file is in the hands of whoever may write to it: where it is cut short, the next access
beyond its new end is SIGBUS and the process is dead, in numpy and Annoy as well. So no file that
has a name is ever mapped (`docs/decisions/0012-damaged-files.md`).
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

# A mapping costs a few microseconds, a page and one of the 65,530 that Linux gives a process.
HEAP_OBJECT_BYTES = 64 << 10
# Where a file has a name for a moment, a process killed then leaves it; swept at the next start.
PARTIAL = ".part"


@dataclass(frozen=True, slots=True, eq=False)
class PrivateCopy:
    """`data` is read-only; `heap_bytes` and `mapped_bytes` say where it is: one of them is 0."""

    data: pa.Buffer
    heap_bytes: int = 0
    mapped_bytes: int = 0


def private_copy(data: bytes, folder: Path) -> PrivateCopy:
    """Small ones stay in memory; others go to a nameless file in `folder`, whose pages the system
    may take back. It vanishes with its last reader, also of a killed process. 4 MB: 1 ms, as a copy
    in memory.

    In memory as well where the folder takes no more: a full disk must not stop reads.
    """
    if len(data) > HEAP_OBJECT_BYTES:
        try:
            return PrivateCopy(_mapped(data, folder), mapped_bytes=len(data))
        except OSError:
            pass
    return PrivateCopy(pa.py_buffer(data), heap_bytes=len(data))


def write_whole(descriptor: int, data: bytes) -> None:
    """Into an empty file. `OSError` at once where there is no room: under a mapping it would be
    SIGBUS.
    """
    if sys.platform == "linux" and data:
        os.posix_fallocate(descriptor, 0, len(data))
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _mapped(data: bytes, folder: Path) -> pa.Buffer:
    with _nameless_file(folder) as (descriptor, path):
        write_whole(descriptor, data)
        with pa.memory_map(str(path)) as source:
            return source.read_buffer()


@contextmanager
def _nameless_file(folder: Path) -> Iterator[tuple[int, Path]]:
    """Its descriptor, and a path that leads to it within the block."""
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except (AttributeError, OSError):  # not Linux, or a file system that has none
        with tempfile.NamedTemporaryFile(dir=folder, suffix=PARTIAL, buffering=0) as file:
            yield file.fileno(), Path(file.name)
        return
    try:
        yield descriptor, Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
