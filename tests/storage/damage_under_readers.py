"""A process that reads a cluster file while its files are damaged: run by `test_damage`.

`python -m tests.storage.damage_under_readers FOLDER WHERE HOW`. WHERE: `copy` (of a remote store),
`store` (a local store's own files), or `mapped` (what nobody may do: the file itself is mapped).
Exits with 0 if every read before, during and after gave the right values.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from core.errors import CorruptData, ObjectNotFound
from core.filters.parse import parse_filter
from core.metric import Metric
from infra.objects.local import LocalStore
from storage.cluster_file import write_cluster
from storage.file_cache import FileCache
from storage.file_reader import FileReader
from storage.layout import NamespaceSchema
from storage.manifest import DataFile
from tests.storage.memory_store import MemoryStore
from tests.storage.samples import opened, put_file, sample_rows

OF = NamespaceSchema("index-1", "books", Metric.EUCLIDEAN, 64)
ROWS = sample_rows(3_000, 64)


def _cut_to_nothing(path: Path) -> None:
    os.truncate(path, 0)


def _cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)


def _replaced(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(b"another file")
    other.replace(path)


def _removed(path: Path) -> None:
    path.unlink()


HOW: dict[str, Callable[[Path], None]] = {
    "cut to nothing": _cut_to_nothing,
    "cut in half": _cut_in_half,
    "overwritten": _overwritten,
    "replaced": _replaced,
    "removed": _removed,
}


def read_all(reader: FileReader, *, trees: bool) -> None:
    """Touches every page: vectors, columns, and what is built of them."""
    rows = reader.take(np.arange(reader.rows))
    assert list(rows.ids) == ROWS.ids
    assert list(rows.metadata) == ROWS.metadata
    assert ROWS.vectors is not None
    assert rows.vectors is not None
    assert np.array_equal(rows.vectors, ROWS.vectors)
    if trees:
        near = reader.annoy().get_nns_by_vector(ROWS.vectors[7].tolist(), 3, 20_000)
        assert near[0] == 7
        assert reader.columns.mask(parse_filter({"tags": "t3"})).any()


def read_during(reader: FileReader, act: Callable[[], None]) -> None:
    """Reads in two threads while `act` runs in this one."""
    failures: list[BaseException] = []
    done = threading.Event()

    def reads() -> None:
        try:
            while not done.is_set():
                read_all(reader, trees=False)
        except BaseException as error:  # noqa: BLE001 - shown by the caller
            failures.append(error)

    threads = [threading.Thread(target=reads) for _ in range(2)]
    for thread in threads:
        thread.start()
    act()
    read_all(reader, trees=True)
    done.set()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


async def main(folder: Path, where: str, how: Callable[[Path], None]) -> None:
    store = MemoryStore() if where == "copy" else LocalStore(folder / "objects")
    file = await put_file(store, OF, write_cluster(ROWS, OF))
    cache = FileCache(store, folder / "cache", 1 << 30)
    reader = await opened(cache, OF, file)
    damaged = folder / "cache" if where == "copy" else folder / "objects"
    paths = [p for p in damaged.rglob("*") if p.is_file() and p.suffix in (".ann", ".arrow")]
    assert len(paths) == 2
    if where == "mapped":
        reader = _mapped(paths, file)

    def damage() -> None:
        for path in paths:
            how(path)

    read_during(reader, damage)
    del reader
    await asyncio.sleep(0)
    again = FileCache(store, folder / "cache", 1 << 30)
    if where == "copy":
        read_all(await opened(again, OF, file), trees=True)
        assert again.copies.fetches == 2, "both copies are fetched again"
        return
    with pytest.raises((CorruptData, ObjectNotFound), match=file.uuid):
        await opened(again, OF, file)


def _mapped(paths: list[Path], file: DataFile) -> FileReader:
    by_suffix = {}
    for path in paths:
        with pa.memory_map(str(path)) as source:
            by_suffix[path.suffix] = source.read_buffer()
    return FileReader(
        file, OF.prefix, OF.metric, OF.dimension, by_suffix[".arrow"], by_suffix[".ann"]
    )


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], HOW[sys.argv[3]]))
