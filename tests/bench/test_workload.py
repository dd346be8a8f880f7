"""The benchmark's own account must be right, or its amplification and recall are about nothing."""

from collections.abc import Sequence

import numpy as np

from bench.dataset import F32, vectors
from bench.enlarge import BLOCK, Enlarged
from bench.probing import NO_CELL, Cells, recall_at, rows_needed
from bench.workload import Workload, record_id
from core.clock import SystemClock
from core.operations import DeleteIds, Entry, Upsert
from ingest.writer import LogWriter, Written
from tests.builder.world import ListLog


class Replayed(LogWriter):
    """What the entries leave, by id."""

    def __init__(self) -> None:
        super().__init__(ListLog(), SystemClock())
        self.held: dict[str, F32] = {}
        self.sent = 0

    async def write(
        self, index_id: str, namespace: str, entries: Sequence[Entry], *, owner: str = ""
    ) -> Written:
        for entry in entries:
            match entry.operation:
                case Upsert(records=records):
                    for record in records:
                        assert record.values is not None
                        self.held[record.id] = record.values
                case DeleteIds(ids=ids):
                    for name in ids:
                        del self.held[name]
        self.sent += 1
        return Written(self.sent, 0)


async def test_the_truth_is_what_a_replay_gives() -> None:
    """Load and two rounds of churn: the records that are there, and the neighbours among them."""
    work, replayed = Workload(Enlarged(vectors()[:1000])), Replayed()
    assert await work.load(replayed, "i", "n", 2500) == replayed.sent
    for _ in range(2):
        before = set(replayed.held)
        await work.churn(replayed, "i", "n", 0.1)
        assert len(before - replayed.held.keys()) == len(replayed.held.keys() - before) == 125
    assert work.written_records == 2500 + 2 * 250
    assert sorted(replayed.held) == [record_id(n) for n in work.live.tolist()]
    numbers, rows = work.live_vectors()
    for number, row in zip(numbers.tolist(), rows, strict=True):
        assert np.array_equal(replayed.held[record_id(number)], row)
    query = rows[7:8]
    scores = {name: float(values @ query[0]) for name, values in replayed.held.items()}
    best = sorted(scores, key=lambda name: -scores[name])[:10]
    assert {record_id(n) for n in work.true_neighbours(query, 10)[0].tolist()} == set(best)


def test_enlarged_rows_are_the_same_in_any_order_and_the_first_are_real() -> None:
    base = vectors()[:500]
    one, two = Enlarged(base), Enlarged(base)
    later = one.block(1)
    parts = dict(two.rows(100, BLOCK))
    assert np.array_equal(parts[BLOCK], later[:100])
    assert np.array_equal(parts[100][:400], base[100:])
    assert np.allclose(np.linalg.norm(later, axis=1), 1.0, atol=1e-5)


def test_rows_needed_counts_whole_cells_in_the_order_of_their_centroids() -> None:
    centroids = np.array([[1, 0], [0, 1], [np.nan, np.nan], [-1, 0]], dtype=np.float32)
    cells = Cells(centroids, np.array([5, 7, 0, 11]), loose=2)
    queries = np.array([[1.0, 0.1], [-1.0, 0.1]], dtype=np.float32)
    needed = rows_needed(cells, queries, np.array([[0, 3, NO_CELL], [0, 1, 3]]))
    assert needed.tolist() == [[7, 25, 2], [25, 20, 13]]
    assert recall_at(needed, 20) == 4 / 6
