"""Taking over, keeping and dropping partitions, and the proof that no record is lost on the way."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from core.errors import LogMismatch, Unavailable
from core.log import LogRecord
from infra.faust.assignment import Assignment
from infra.faust.errors import ConsumerStuck
from infra.faust.partition import Fetched, Partition
from infra.faust.settings import FaustSettings
from infra.faust.watchdog import StallClock


def record(offset: int, partition: int = 0, size: int = 10) -> LogRecord:
    return LogRecord(partition, offset, b"k", (), b"v" * size, 0)


class Handler:
    """Remembers every call; `gate` holds `apply` back."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.start = 0
        self._applied: dict[int, int] = {}

    async def assign(self, partition: int) -> int:
        self.calls.append(("assign", partition))
        self._applied[partition] = self.start
        return self.start

    async def apply(self, partition: int, records: Sequence[LogRecord]) -> None:
        await self.gate.wait()
        self.calls.append(("apply", partition, [r.offset for r in records]))
        self._applied[partition] = records[-1].offset + 1

    async def revoke(self, partitions: Sequence[int], *, lost: bool) -> None:
        self.calls.append(("revoke", list(partitions), lost))

    def applied(self, partition: int) -> int:
        return self._applied[partition]

    committable = applied


class Reader:
    """The Kafka client's side: remembers where each partition was placed."""

    def __init__(self) -> None:
        self.placed: list[tuple[int, int, int]] = []
        self.range = (0, 1000)

    async def place(self, partition: int, offset: int, epoch: int) -> bool:
        self.placed.append((partition, offset, epoch))
        return True

    async def bounds(self, partition: int) -> tuple[int, int]:
        return self.range


class Worker:
    def __init__(self) -> None:
        self.handler = Handler()
        self.reader = Reader()
        self.failures: list[BaseException] = []
        settings = FaustSettings(
            "b:1", "t", "g", Path("unused"),
            partition_bytes_max=5_000, buffer_bytes_max=12_000, handler_timeout_s=0.5,
        )  # fmt: skip
        self.assignment = Assignment(self.handler, self.reader, settings, self.failures.append)

    def arrive(self, partition: int, offset: int, *, previous: int, size: int = 10) -> None:
        epoch = next(e for p, _, e in reversed(self.reader.placed) if p == partition)
        self.assignment.take_in(Fetched(record(offset, partition, size), previous, epoch))


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    made = Worker()
    yield made
    made.handler.gate.set()
    await made.assignment.close()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_kept_partition_goes_on_and_a_lost_one_is_revoked(worker: Worker) -> None:
    worker.assignment.reconcile(7, [0, 1])
    await settle()
    worker.arrive(0, 3, previous=0)
    worker.arrive(1, 4, previous=0)
    await settle()
    worker.assignment.suspend()
    worker.assignment.reconcile(8, [0, 2])
    await settle()
    assert ("revoke", [1], True) in worker.handler.calls
    assert worker.handler.calls.count(("assign", 0)) == 1
    assert worker.reader.placed[-2][:2] in {(0, 4), (2, 0)}
    assert worker.assignment.partitions.keys() == {0, 2}


async def test_after_a_missed_generation_nothing_is_kept(worker: Worker) -> None:
    """Somebody else may have owned and written the partition in the round that we missed."""
    worker.assignment.reconcile(7, [0])
    await settle()
    worker.assignment.suspend()
    worker.assignment.reconcile(9, [0])
    await settle()
    assert worker.handler.calls == [("assign", 0), ("revoke", [0], True), ("assign", 0)]


async def test_nothing_is_handed_over_during_a_rebalance(worker: Worker) -> None:
    worker.assignment.reconcile(1, [0])
    await settle()
    worker.assignment.suspend()
    worker.arrive(0, 0, previous=0)
    await settle()
    assert worker.handler.calls == [("assign", 0)]
    worker.assignment.reconcile(2, [0])
    await settle()
    assert worker.handler.calls[-1] == ("apply", 0, [0])
    assert worker.reader.placed[-1][:2] == (0, 1)


async def test_a_record_lost_in_the_transport_is_read_again(worker: Worker) -> None:
    worker.assignment.reconcile(1, [0])
    await settle()
    worker.arrive(0, 0, previous=0)
    worker.arrive(0, 9, previous=5)  # 1..4 is missing; a mere gap would have previous=1
    await settle()
    assert worker.assignment.holes == 1
    assert worker.reader.placed[-1][:2] == (0, 1)
    worker.arrive(0, 2, previous=1)
    worker.arrive(0, 9, previous=3)  # a gap of control records
    await settle()
    applied = [offset for call in worker.handler.calls if call[0] == "apply" for offset in call[2]]  # type: ignore[attr-defined]
    assert applied == [0, 2, 9]


async def test_what_was_read_for_an_earlier_placing_is_dropped() -> None:
    partition = Partition(0, records_max=10, bytes_max=1000)
    partition.wanted, partition.epoch = 5, 2
    assert partition.take_in(Fetched(record(8), 8, 1))
    assert partition.take_in(Fetched(record(4), 4, 2))
    assert partition.idle
    assert partition.take_in(Fetched(record(6), 5, 2))
    assert partition.wanted == 7


async def test_a_full_partition_is_not_read_further_and_others_are(worker: Worker) -> None:
    worker.assignment.reconcile(1, [0, 1, 2])
    await settle()
    worker.handler.gate.clear()
    worker.arrive(0, 0, previous=0, size=5_000)
    assert worker.assignment.blocked == {0}
    worker.arrive(1, 0, previous=0, size=4_000)
    assert worker.assignment.blocked == {0}
    worker.arrive(1, 1, previous=1, size=4_000)
    assert worker.assignment.blocked == {0, 1}
    worker.handler.gate.set()
    await settle()
    assert worker.assignment.blocked == set()


async def test_with_the_common_buffer_full_only_empty_partitions_are_read(worker: Worker) -> None:
    worker.assignment.reconcile(1, range(5))
    await settle()
    worker.handler.gate.clear()
    for number in range(3):
        worker.arrive(number, 0, previous=0, size=3_600)
    assert worker.assignment.blocked == {0, 1, 2}
    worker.assignment.suspend()
    worker.assignment.reconcile(2, [1, 2, 3, 4])
    assert worker.assignment.blocked == set()  # what was dropped does not count any more


async def test_a_log_that_lacks_what_is_wanted_ends_the_worker(worker: Worker) -> None:
    worker.reader.range = (10, 20)
    worker.assignment.reconcile(1, [0])
    await settle()
    assert isinstance(worker.failures[0], LogMismatch)


async def test_what_a_handler_cannot_do_for_now_is_repeated_and_the_worker_goes_on(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The catalog or the store being away must not cost the worker its other partitions."""
    monkeypatch.setattr("infra.faust.assignment.RETRY_FIRST_S", 0.0)
    outages = {"assign": 3, "apply": 2}
    whole = worker.handler

    class Outage(Handler):
        async def assign(self, partition: int) -> int:
            self._fail("assign")
            return await whole.assign(partition)

        async def apply(self, partition: int, records: Sequence[LogRecord]) -> None:
            self._fail("apply")
            await whole.apply(partition, records)

        def applied(self, partition: int) -> int:
            return whole.applied(partition)

        def _fail(self, verb: str) -> None:
            outages[verb] -= 1
            if outages[verb] >= 0:
                raise Unavailable("away")

    worker.assignment._consumer = Outage()
    worker.assignment.reconcile(1, [0])
    await settle()
    worker.arrive(0, 0, previous=0)
    await settle()
    assert whole.calls == [("assign", 0), ("apply", 0, [0])]
    assert worker.failures == []


async def test_a_handler_that_does_not_let_go_ends_the_worker() -> None:
    class Stubborn(Handler):
        async def revoke(self, partitions: Sequence[int], *, lost: bool) -> None:
            await asyncio.sleep(60)

    worker = Worker()
    worker.assignment._consumer = Stubborn()
    worker.assignment.reconcile(1, [0])
    await settle()
    await worker.assignment.close()
    assert isinstance(worker.failures[0], ConsumerStuck)


def test_a_mark_counts_as_still_only_while_something_is_due() -> None:
    now = 0.0
    clock = StallClock(lambda: now)
    assert clock.still_s("p", 1, due=True) == 0
    now = 5.0
    assert clock.still_s("p", 1, due=True) == 5
    assert clock.still_s("p", 1, due=False) == 0
    now = 7.0
    assert clock.still_s("p", 1, due=True) == 2
    assert clock.still_s("p", 2, due=True) == 0
