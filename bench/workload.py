"""What the builder's benchmark writes: numbered records, rounds of churn, and the exact truth."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bench.dataset import F32
from bench.enlarge import BLOCK, Enlarged
from core.operations import DeleteIds, Entry, Upsert
from core.records import Metadata, Record
from ingest.writer import LogWriter

REQUEST_RECORDS = 200
# Some 5 MB of vectors on their way: group commit has what to group, memory stays small.
REQUESTS_AT_ONCE = 16
SOURCES = ("debian", "wordnet", "news", "mail")

I64 = npt.NDArray[np.int64]
NOBODY = -1


def record_id(number: int) -> str:
    return f"r{number:08d}"


@dataclass(slots=True)
class Workload:
    """Record n has the row `row_of[n]` of the enlarged data, -1 where there is none.

    Every version takes a row that was never used before. written_bytes: ids, vectors and metadata
    as a client means them: what amplification is measured against.
    """

    data: Enlarged
    seed: int = 1
    row_of: I64 = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    next_row: int = 0
    written_bytes: int = 0
    written_records: int = 0

    @property
    def live(self) -> I64:
        """Numbers of the records that are there, ascending."""
        return np.flatnonzero(self.row_of != NOBODY)

    async def load(self, writer: LogWriter, index_id: str, namespace: str, count: int) -> int:
        """New records; the LSN of the last log record."""
        first = len(self.row_of)
        numbers = np.arange(first, first + count, dtype=np.int64)
        self.row_of = np.concatenate([self.row_of, np.full(count, NOBODY, dtype=np.int64)])
        return await _sent(writer, index_id, namespace, self._upserts(numbers))

    async def churn(self, writer: LogWriter, index_id: str, namespace: str, share: float) -> int:
        """One round: of the live records half of `share` are replaced, another half of it is
        deleted, and as many new ones come; in random order of ids, mixed. The LSN of
        the last log record.
        """
        rng = np.random.default_rng((self.seed, self.next_row))
        live = self.live
        half = int(len(live) * share / 2)
        chosen = rng.choice(live, 2 * half, replace=False)
        replaced, deleted = chosen[:half], chosen[half:]
        first = len(self.row_of)
        self.row_of = np.concatenate([self.row_of, np.full(half, NOBODY, dtype=np.int64)])
        added = np.arange(first, first + half, dtype=np.int64)
        upserts = self._upserts(rng.permutation(np.concatenate([replaced, added])))
        self.row_of[deleted] = NOBODY
        return await _sent(writer, index_id, namespace, _mixed(upserts, list(_deletions(deleted))))

    def _upserts(self, numbers: I64) -> Iterator[Entry]:
        at = 0
        for row, rows in self.data.rows(self.next_row, len(numbers)):
            for start in range(0, len(rows), REQUEST_RECORDS):
                part = rows[start : start + REQUEST_RECORDS]
                whose = numbers[at : at + len(part)]
                at += len(part)
                self.row_of[whose] = np.arange(row + start, row + start + len(part))
                yield self._entry(whose.tolist(), row + start, part)
        self.next_row += len(numbers)

    def _entry(self, numbers: Sequence[int], row: int, vectors: F32) -> Entry:
        records = []
        for place, (number, vector) in enumerate(zip(numbers, vectors, strict=True)):
            at = row + place
            meta: Metadata = {
                "source": SOURCES[at % 4],
                "size": float(at % 1000),
                "page": f"p{at % 97}",
            }
            records.append(Record(record_id(number), vector, None, meta))
            self.written_bytes += vector.nbytes + 9 + 4 + 6 + 4 + 8 + 4 + 3
        self.written_records += len(records)
        return Entry(Upsert(tuple(records)))

    def true_neighbours(self, queries: F32, k: int) -> I64:
        """int64 (queries, k): numbers of the nearest live records by exact cosine."""
        number_of = np.full(self.next_row, NOBODY, dtype=np.int64)
        live = self.live
        number_of[self.row_of[live]] = live
        best = np.full((len(queries), k), NOBODY, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        for numbers, rows in self._live_rows(number_of):
            found = np.concatenate([scores, queries @ rows.T], axis=1)
            whose = np.concatenate([best, np.broadcast_to(numbers, (len(queries), len(rows)))], 1)
            top = np.argpartition(-found, k - 1, axis=1)[:, :k]
            scores = np.take_along_axis(found, top, axis=1)
            best = np.take_along_axis(whose, top, axis=1)
        return best

    def live_vectors(self) -> tuple[I64, F32]:
        """(numbers, float32 (n, d)) of all live records: 1.5 KB each."""
        live = self.live
        number_of = np.full(self.next_row, NOBODY, dtype=np.int64)
        number_of[self.row_of[live]] = live
        vectors = np.empty((len(live), self.data.base.shape[1]), dtype=np.float32)
        numbers = np.empty(len(live), dtype=np.int64)
        at = 0
        for whose, rows in self._live_rows(number_of):
            vectors[at : at + len(rows)], numbers[at : at + len(rows)] = rows, whose
            at += len(rows)
        return numbers, vectors

    def _live_rows(self, number_of: I64) -> Iterator[tuple[I64, F32]]:
        for first in range(0, self.next_row, BLOCK):
            whose = number_of[first : first + BLOCK]
            kept = np.flatnonzero(whose != NOBODY)
            if len(kept):
                yield whose[kept], self.data.block(first // BLOCK)[kept]


def _deletions(numbers: I64) -> Iterator[Entry]:
    for start in range(0, len(numbers), REQUEST_RECORDS):
        names = [record_id(n) for n in numbers[start : start + REQUEST_RECORDS].tolist()]
        yield Entry(DeleteIds(tuple(names)))


def _mixed(upserts: Iterator[Entry], deletions: list[Entry]) -> Iterator[Entry]:
    """A deletion behind every second upsert: there are half as many."""
    for number, entry in enumerate(upserts):
        yield entry
        if number % 2 and deletions:
            yield deletions.pop()
    yield from deletions


async def _sent(writer: LogWriter, index_id: str, namespace: str, entries: Iterator[Entry]) -> int:
    """All entries through the log writer, a request each, in order; the highest LSN."""
    last = -1

    async def one_after_another() -> None:
        nonlocal last
        for entry in entries:
            last = max(last, (await writer.write(index_id, namespace, [entry])).lsn)

    await asyncio.gather(*(one_after_another() for _ in range(REQUESTS_AT_ONCE)))
    return last
