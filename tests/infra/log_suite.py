"""What every `Log` must do. An adapter's test class inherits this and gives `log`."""

import asyncio
import time
from collections.abc import Sequence

import pytest

from core.errors import LogMismatch, TooLarge, Unavailable
from core.log import Log, LogRecord

PARTITIONS = 4


async def read_all(log: Log, partition: int, start: int = 0, batch: int = 500) -> list[LogRecord]:
    """To the end as it is now."""
    found: list[LogRecord] = []
    end = await log.end_offset(partition)
    while start < end and (records := await log.read(partition, start, max_records=batch)):
        found += records
        start = records[-1].offset + 1
    return found


def values(records: Sequence[LogRecord]) -> list[bytes | None]:
    return [record.value for record in records]


class LogSuite:
    """Fixture `log`: a fresh topic of `PARTITIONS` partitions, closed by the fixture."""

    async def test_the_identity_is_stable(self, log: Log) -> None:
        identity = await log.identity()
        assert identity.partitions == PARTITIONS
        assert identity.log_id
        assert await log.identity() == identity

    async def test_a_record_reads_back_as_it_was_written(self, log: Log) -> None:
        before_ms = time.time_ns() // 1_000_000
        headers = (("content-type", b"application/msgpack"), ("x", b""), ("x", b"\xff"))
        lsn = await log.append(2, b"index/ns\xc3\xa4", b"\x00value", headers)
        assert lsn == await log.start_offset(2)
        (record,) = await log.read(2, lsn)
        assert (record.partition, record.offset) == (2, lsn)
        assert (record.key, record.value) == (b"index/ns\xc3\xa4", b"\x00value")
        assert record.headers == headers
        assert record.header("x") == b"\xff"
        assert abs(record.timestamp_ms - before_ms) < 60_000

    async def test_a_null_value_or_key_is_not_an_empty_one(self, log: Log) -> None:
        await log.append(0, b"k", None)
        await log.append(0, b"k", b"")
        await log.append(0, None, b"v")
        found = await read_all(log, 0)
        assert [(r.key, r.value) for r in found] == [(b"k", None), (b"k", b""), (None, b"v")]

    async def test_a_fresh_partition_is_empty(self, log: Log) -> None:
        for partition in range(PARTITIONS):
            assert await log.start_offset(partition) == await log.end_offset(partition) == 0
            assert await log.read(partition, 0) == []

    async def test_the_end_is_behind_the_newest_acknowledged_record(self, log: Log) -> None:
        """Reading your own writes rests on it: asked after the acknowledgement, it covers it."""
        for n in range(20):
            lsn = await log.append(1, None, str(n).encode())
            assert await log.end_offset(1) == lsn + 1
        assert await log.end_offset(0) == 0

    async def test_many_at_once_all_are_there_in_the_order_of_their_lsns(self, log: Log) -> None:
        async def write(n: int) -> tuple[int, int, bytes]:
            body = str(n).encode()
            return n % PARTITIONS, await log.append(n % PARTITIONS, None, body), body

        written = await asyncio.gather(*(write(n) for n in range(3000)))
        for partition in range(PARTITIONS):
            mine = sorted((lsn, body) for p, lsn, body in written if p == partition)
            found = await read_all(log, partition)
            assert [(r.offset, r.value) for r in found] == mine
            assert len({lsn for lsn, _ in mine}) == len(mine)

    async def test_one_writers_appends_keep_their_order(self, log: Log) -> None:
        """Sent without waiting for each other, they are stored as they were sent."""
        sent = [str(n).encode() for n in range(500)]
        await asyncio.gather(*(log.append(3, None, body) for body in sent))
        assert values(await read_all(log, 3)) == sent

    async def test_reading_starts_anywhere_and_keeps_its_limits(self, log: Log) -> None:
        bodies = [bytes([n]) * 1000 for n in range(50)]
        for body in bodies:
            await log.append(0, None, body)
        assert values(await read_all(log, 0, 0, batch=7)) == bodies
        assert values(await read_all(log, 0, 33)) == bodies[33:]
        assert values(await log.read(0, 10, max_records=1)) == bodies[10:11]
        few = await log.read(0, 20, max_bytes=2500)
        assert values(few) == bodies[20 : 20 + len(few)]
        assert 1 <= len(few) <= 3
        assert values(await log.read(0, 22)) != []
        # Back and forth: a reader that remembers its place must notice.
        assert values(await log.read(0, 5, max_records=2)) == bodies[5:7]
        assert values(await log.read(0, 5, max_records=2)) == bodies[5:7]

    async def test_a_record_over_the_readers_limit_comes_alone(self, log: Log) -> None:
        big = b"x" * 3_000_000
        await log.append(0, None, b"small")
        await log.append(0, None, big)
        await log.append(0, None, b"after")
        assert values(await log.read(0, 1, max_bytes=1000)) == [big]
        assert values(await log.read(0, 2, max_bytes=1000)) == [b"after"]

    async def test_a_record_may_be_large_but_not_too_large(self, log: Log) -> None:
        lsn = await log.append(1, b"k", b"x" * 8_000_000)
        (record,) = await log.read(1, lsn)
        assert record.value == b"x" * 8_000_000
        with pytest.raises(TooLarge):
            await log.append(1, b"k", b"x" * 9_000_000)
        assert await log.append(1, b"k", b"next") > lsn

    async def test_a_waiting_reader_is_woken_by_an_append(self, log: Log) -> None:
        reading = asyncio.create_task(log.read(2, 0, wait_s=60))
        elsewhere = asyncio.create_task(log.read(3, 0, wait_s=60))
        await asyncio.sleep(0.1)
        assert not reading.done()
        await log.append(2, None, b"news")
        assert values(await asyncio.wait_for(reading, 10)) == [b"news"]
        assert not elsewhere.done()
        elsewhere.cancel()
        await asyncio.wait([elsewhere])

    async def test_a_wait_ends(self, log: Log) -> None:
        assert await log.read(2, 0, wait_s=0.05) == []

    async def test_a_reader_who_gave_up_takes_nothing_along(self, log: Log) -> None:
        reading = asyncio.create_task(log.read(0, 0, wait_s=60))
        await asyncio.sleep(0.05)
        reading.cancel()
        await asyncio.wait([reading])
        await log.append(0, None, b"news")
        assert values(await log.read(0, 0, wait_s=10)) == [b"news"]

    async def test_a_start_outside_of_the_log_is_a_mismatch(self, log: Log) -> None:
        """A log that lost data must stop a consumer, not be read from somewhere else."""
        for _ in range(3):
            await log.append(0, None, b"x")
        assert await log.read(0, 3) == []
        for start in (4, 1000):
            with pytest.raises(LogMismatch):
                await log.read(0, start)

    async def test_trimming_forgets_the_beginning_only(self, log: Log) -> None:
        for n in range(10):
            await log.append(0, None, str(n).encode())
        await log.append(1, None, b"other")
        await log.trim(0, 6)
        assert (await log.start_offset(0), await log.end_offset(0)) == (6, 10)
        with pytest.raises(LogMismatch):
            await log.read(0, 5)
        assert values(await read_all(log, 0, 6)) == [b"6", b"7", b"8", b"9"]
        await log.trim(0, 3)
        assert await log.start_offset(0) == 6
        assert values(await read_all(log, 1)) == [b"other"]

    async def test_lsns_go_on_after_everything_is_trimmed(self, log: Log) -> None:
        for _ in range(5):
            await log.append(0, None, b"x")
        await log.trim(0, 1000)
        assert (await log.start_offset(0), await log.end_offset(0)) == (5, 5)
        assert await log.read(0, 5) == []
        assert await log.append(0, None, b"y") == 5

    async def test_an_unknown_partition_is_a_mismatch(self, log: Log) -> None:
        with pytest.raises(LogMismatch):
            await log.append(PARTITIONS, None, b"x")

    async def test_a_closed_log_is_unavailable(self, log: Log) -> None:
        await log.append(0, None, b"x")
        await log.close()
        await log.close()
        with pytest.raises(Unavailable):
            await log.append(0, None, b"x")
        with pytest.raises(Unavailable):
            await log.read(0, 0)
