"""The SQLite log, and what only it can show: kill -9, group commit, a full disk, several topics in
a file.
"""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from core.errors import ConfigError, Overloaded, Unavailable
from infra.logs import sqlite_writer
from infra.logs.sqlite import LogFile, SqliteLog
from tests.infra.log_suite import PARTITIONS, LogSuite, read_all, values


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SqliteLog]:
    opened = await SqliteLog.open(tmp_path / "log.db", "wal", PARTITIONS)
    yield opened
    await opened.close()


class TestSqliteLog(LogSuite):
    pass


async def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    first = await SqliteLog.open(path, "wal", PARTITIONS)
    identity = await first.identity()
    for n in range(10):
        await first.append(n % 2, b"k", str(n).encode(), (("h", b"1"),))
    await first.trim(1, 3)
    before = await read_all(first, 0)
    await first.close()
    again = await SqliteLog.open(path, "wal", PARTITIONS)
    assert await again.identity() == identity
    assert await read_all(again, 0) == before
    assert [await again.start_offset(p) for p in range(PARTITIONS)] == [0, 3, 0, 0]
    assert [await again.end_offset(p) for p in range(PARTITIONS)] == [5, 5, 0, 0]
    await again.close()


async def test_another_partition_count_is_refused(tmp_path: Path, log: SqliteLog) -> None:
    await log.close()
    with pytest.raises(ConfigError, match="has 4 partitions, not 5"):
        await SqliteLog.open(tmp_path / "log.db", "wal", 5)


async def test_a_file_that_is_no_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.db").write_bytes(b"something else" * 1000)
    with pytest.raises(ConfigError, match="cannot be opened"):
        await SqliteLog.open(tmp_path / "log.db", "wal", 1)
    with pytest.raises(ConfigError, match="cannot be opened"):
        await SqliteLog.open(tmp_path / "no" / "folder" / "log.db", "wal", 1)


async def test_topics_of_one_file_are_apart(tmp_path: Path) -> None:
    file = await LogFile.open(tmp_path / "log.db")
    wal = await SqliteLog.open(file, "wal", 3)
    dead = await SqliteLog.open(file, "dead", 1)
    twin = await SqliteLog.open(file, "wal", 3)
    assert (await wal.identity()).log_id != (await dead.identity()).log_id
    await asyncio.gather(*(wal.append(n % 3, None, b"w%d" % n) for n in range(9)))
    await dead.append(0, None, b"dead")
    assert values(await read_all(wal, 1)) == [b"w1", b"w4", b"w7"]
    assert values(await read_all(dead, 0)) == [b"dead"]
    # Two openings of one topic are one log.
    waiting = asyncio.create_task(twin.read(0, 3, wait_s=60))
    await asyncio.sleep(0)
    await wal.append(0, None, b"news")
    assert values(await waiting) == [b"news"]
    for log in (wal, dead, twin):
        await log.close()
    await file.close()


async def test_concurrent_appends_share_commits(
    log: SqliteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync each would hold a laptop's disk at some hundred writes a second."""
    commits = 0
    commit = sqlite_writer.GroupWriter._commit

    def counted(self: sqlite_writer.GroupWriter, group: list[object]) -> object:
        nonlocal commits
        commits += 1
        return commit(self, group)  # type: ignore[arg-type]

    monkeypatch.setattr(sqlite_writer.GroupWriter, "_commit", counted)
    await asyncio.gather(*(log.append(n % PARTITIONS, None, b"x" * 100) for n in range(2000)))
    assert commits < 200


async def test_too_many_waiting_appends_are_refused(
    log: SqliteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_writer, "PENDING_BYTES_MAX", 10_000)
    results = await asyncio.gather(
        *(log.append(0, None, b"x" * 4000) for _ in range(5)), return_exceptions=True
    )
    assert [type(r) for r in results] == [int, int, Overloaded, Overloaded, Overloaded]
    assert await log.append(0, None, b"x" * 20_000) == 2, "what is large alone must still pass"


async def test_a_full_disk_fails_the_commit_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite itself says "full" at a page limit; then space comes back and writing goes on."""
    log = await SqliteLog.open(tmp_path / "log.db", "wal", 1)
    assert await log.append(0, None, b"before") == 0
    writer = log._file.writer

    def limit(pages: int) -> object:
        return writer.submit(lambda db: db.execute(f"PRAGMA max_page_count = {pages}").fetchone())

    await limit(20)  # type: ignore[misc]
    results = await asyncio.gather(
        *(log.append(0, None, b"x" * 500_000) for _ in range(3)), return_exceptions=True
    )
    assert all(isinstance(result, Unavailable) for result in results)
    assert await log.end_offset(0) == 1
    assert values(await read_all(log, 0)) == [b"before"]
    await limit(1_000_000)  # type: ignore[misc]
    assert await log.append(0, None, b"after") == 1
    assert values(await read_all(log, 0)) == [b"before", b"after"]
    await log.close()


class StuckConnection:
    """A disk that goes away in the middle of a commit, so that not even the rollback works."""

    def __init__(self) -> None:
        self.away = True
        self.in_transaction = False

    def execute(self, statement: str) -> None:
        if self.away and statement in ("COMMIT", "ROLLBACK"):
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error
        self.in_transaction = statement.startswith("BEGIN")

    def close(self) -> None: ...


async def test_the_writer_outlives_a_rollback_that_fails() -> None:
    """If its thread ended there, every later write would wait for ever."""
    disk = StuckConnection()
    writer = sqlite_writer.GroupWriter(disk)  # type: ignore[arg-type]
    for _ in range(2):
        with pytest.raises(Unavailable, match="disk I/O error"):
            await asyncio.wait_for(writer.submit(lambda db: 1), 30)
    disk.away = False
    assert await asyncio.wait_for(writer.submit(lambda db: 1), 30) == 1
    await writer.close()


async def test_a_caller_who_gives_up_does_not_undo_its_append(log: SqliteLog) -> None:
    appends = [asyncio.create_task(log.append(0, None, b"%d" % n)) for n in range(3)]
    await asyncio.sleep(0)
    appends[1].cancel()
    await asyncio.wait(appends)
    assert values(await read_all(log, 0)) == [b"0", b"1", b"2"]


async def test_closing_waits_for_accepted_appends(tmp_path: Path) -> None:
    log = await SqliteLog.open(tmp_path / "log.db", "wal", 1)
    appends = [asyncio.create_task(log.append(0, None, b"x" * 10_000)) for _ in range(100)]
    await asyncio.sleep(0)
    await log.close()
    assert await asyncio.gather(*appends) == list(range(100))


async def test_trimmed_space_is_used_again(tmp_path: Path, log: SqliteLog) -> None:
    for _ in range(4):
        await asyncio.gather(*(log.append(0, None, os.urandom(100_000)) for _ in range(200)))
        await log.trim(0, await log.end_offset(0))
    await log.close()
    assert (tmp_path / "log.db").stat().st_size < 30_000_000


WRITER = """
import asyncio, sys
from pathlib import Path
from infra.logs.sqlite import SqliteLog

async def write(log, writer):
    n = 0
    while True:
        body = f"{writer} {n} ".encode() * (1 + 997 * n % 12_000)
        lsn = await log.append(writer % 2, None, body)
        print(writer % 2, lsn, writer, n, flush=True)
        n += 1

async def main():
    log = await SqliteLog.open(Path(sys.argv[1]), "wal", 2)
    await asyncio.gather(*(write(log, n) for n in range(8)))

asyncio.run(main())
"""


def body_of(writer: int, n: int) -> bytes:
    return f"{writer} {n} ".encode() * (1 + 997 * n % 12_000)


def write_until_killed(path: Path, lines: int) -> list[list[int]]:
    """What a writer printed before SIGKILL: (partition, LSN, writer, n) of acknowledged appends."""
    printed = []
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            fields = [int(field) for field in line.split()]
            if line.endswith("\n") and len(fields) == 4:
                printed.append(fields)
            if len(printed) == lines:
                child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    return printed


async def test_kill_minus_nine_loses_no_acknowledged_append(tmp_path: Path) -> None:
    """Killed again and again while it writes and copies its write-ahead file."""
    path = tmp_path / "log.db"
    acknowledged: dict[tuple[int, int], bytes] = {}
    for lines in (1, 300, 450, 600):
        for partition, lsn, writer, n in await asyncio.to_thread(write_until_killed, path, lines):
            assert (partition, lsn) not in acknowledged, "an LSN was given twice"
            acknowledged[partition, lsn] = body_of(writer, n)
        log = await SqliteLog.open(path, "wal", 2)
        there: dict[tuple[int, int], bytes | None] = {}
        for partition in range(2):
            found = await read_all(log, partition)
            assert [record.offset for record in found] == list(range(len(found))), "a gap"
            there |= {(partition, record.offset): record.value for record in found}
        await log.close()
        assert {at: there.get(at) for at in acknowledged} == acknowledged
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_the_end_of_a_key_leaves_out_the_writes_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader of one key waits for its newest record, not for a neighbour's flood."""
    monkeypatch.setattr("infra.logs.sqlite.KEYS_MAX", 3)
    log = await SqliteLog.open(tmp_path / "log.db", "wal", 2)
    assert log.end_of_key(0, b"a") == 0
    for n in range(50):
        await log.append(0, b"flood", b"%d" % n)
    mine = await log.append(0, b"a", b"mine")
    for n in range(50):
        await log.append(0, b"flood", b"%d" % n)
    assert log.end_of_key(0, b"a") == mine + 1
    assert log.end_of_key(0, b"quiet") == 0
    assert log.end_of_key(0, b"flood") == await log.end_offset(0) == 101
    assert log.end_of_key(1, b"a") == 0
    for key in (b"b", b"c", b"d"):
        await log.append(0, key, b"")
    assert log.end_of_key(0, b"a") >= mine + 1, "forgotten keys are told too high, never too low"
    assert len(log._stream(0).ends) == 3
    await log.close()
    again = await SqliteLog.open(tmp_path / "log.db", "wal", 2)
    assert again.end_of_key(0, b"a") == 104, "what was before the start may be anybody's"
    await again.close()
