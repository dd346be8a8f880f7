"""The log writer: requests share records, keep their order, and each learns its own fate."""

import asyncio

import pytest

from core.clock import SystemClock
from core.errors import Overloaded, TooLarge, Unavailable
from core.limits import LOG_RECORD_BYTES_MAX
from core.log import LogRecord
from core.operations import DeleteIds, Entry
from core.partition import partition_of
from ingest.admit import Admitted, admit
from ingest.wire import encode_entry
from ingest.writer import LogWriter, WriterSettings, Written
from tests.ingest.indexes import Directory
from tests.ingest.memory_log import MemoryLog


def entry(name: str, size: int = 0) -> Entry:
    return Entry(DeleteIds((name, *["x" * 500] * (size // 500))), name)


def writer_over(log: MemoryLog, settings: WriterSettings | None = None) -> LogWriter:
    return LogWriter(log, SystemClock(), settings)


async def names(record: LogRecord) -> list[str]:
    verdict = await admit(record, Directory(), 4)
    assert isinstance(verdict, Admitted)
    return [e.request_id for e in verdict.write.entries]


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_lone_write_goes_at_once() -> None:
    log = MemoryLog()
    assert await writer_over(log).write("dense", "n", [entry("a"), entry("b")]) == Written(0, 0)
    (record,) = log.records
    assert record.key == b"dense/n"
    assert record.partition == partition_of(b"dense/n", 4)
    assert record.header("content-type") == b"application/msgpack"
    assert await names(record) == ["a", "b"]


async def test_what_arrives_while_a_write_is_in_flight_shares_the_next_record() -> None:
    log = MemoryLog()
    writer = writer_over(log)
    log.gate.clear()
    first = asyncio.create_task(writer.write("dense", "n", [entry("a")]))
    await settle()
    assert log.appending == 1
    later = [
        asyncio.create_task(writer.write("dense", "n", [entry("b"), entry("c")])),
        asyncio.create_task(writer.write("dense", "n", [entry("d")])),
        asyncio.create_task(writer.write("dense", "n", [entry("e")])),
    ]
    await settle()
    log.gate.set()
    assert await first == (0, 0)
    assert await asyncio.gather(*later) == [(1, 0), (1, 2), (1, 3)]
    assert [await names(r) for r in log.records] == [["a"], ["b", "c", "d", "e"]]
    assert writer.status().requests == 4
    assert writer.status().records == 2
    assert writer.status().queued_bytes == 0


async def test_namespaces_do_not_wait_for_each_other() -> None:
    log = MemoryLog()
    writer = writer_over(log)
    log.gate.clear()
    tasks = [asyncio.create_task(writer.write("dense", f"n{i}", [entry("a")])) for i in range(5)]
    await settle()
    assert log.appending == 5
    log.gate.set()
    await asyncio.gather(*tasks)
    assert len(log.records) == 5


async def test_a_group_is_bounded_and_a_larger_request_goes_alone() -> None:
    log = MemoryLog()
    writer = writer_over(log, WriterSettings(group_bytes=4000))
    log.gate.clear()
    sizes = [0, 1500, 1500, 1500, 9000, 0]
    tasks = []
    for i, size in enumerate(sizes):
        tasks.append(asyncio.create_task(writer.write("dense", "n", [entry(f"{i}", size)])))
        await settle()
    log.gate.set()
    await asyncio.gather(*tasks)
    assert [await names(r) for r in log.records] == [["0"], ["1", "2"], ["3"], ["4"], ["5"]]


async def test_too_much_waiting_is_refused_until_it_has_gone() -> None:
    log = MemoryLog()
    writer = writer_over(log, WriterSettings(queued_bytes_max=4000))
    log.gate.clear()
    accepted = asyncio.create_task(writer.write("dense", "n", [entry("a", 3000)]))
    await settle()
    assert log.appending == 1
    with pytest.raises(Overloaded, match="slow down") as refusal:
        await writer.write("dense", "other", [entry("b", 3000)])
    assert refusal.value.retry_after_s > 0
    log.gate.set()
    await accepted
    assert await writer.write("dense", "other", [entry("b", 3000)]) == (1, 0)


async def test_one_owner_does_not_fill_the_queue_for_the_others() -> None:
    """A flood of writes to many namespaces would else have every tenant's writes refused."""
    log = MemoryLog()
    writer = writer_over(log, WriterSettings(queued_bytes_max=100_000))
    log.gate.clear()
    accepted: list[asyncio.Task[Written]] = []
    refused: set[str] = set()

    async def fill(owner: str) -> None:
        for n in range(300):
            call = writer.write("dense", f"{owner}{n}", [entry("a", 1000)], owner=owner)
            accepted.append(asyncio.create_task(call))
            await settle()
            if accepted[-1].done():
                with pytest.raises(Overloaded):
                    await accepted.pop()
                refused.add(owner)
                return

    await fill("loud")
    alone = len(accepted)
    assert 70 <= alone <= 82
    await fill("as loud")
    assert refused == {"loud", "as loud"}
    assert len(accepted) - alone >= 10
    quiet = asyncio.create_task(writer.write("dense", "q", [entry("a", 1000)], owner="quiet"))
    await settle()
    assert not quiet.done()
    log.gate.set()
    await asyncio.gather(quiet, *accepted)
    await writer.write("dense", "n", [entry("a", 90_000)], owner="loud")
    assert writer.status().queued_bytes == 0


async def test_a_request_that_no_record_can_hold_is_too_large() -> None:
    with pytest.raises(TooLarge, match="limit"):
        await writer_over(MemoryLog()).write("dense", "n", [entry("a", LOG_RECORD_BYTES_MAX)])


async def test_what_is_accepted_is_never_oversize_for_the_consumers() -> None:
    """The envelope counts, or an acknowledged write would end as a dead letter."""
    log = MemoryLog()
    writer, namespace = writer_over(log), "n" * 512
    bare = len(encode_entry(Entry(DeleteIds(("x",)), "r"))) - 1
    refused = 0
    for missing in range(0, 1200, 40):
        name = "x" * (LOG_RECORD_BYTES_MAX - bare - missing)
        try:
            await writer.write("dense", namespace, [Entry(DeleteIds((name,)), "r")])
        except TooLarge:
            refused += 1
    assert max(len(record.value or b"") for record in log.records) <= LOG_RECORD_BYTES_MAX
    assert 0 < refused < 20


async def test_one_impatient_client_does_not_cancel_the_write_of_the_others() -> None:
    log = MemoryLog()
    writer = writer_over(log)
    log.gate.clear()
    first = asyncio.create_task(writer.write("dense", "n", [entry("a")]))
    await settle()
    assert log.appending == 1
    second = asyncio.create_task(writer.write("dense", "n", [entry("b")]))
    third = asyncio.create_task(writer.write("dense", "n", [entry("c")]))
    await settle()
    first.cancel()
    second.cancel()
    await settle()
    log.gate.set()
    assert await third == (1, 1)
    assert [await names(r) for r in log.records] == [["a"], ["b", "c"]]
    assert first.cancelled()
    assert second.cancelled()


async def test_a_failed_append_fails_its_own_group_and_later_ones_go_on() -> None:
    log = MemoryLog()
    writer = writer_over(log)
    log.failures = [None, Unavailable("The broker did not answer."), None]
    log.gate.clear()
    tasks = []
    for i in range(3):
        tasks.append(asyncio.create_task(writer.write("dense", "n", [entry(f"{i}")])))
        await settle()
    log.gate.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert outcomes[0] == (0, 0)
    assert isinstance(outcomes[1], Unavailable)
    assert outcomes[2] is outcomes[1], "they shared the record"
    assert await writer.write("dense", "n", [entry("3")]) == (1, 0)
    assert writer.status().failed_records == 1


async def test_an_error_nobody_expected_reaches_the_waiters_too() -> None:
    log = MemoryLog()
    log.failures = [RuntimeError("a bug")]
    writer = writer_over(log)
    with pytest.raises(RuntimeError, match="a bug"):
        await writer.write("dense", "n", [entry("a")])
    assert await writer.write("dense", "n", [entry("b")]) == (0, 0)


async def test_closing_waits_for_what_was_accepted_and_refuses_the_rest() -> None:
    log = MemoryLog()
    writer = writer_over(log)
    log.gate.clear()
    tasks = [asyncio.create_task(writer.write("dense", "n", [entry(f"{i}")])) for i in range(3)]
    await settle()
    assert log.appending == 1
    closing = asyncio.create_task(writer.close())
    await settle()
    assert not closing.done()
    with pytest.raises(Unavailable, match="shutting down"):
        await writer.write("dense", "n", [entry("late")])
    log.gate.set()
    await closing
    assert sum([len(await names(r)) for r in log.records]) == 3
    assert all(task.done() for task in tasks)
    await writer.close()
    await asyncio.gather(*tasks)


async def test_a_quiet_writer_holds_nothing() -> None:
    """100,000 namespaces written once must not stay in memory."""
    writer = writer_over(MemoryLog())
    for i in range(20):
        await writer.write("dense", f"n{i}", [entry("a")])
    await settle()
    assert writer._lanes == {}
