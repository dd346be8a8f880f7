"""The embedded driver: every record once and in order, through outages, until told to stop."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from core.errors import LogMismatch, Unavailable
from core.log import LogRecord
from infra import log_loop
from infra.log_loop import run_log_loop
from infra.logs.sqlite import SqliteLog

PARTITIONS = range(4)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SqliteLog]:
    opened = await SqliteLog.open(tmp_path / "log.db", "wal", len(PARTITIONS))
    yield opened
    await opened.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_loop, "BACKOFF_FIRST_S", 0.001)
    monkeypatch.setattr(log_loop, "BACKOFF_MAX_S", 0.01)


class Recorder:
    """A consumer that keeps what it is given and says what was done to it."""

    def __init__(self, start: int = 0) -> None:
        self.start = start
        self.records: dict[int, list[LogRecord]] = {p: [] for p in PARTITIONS}
        self.assigned: list[int] = []
        self.revoked: list[tuple[list[int], bool]] = []
        self.batches: list[int] = []
        self.errors: dict[str, list[Exception]] = {"assign": [], "apply": []}
        self.gate: asyncio.Event | None = None
        self.changed = asyncio.Event()

    async def assign(self, partition: int) -> int:
        self._maybe_fail("assign")
        self.assigned.append(partition)
        return self.start

    async def apply(self, partition: int, records: Sequence[LogRecord]) -> None:
        self._maybe_fail("apply")
        if self.gate is not None:
            await self.gate.wait()
        assert not self.revoked, "applied after it was revoked"
        self.batches.append(len(records))
        self.records[partition] += records
        self.changed.set()

    async def revoke(self, partitions: Sequence[int], *, lost: bool) -> None:
        self.revoked.append((list(partitions), lost))

    def applied(self, partition: int) -> int:
        return self.start + len(self.records[partition])

    def committable(self, partition: int) -> int:
        return self.applied(partition)

    def _maybe_fail(self, verb: str) -> None:
        if self.errors[verb]:
            raise self.errors[verb].pop(0)

    def values(self) -> list[list[bytes | None]]:
        return [[record.value for record in self.records[p]] for p in PARTITIONS]

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not holds():
                self.changed.clear()
                await self.changed.wait()

    async def until_count(self, count: int) -> None:
        await self.until(lambda: sum(map(len, self.records.values())) >= count)


@asynccontextmanager
async def running(log: SqliteLog, consumer: Recorder, **options: int) -> AsyncIterator[None]:
    stop = asyncio.Event()
    loop = asyncio.create_task(run_log_loop(log, consumer, PARTITIONS, stop=stop, **options))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(loop, 30)


async def fill(log: SqliteLog, count: int, first: int = 0) -> list[list[bytes]]:
    """Records 0, 1, 2 … over the partitions in turn; what each partition then holds."""
    bodies = [str(n).encode() for n in range(first, first + count)]
    for n, body in enumerate(bodies):
        await log.append(n % 4, None, body)
    return [bodies[p::4] for p in PARTITIONS]


async def test_what_is_there_and_what_comes_is_applied_in_order(log: SqliteLog) -> None:
    consumer = Recorder()
    wanted = await fill(log, 40)
    async with running(log, consumer):
        await consumer.until_count(40)
        more = await fill(log, 40, first=40)
        await consumer.until_count(80)
    assert consumer.values() == [a + b for a, b in zip(wanted, more, strict=True)]
    assert sorted(consumer.assigned) == list(PARTITIONS)
    assert consumer.revoked == [(list(PARTITIONS), False)]


async def test_it_starts_where_the_consumer_wants(log: SqliteLog) -> None:
    await fill(log, 40)
    consumer = Recorder(start=8)
    async with running(log, consumer):
        await consumer.until_count(8)
    assert {record.offset for rs in consumer.records.values() for record in rs} == {8, 9}


async def test_batches_keep_their_bounds(log: SqliteLog) -> None:
    await fill(log, 80)
    consumer = Recorder()
    async with running(log, consumer, batch_records=7):
        await consumer.until_count(80)
    assert max(consumer.batches) == 7


async def test_an_idle_log_is_not_polled(log: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen partitions times two consumers would otherwise keep a laptop awake."""
    reads = 0
    read = log.read

    async def counted(*args: int, **options: float) -> Sequence[LogRecord]:
        nonlocal reads
        reads += 1
        return await read(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(log, "read", counted)
    consumer = Recorder()
    async with running(log, consumer):
        await asyncio.sleep(0.3)
        assert reads <= len(PARTITIONS)
        await log.append(2, None, b"news")
        await consumer.until_count(1)
        await asyncio.sleep(0.05)
        assert reads <= len(PARTITIONS) + 1


async def test_outages_are_waited_out_and_told(
    log: SqliteLog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The catalog, the store and the log may be away: nothing is skipped, nothing is given up."""
    wanted = await fill(log, 8)
    consumer = Recorder()
    consumer.errors["assign"] = [Unavailable("store away")] * 3
    consumer.errors["apply"] = [Unavailable("catalog away")] * 3
    read, failures = log.read, [Unavailable("log away")] * 3

    async def unsteady(*args: int, **options: float) -> Sequence[LogRecord]:
        if failures:
            raise failures.pop()
        return await read(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(log, "read", unsteady)
    with caplog.at_level(logging.WARNING):
        async with running(log, consumer):
            await consumer.until_count(8)
    assert consumer.values() == wanted
    for cause in ("store away", "catalog away", "log away"):
        assert cause in caplog.text


async def test_a_stop_ends_even_an_outage(log: SqliteLog) -> None:
    await fill(log, 4)
    consumer = Recorder()
    consumer.errors["apply"] = [Unavailable("away")] * 1_000_000
    async with running(log, consumer):
        await asyncio.sleep(0.05)
    assert consumer.revoked == [(list(PARTITIONS), False)]


async def test_a_stop_waits_for_what_is_being_applied(log: SqliteLog) -> None:
    await fill(log, 4)
    consumer = Recorder()
    consumer.gate = asyncio.Event()
    stop = asyncio.Event()
    loop = asyncio.create_task(run_log_loop(log, consumer, PARTITIONS, stop=stop))
    await asyncio.sleep(0.05)
    stop.set()
    await asyncio.sleep(0.05)
    assert not loop.done()
    assert not consumer.revoked
    consumer.gate.set()
    await asyncio.wait_for(loop, 30)
    assert sum(map(len, consumer.records.values())) == 4
    assert consumer.revoked == [(list(PARTITIONS), False)]


async def test_a_log_that_lost_data_stops_everything_and_is_told(log: SqliteLog) -> None:
    await fill(log, 8)
    consumer = Recorder(start=100)
    with pytest.raises(LogMismatch):
        await run_log_loop(log, consumer, PARTITIONS, stop=asyncio.Event())
    assert consumer.revoked == [(list(PARTITIONS), True)]
    assert consumer.values() == [[], [], [], []]


async def test_a_defect_of_the_consumer_is_not_hidden(log: SqliteLog) -> None:
    await fill(log, 8)
    consumer = Recorder()
    consumer.errors["apply"] = [ZeroDivisionError()]
    with pytest.raises(ZeroDivisionError):
        await run_log_loop(log, consumer, PARTITIONS, stop=asyncio.Event())
    assert consumer.revoked == [(list(PARTITIONS), True)]


async def test_cancelling_revokes_as_lost(log: SqliteLog) -> None:
    consumer = Recorder()
    loop = asyncio.create_task(run_log_loop(log, consumer, PARTITIONS, stop=asyncio.Event()))
    await asyncio.sleep(0.05)
    loop.cancel()
    await asyncio.wait([loop])
    assert consumer.revoked == [(list(PARTITIONS), True)]
