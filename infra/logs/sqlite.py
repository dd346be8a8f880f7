"""`Log` in a SQLite file, for the embedded deployment: durable, committed in groups, offsets
without gaps from 0.

One file holds any number of topics. A record's row id is `stream << 40 | offset`, where a stream is
one partition of one topic: a partition's records are neighbours in one b-tree, and its next offset
is its highest row's + 1 (or its start when all is trimmed), so an append touches no other row.
Trimmed space is reused, not given back to the disk.
"""

import asyncio
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from core.clock import Clock, SystemClock, new_uuid
from core.errors import ConfigError, LogMismatch, TooLarge, Unavailable
from core.log import Headers, Log, LogIdentity, LogRecord
from infra.logs.sqlite_writer import GroupWriter, unavailable

STREAM_SHIFT = 40  # 10^12 offsets a partition, 8 million partitions a file
# A chain of 10 pages instead of 38 for an entry of 100 x 384 float32 (150 KB).
PAGE_BYTES = 16384
READERS = 4
RECORD_BYTES_MAX = 8 << 20
# Of a partition, whose newest record is remembered: some 200 bytes each.
KEYS_MAX = 4096
TRIM_ROWS = 500  # per transaction: appends wait for no longer than this takes
BUSY_TIMEOUT_MS = 5000

SCHEMA = """
CREATE TABLE IF NOT EXISTS topics (
  topic TEXT PRIMARY KEY, log_id TEXT NOT NULL, partitions INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS streams (
  stream INTEGER PRIMARY KEY, topic TEXT NOT NULL, partition INTEGER NOT NULL,
  start INTEGER NOT NULL DEFAULT 0, UNIQUE (topic, partition)) STRICT;
CREATE TABLE IF NOT EXISTS records (
  position INTEGER PRIMARY KEY, timestamp_ms INTEGER NOT NULL,
  key BLOB, headers BLOB, value BLOB) STRICT;
"""
INSERT = "INSERT INTO records VALUES (?, ?, ?, ?, ?)"
SELECT = (
    "SELECT position, timestamp_ms, key, headers, value FROM records"
    " WHERE position >= ? AND position < ? ORDER BY position LIMIT ?"
)

# position, timestamp_ms, key, headers, value
_Row = tuple[int, int, bytes | None, bytes | None, bytes | None]

_encode_headers = msgspec.msgpack.Encoder().encode
_decode_headers = msgspec.msgpack.Decoder(Headers).decode


@dataclass(slots=True)
class _Stream:
    """One partition. `start` and `end` (both next offsets) change on the event loop, after the
    commit.
    """

    number: int
    start: int
    end: int
    waiting: set[asyncio.Future[None]] = field(default_factory=set)
    # Next offsets by key, the last written at the end; `others_end`: above all of other keys.
    ends: OrderedDict[bytes, int] = field(default_factory=OrderedDict)
    others_end: int = 0

    def position(self, offset: int) -> int:
        return (self.number << STREAM_SHIFT) + offset

    def grow(self, key: bytes | None, end: int) -> None:
        """A record of that key is durable."""
        self.end = end
        if key is None:
            self.others_end = end
        else:
            self.ends[key] = end
            self.ends.move_to_end(key)
            if len(self.ends) > KEYS_MAX:
                self.others_end = self.ends.popitem(last=False)[1]
        self.wake()

    def wake(self) -> None:
        for future in self.waiting:
            if not future.done():
                future.set_result(None)


@dataclass(frozen=True, slots=True)
class _Topic:
    name: str
    log_id: str
    streams: tuple[_Stream, ...]


class LogFile:
    """The file, its writer and its readers; one process owns it. Bound to the event loop it was
    opened on.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.next_offsets: dict[int, int] = {}  # by stream number; the writer thread's own
        self.writer = GroupWriter(connection, rolled_back=self.next_offsets.clear)
        self._topics: dict[str, _Topic] = {}
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="log-read")
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._closed = False

    @classmethod
    async def open(cls, path: Path) -> "LogFile":
        return cls(path, await asyncio.to_thread(_open_writer, path))

    async def load_topic(self, name: str, partitions: int) -> _Topic:
        """One object a name, so that all who share the file see one end of each partition."""
        if name not in self._topics:
            loaded = await self.writer.submit(lambda db: _load_topic(db, name, partitions))
            self._topics.setdefault(name, loaded)
        topic = self._topics[name]
        if len(topic.streams) != partitions:
            raise ConfigError(
                f"the log topic {name} in {self.path} has {len(topic.streams)} partitions,"
                f" not {partitions}; the number cannot change"
            )
        return topic

    async def read(self, first: int, end: int, rows_max: int, bytes_max: int) -> list[_Row]:
        """Rows with positions in [first, end): at least one if any is there, whatever its size."""
        if self._closed:
            raise Unavailable("the log is closed")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._threads, self._read, first, end, rows_max, bytes_max
        )

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown)
        for connection in self._connections:
            connection.close()
        await self.writer.close()

    def _read(self, first: int, end: int, rows_max: int, bytes_max: int) -> list[_Row]:
        rows: list[_Row] = []
        try:
            cursor = self._connection().execute(SELECT, (first, end, rows_max))
            for row in cursor:
                bytes_max -= len(row[2] or b"") + len(row[4] or b"")
                if rows and bytes_max < 0:
                    break
                rows.append(row)
            cursor.close()
        except sqlite3.Error as error:
            raise unavailable(error) from error
        return rows

    def _connection(self) -> sqlite3.Connection:
        """This thread's own."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = _connect(self.path)
            connection.execute("PRAGMA query_only = ON")
            self._local.connection = connection
            self._connections.append(connection)
        return connection


class SqliteLog(Log):
    """One topic of a `LogFile`. An append whose caller gave up is committed all the same."""

    def __init__(
        self,
        file: LogFile,
        topic: _Topic,
        clock: Clock,
        record_bytes_max: int,
        owns_file: bool,
    ) -> None:
        self._file = file
        self._log_id = topic.log_id
        self._streams = topic.streams
        self._clock = clock
        self._record_bytes_max = record_bytes_max
        self._owns_file = owns_file
        self._closed = False

    @classmethod
    async def open(
        cls,
        file: LogFile | Path,
        topic: str,
        partitions: int,
        *,
        clock: Clock | None = None,
        record_bytes_max: int = RECORD_BYTES_MAX,
    ) -> "SqliteLog":
        """Makes the topic at first use. A path is opened for this topic alone; a `LogFile` is
        shared and stays open.

        `ConfigError` when the topic exists with another number of partitions, or the file is no
        log.
        """
        owned = None if isinstance(file, LogFile) else await LogFile.open(file)
        opened = file if isinstance(file, LogFile) else owned
        assert opened is not None
        try:
            found = await opened.load_topic(topic, partitions)
        except BaseException:
            if owned is not None:
                await owned.close()
            raise
        return cls(opened, found, clock or SystemClock(), record_bytes_max, owned is not None)

    async def identity(self) -> LogIdentity:
        return LogIdentity(self._log_id, len(self._streams))

    async def append(
        self, partition: int, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> int:
        stream = self._stream(partition)
        encoded = _encode_headers(headers) if headers else None
        size = len(key or b"") + len(value or b"") + len(encoded or b"")
        if size > self._record_bytes_max:
            raise TooLarge(
                f"a log record of {size} bytes is over the limit of {self._record_bytes_max}"
            )
        next_offsets = self._file.next_offsets

        def insert(db: sqlite3.Connection) -> int:
            offset = next_offsets.get(stream.number)
            if offset is None:
                offset = _bounds(db, stream.number)[1]
            row = (stream.position(offset), self._clock.now_ms(), key, encoded, value)
            db.execute(INSERT, row)
            next_offsets[stream.number] = offset + 1
            return offset

        def committed(offset: int) -> None:
            stream.grow(key, offset + 1)

        return await self._file.writer.submit(insert, size=size, committed=committed)

    def end_of_key(self, partition: int, key: bytes) -> int:
        """Nobody else appends to the file."""
        stream = self._stream(partition)
        return stream.ends.get(key, stream.others_end)

    async def read(
        self,
        partition: int,
        start: int,
        *,
        max_records: int = 500,
        max_bytes: int = 8 << 20,
        wait_s: float = 0.0,
    ) -> Sequence[LogRecord]:
        stream = self._stream(partition)
        self._check_range(stream, partition, start)
        if start == stream.end:
            await self._wait(stream, wait_s)
        if start == stream.end:
            return []
        first = stream.position(start)
        rows = await self._file.read(first, stream.position(stream.end), max_records, max_bytes)
        if not rows or rows[0][0] != first:
            self._check_range(stream, partition, start)  # trimmed meanwhile
            raise LogMismatch(f"the log lost offset {start} of partition {partition}")
        return [
            LogRecord(
                partition,
                start + position - first,
                key,
                _decode_headers(headers) if headers else (),
                value,
                timestamp_ms,
            )
            for position, timestamp_ms, key, headers, value in rows
        ]

    async def start_offset(self, partition: int) -> int:
        return self._stream(partition).start

    async def end_offset(self, partition: int) -> int:
        return self._stream(partition).end

    async def trim(self, partition: int, before: int) -> None:
        """At most up to the end. Appends go on in between."""
        stream = self._stream(partition)
        before = min(before, stream.end)
        if before <= stream.start:
            return
        # The start is durable first: a crash in the middle leaves rows that the next trim takes
        # along.
        await self._file.writer.submit(
            lambda db: (
                db.execute(
                    "UPDATE streams SET start = max(start, ?) WHERE stream = ?",
                    (before, stream.number),
                ).rowcount
            )
        )
        stream.start = max(stream.start, before)
        delete = (
            "DELETE FROM records WHERE position IN (SELECT position FROM records"
            " WHERE position >= ? AND position < ? ORDER BY position LIMIT ?)"
        )
        bounds = (stream.position(0), stream.position(before), TRIM_ROWS)
        while await self._file.writer.submit(lambda db: db.execute(delete, bounds).rowcount):
            pass

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._owns_file:
            await self._file.close()
        for stream in self._streams:
            stream.wake()

    def _stream(self, partition: int) -> _Stream:
        if self._closed:
            raise Unavailable("the log is closed")
        if not 0 <= partition < len(self._streams):
            raise LogMismatch(
                f"the log has no partition {partition}, only 0 to {len(self._streams) - 1}"
            )
        return self._streams[partition]

    @staticmethod
    def _check_range(stream: _Stream, partition: int, start: int) -> None:
        if not stream.start <= start <= stream.end:
            raise LogMismatch(
                f"offset {start} of partition {partition} is outside of the log,"
                f" which holds {stream.start} to {stream.end}"
            )

    @staticmethod
    async def _wait(stream: _Stream, wait_s: float) -> None:
        """Until the next append or the end of the time; nothing polls."""
        if wait_s <= 0:
            return
        appended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        stream.waiting.add(appended)
        try:
            await asyncio.wait([appended], timeout=wait_s)
        finally:
            stream.waiting.discard(appended)


def _load_topic(db: sqlite3.Connection, topic: str, partitions: int) -> _Topic:
    """As stored; with `partitions` partitions when it is new."""
    if db.execute("SELECT 1 FROM topics WHERE topic = ?", (topic,)).fetchone() is None:
        db.execute("INSERT INTO topics VALUES (?, ?, ?)", (topic, new_uuid(), partitions))
        db.executemany(
            "INSERT INTO streams (topic, partition) VALUES (?, ?)",
            [(topic, partition) for partition in range(partitions)],
        )
    (log_id,) = db.execute("SELECT log_id FROM topics WHERE topic = ?", (topic,)).fetchone()
    numbers = db.execute(
        "SELECT stream FROM streams WHERE topic = ? ORDER BY partition", (topic,)
    ).fetchall()
    bounds = [(number, *_bounds(db, number)) for (number,) in numbers]
    streams = tuple(_Stream(*of_one, others_end=of_one[-1]) for of_one in bounds)
    return _Topic(topic, log_id, streams)


def _bounds(db: sqlite3.Connection, stream: int) -> tuple[int, int]:
    """Start and end (next offset) of a stream."""
    (start,) = db.execute("SELECT start FROM streams WHERE stream = ?", (stream,)).fetchone()
    first = stream << STREAM_SHIFT
    (last,) = db.execute(
        "SELECT max(position) FROM records WHERE position >= ? AND position < ?",
        (first, (stream + 1) << STREAM_SHIFT),
    ).fetchone()
    return start, max(start, 0 if last is None else last - first + 1)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    return connection


def _open_writer(path: Path) -> sqlite3.Connection:
    """With the schema; a log that cannot be opened is a `ConfigError`."""
    connection = None
    try:
        connection = _connect(path)
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # the writer decides when
        connection.executescript(SCHEMA)
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        raise ConfigError(f"the log {path} cannot be opened: {error}") from error
    return connection
