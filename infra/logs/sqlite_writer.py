"""The one writer of a SQLite log file: a thread that puts everything that waits into one commit."""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from core.errors import Overloaded, Unavailable

T = TypeVar("T")

PENDING_WORKS_MAX = 20_000
PENDING_BYTES_MAX = 64 << 20
# One commit: thousands of small appends a sync, and never more than this held in one transaction.
COMMIT_WORKS_MAX = 4000
COMMIT_BYTES_MAX = 16 << 20
# Then SQLite's write-ahead file is copied into the database: bounds its size and the time to open
# after a crash.
CHECKPOINT_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class _Work(Generic[T]):
    run: Callable[[sqlite3.Connection], T]
    committed: Callable[[T], None] | None  # on the event loop, before `done`
    size: int
    done: asyncio.Future[T]


class GroupWriter:
    """Owns the connection and closes it. Bound to the event loop it is made on."""

    def __init__(
        self, connection: sqlite3.Connection, rolled_back: Callable[[], None] = lambda: None
    ) -> None:
        """`rolled_back` is called on the thread when a commit failed and nothing of it holds."""
        self._connection = connection
        self._rolled_back = rolled_back
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Work[Any] | None] = queue.SimpleQueue()
        self._works = 0
        self._bytes = 0
        self._closed = False
        self._thread = threading.Thread(target=self._write, name="log-write", daemon=True)
        self._thread.start()

    async def submit(
        self,
        run: Callable[[sqlite3.Connection], T],
        *,
        size: int = 0,
        committed: Callable[[T], None] | None = None,
    ) -> T:
        """What `run` returned, once its transaction is on disk. `run` must not fail but for
        SQLite's errors.

        A caller that gives up does not stop the commit. `Unavailable` when the commit failed, e.g.
        on a full disk; `Overloaded` when too much waits.
        """
        if self._closed:
            raise Unavailable("the log is closed")
        over = self._bytes > 0 and self._bytes + size > PENDING_BYTES_MAX
        if over or self._works >= PENDING_WORKS_MAX:
            raise Overloaded("the log's queue is full; write more slowly")
        self._works += 1
        self._bytes += size
        done: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(_Work(run, committed, size, done))
        return await done

    async def close(self) -> None:
        """Commits what was accepted."""
        if self._closed:
            return
        self._closed = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _write(self) -> None:
        since_checkpoint = 0
        more = True
        while more:
            group, more = self._gather()
            if group:
                outcome = self._commit(group)
                self._loop.call_soon_threadsafe(self._resolve, group, outcome)
                since_checkpoint += sum(work.size for work in group)
            if since_checkpoint >= CHECKPOINT_BYTES:
                # After the acknowledgement: nobody of this group waits for the copy.
                self._checkpoint()
                since_checkpoint = 0
        self._connection.close()

    def _gather(self) -> tuple[list[_Work[Any]], bool]:
        """What waits now, at least one; False with the last."""
        group: list[_Work[Any]] = []
        size = 0
        while len(group) < COMMIT_WORKS_MAX and size < COMMIT_BYTES_MAX:
            try:
                work = self._queue.get(block=not group)
            except queue.Empty:
                break
            if work is None:
                return group, False
            group.append(work)
            size += work.size
        return group, True

    def _commit(self, group: list[_Work[Any]]) -> list[Any] | sqlite3.Error:
        db = self._connection
        try:
            db.execute("BEGIN IMMEDIATE")
            results = [work.run(db) for work in group]
            db.execute("COMMIT")
        except sqlite3.Error as error:
            if db.in_transaction:
                # If even that fails, so does the next group, which tries it again.
                with suppress(sqlite3.Error):
                    db.execute("ROLLBACK")
            self._rolled_back()
            return error
        return results

    def _checkpoint(self) -> None:
        try:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error:
            return  # e.g. no space: the data is safe where it is, and the next commit reports

    def _resolve(self, group: list[_Work[Any]], outcome: list[Any] | sqlite3.Error) -> None:
        self._works -= len(group)
        self._bytes -= sum(work.size for work in group)
        if isinstance(outcome, sqlite3.Error):
            for work in group:
                if not work.done.done():
                    work.done.set_exception(unavailable(outcome))
            return
        for work, result in zip(group, outcome, strict=True):
            if work.committed is not None:
                work.committed(result)
            if not work.done.done():
                work.done.set_result(result)


def unavailable(error: sqlite3.Error) -> Unavailable:
    if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
        return Unavailable("the log's disk is full; free some space", retry_after_s=10.0)
    return Unavailable(f"the log cannot be used: {error}")
