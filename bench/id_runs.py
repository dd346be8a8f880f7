"""`python -m bench.id_runs`: runs sorted by id beside runs of hashes alone, what they replaced.

For decision 0008. Bytes and counts are exact; times are of this machine in this minute, medians of
many, and their ratios are what to compare.
"""

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from storage.checksum import id_hashes
from storage.id_run import AskedIds, FileIds, IdRunReader, merge_runs, write_runs
from storage.manifest import DataFile, IdRun, ObjectRef

FILE_ROWS = 2_730  # 4 MiB of 384 x float32
ASKED = 10_000
PAGE = 100
BLOCK = 16  # ids that share prefixes, for the size of front coding
# 16 bytes of hash, file number and row; then the data file, for the id: 2 objects of a cluster.
HASH_ENTRY_BYTES = 16

U32 = npt.NDArray[np.uint32]


class HashRun:
    """One run of (hash, file, row), sorted by hash; ids are in the data files."""

    def __init__(self, ids: Sequence[str]) -> None:
        hashes = id_hashes(ids)
        order = np.argsort(hashes)
        self.hashes = hashes[order]
        self.files: U32 = (order // FILE_ROWS).astype(np.uint32)
        self.rows: U32 = (order % FILE_ROWS).astype(np.uint32)

    def find(self, asked: Sequence[str]) -> tuple[U32, U32]:
        """Candidates only: whether they are right, the data files know."""
        hashes = id_hashes(asked)
        first = np.searchsorted(self.hashes, hashes, side="left")
        last = np.searchsorted(self.hashes, hashes, side="right")
        at = first[last > first]
        return self.files[at], self.rows[at]


class SortedRuns:
    """What a namespace at rest has: runs of 4 MiB that do not overlap."""

    def __init__(self, ids: Sequence[str]) -> None:
        parts = [
            FileIds(f"{at // FILE_ROWS:032x}", ids[at : at + FILE_ROWS])
            for at in range(0, len(ids), FILE_ROWS)
        ]
        self.files = {part.uuid: data_file(part) for part in parts}
        encoded = write_runs(parts, 1)
        self.runs: list[tuple[IdRun, IdRunReader]] = [
            (run.run, IdRunReader(np.frombuffer(run.object.data, np.uint8), run.run))
            for run in encoded
        ]
        self.bytes = sum(run.object.ref.size for run in encoded)

    def find(self, names: Sequence[str]) -> int:
        """How many entries have one of the ids, exactly."""
        asked, found = AskedIds(names), 0
        for run, reader in self.runs:
            start, end = asked.within(run)
            if start < end:
                which, _ = reader.find(asked, start, end)
                found += len(which)
        return found

    def page(self, after: str) -> list[bytes]:
        for run, reader in self.runs:
            if run.last > after:
                at = reader.ids.first_from(after.encode() + b"\0")
                return reader.ids.slice(at, min(at + PAGE, len(reader))).bytes_of()
        return []


def data_file(part: FileIds) -> DataFile:
    columns = ObjectRef(f"clusters/{part.uuid}.arrow", 0, "")
    rows = len(part.ids)
    return DataFile(uuid=part.uuid, columns=columns, vectors=None, rows=rows, cluster=-1)


def ids_of(kind: str, count: int) -> list[str]:
    """In random order, as clusters have them."""
    random = np.random.default_rng(1)
    if kind == "uuid":
        return [random.bytes(16).hex() for _ in range(count)]
    return [f"document-{number:08}" for number in random.permutation(count)]


def median_ms(work: Callable[[], object], times: int) -> float:
    took = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        took.append(1e3 * (time.perf_counter() - start))
    return statistics.median(took)


def front_coded(ids: Sequence[str]) -> float:
    """Bytes an entry would save if each block of `BLOCK` ids shared prefixes."""
    ordered = sorted(ids)
    saved = 0
    for place, (one, other) in enumerate(pairwise(ordered), start=1):
        if place % BLOCK:
            pairs = enumerate(zip(one, other, strict=False))
            shared = next((at for at, (a, b) in pairs if a != b), len(one))
            saved += max(0, shared - 1)  # its length takes a byte
    return saved / len(ids)


def compare(kind: str, count: int) -> dict[str, tuple[str, str]]:
    ids = ids_of(kind, count)
    old, new = HashRun(ids), SortedRuns(ids)
    random = np.random.default_rng(2)
    asked = [ids[place] for place in random.choice(count, ASKED, replace=False)]
    files = len({int(file) for file in old.find(asked)[0]})
    assert new.find(asked) == ASKED
    everything = sum(map(len, ids))
    merge: list[float] = []
    tracemalloc.start()
    start = time.perf_counter()
    merge_runs([reader for _, reader in new.runs[:8]], new.files, 2)
    merge += [time.perf_counter() - start, tracemalloc.get_traced_memory()[1] / 1e6]
    tracemalloc.stop()
    merged = sum(run.entries for run, _ in new.runs[:8])
    per_entry = new.bytes / count
    return {
        "bytes an entry": (f"{HASH_ENTRY_BYTES}", f"{per_entry:.1f}"),
        "  with prefixes shared": ("", f"{per_entry - front_coded(ids):.1f}"),
        "objects": ("1", f"{len(new.runs)}"),
        "largest object, MiB": (
            f"{HASH_ENTRY_BYTES * count / 2**20:.1f}",
            f"{max(run.object.size for run, _ in new.runs) / 2**20:.1f}",
        ),
        f"find {ASKED:,} ids, ms": (
            f"{median_ms(lambda: old.find(asked), 15):.1f} *",
            f"{median_ms(lambda: new.find(asked), 15):.1f}",
        ),
        "  data files opened to be sure": (f"{files}", "0"),
        "find 1 id, us": (
            f"{1e3 * median_ms(lambda: old.find(asked[:1]), 300):.0f} *",
            f"{1e3 * median_ms(lambda: new.find(asked[:1]), 300):.0f}",
        ),
        "a page of 100 ids, us": (
            "-",
            f"{1e3 * median_ms(lambda: new.page(asked[0]), 300):.0f}",
        ),
        "  objects read for it, cold": (f"{-(-count // FILE_ROWS)}", "1"),
        "  of MiB at least": (f"{everything / 2**20:.0f}", "4"),
        "merge 8 runs, s a million entries": ("", f"{merge[0] / merged * 1e6:.2f}"),
        "  numpy's peak memory over their bytes": (
            "",
            f"{merge[1] * 1e6 / sum(run.object.size for run, _ in new.runs[:8]):.1f}",
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    records = parser.parse_args().records
    for kind in ("document-00000001", "uuid"):
        print(f"\n{records:,} ids like {kind}; * candidates only, the data files decide")
        print(f"{'':40}{'hashes':>12}{'by id':>12}")
        for name, (old, new) in compare(kind, records).items():
            print(f"{name:40}{old:>12}{new:>12}")


if __name__ == "__main__":
    main()
