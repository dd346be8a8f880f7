"""The catalog's connection: one small pool, used from a few threads, migrated when it is opened.

`Unavailable` when the database is away; `ConfigError` when it cannot even be opened.
"""

import asyncio
import fcntl
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, make_url

from core.errors import ConfigError, InvalidRequest, Overloaded, Unavailable

T = TypeVar("T")

# The control plane is rarely asked (caches stand before it), so a few connections are plenty.
CONNECTIONS = 4
# Callers that may wait for one of them: at about 1 ms a transaction this is half a second of queue.
WAITING_MAX = 500
CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_MS = 10_000
# Any number, the same for every role: the advisory lock under which PostgreSQL is migrated.
MIGRATION_LOCK = 0x4649524E
# alembic keeps what it works on in module globals: threads of one process take turns.
_MIGRATING = threading.Lock()
_SQLITE_AWAY = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
)


class Database:
    """Runs functions of a connection, each in a transaction of its own, off the event loop."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="catalog")
        self._waiting = 0

    @staticmethod
    def open(url: str) -> "Database":
        """Connect and migrate. Blocks for seconds at worst; several processes may open at the same
        time.
        """
        parsed = _with_driver(url)
        engine = _engine(parsed)
        try:
            with _opening(parsed):
                migrate(engine)
        except (sa.exc.SQLAlchemyError, OSError) as error:
            engine.dispose()
            reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            raise ConfigError(
                f"FIRNDB_CATALOG: cannot open {parsed.render_as_string()}: {reason}"
            ) from error
        except CommandError as error:
            engine.dispose()
            raise ConfigError(
                f"FIRNDB_CATALOG: {parsed.render_as_string()} was migrated by a newer FirnDB; "
                "run that version or a newer one"
            ) from error
        return Database(engine)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction that only reads."""
        return await self._run(self._engine, work)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction and commit it; on SQLite it holds the write lock from its
        start.
        """
        return await self._run(self._engine.execution_options(firn_write=True), work)

    async def _run(self, engine: sa.Engine, work: Callable[[Connection], T]) -> T:
        if self._waiting >= WAITING_MAX:
            raise Overloaded(f"{WAITING_MAX} requests already wait for the catalog; try again soon")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, _in_transaction, engine, work
            )
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)
        self._engine.dispose()


def _in_transaction(engine: sa.Engine, work: Callable[[Connection], T]) -> T:
    try:
        with engine.begin() as connection:
            return work(connection)
    except sa.exc.DataError as error:  # PostgreSQL has no NUL in texts and no integer of 65 bits
        raise InvalidRequest("a text or number has a value that cannot be stored") from error
    except (sa.exc.DBAPIError, sa.exc.TimeoutError) as error:
        if _is_away(error):
            raise Unavailable("the catalog database does not answer; try again soon") from error
        raise


def _is_away(error: sa.exc.DBAPIError | sa.exc.TimeoutError) -> bool:
    """Trying again may help; otherwise the database or the statement is broken."""
    if isinstance(error, sa.exc.TimeoutError):  # no connection of the pool became free
        return True
    if isinstance(error.orig, sqlite3.Error):  # whose OperationalError is also a missing table
        return getattr(error.orig, "sqlite_errorcode", None) in _SQLITE_AWAY
    return error.connection_invalidated or isinstance(error, sa.exc.OperationalError)


def migrate(engine: sa.Engine, to: str = "head") -> None:
    """Bring the tables up to a revision; a second process waits, then finds it done."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    scripts = ScriptDirectory.from_config(config)

    def upgrade(revision: Any, context: Any) -> Any:
        return scripts._upgrade_revs(to, revision)

    with (
        _MIGRATING,
        engine.execution_options(firn_write=True).begin() as connection,
        EnvironmentContext(config, scripts, fn=upgrade) as environment,
    ):
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATION_LOCK)))
        environment.configure(connection=connection)
        environment.run_migrations()


def _with_driver(url: str) -> URL:
    try:
        parsed = make_url(url)
    except sa.exc.ArgumentError:
        raise ConfigError(
            "FIRNDB_CATALOG: give postgresql://user:password@host:port/database"
        ) from None
    if parsed.get_backend_name() == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    return parsed


def _engine(url: URL) -> sa.Engine:
    if url.get_backend_name() == "postgresql":
        return _postgresql(url)
    return _sqlite(url)


def _postgresql(url: URL) -> sa.Engine:
    try:
        return sa.create_engine(
            url,
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_timeout=CONNECT_TIMEOUT_S,
            pool_pre_ping=True,
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_S,
                "options": f"-c statement_timeout={STATEMENT_TIMEOUT_MS}",
            },
        )
    except ModuleNotFoundError:
        raise ConfigError(
            "FIRNDB_CATALOG names PostgreSQL, whose driver is missing: "
            "pip install 'firndb[postgres]'"
        ) from None


def _sqlite(url: URL) -> sa.Engine:
    engine = sa.create_engine(
        url,
        poolclass=sa.pool.QueuePool,
        pool_size=CONNECTIONS,
        max_overflow=0,
        connect_args={"check_same_thread": False, "timeout": 10.0},
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        # The driver's own BEGIN comes too late for reads and not at all for DDL: `begin` below
        # sends it.
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A writer that starts as a reader could fail to upgrade its lock; IMMEDIATE waits in line
        # instead.
        writes = connection.get_execution_options().get("firn_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


@contextmanager
def _opening(url: URL) -> Iterator[None]:
    """SQLite: one process at a time, for the switch of a new file to WAL mode waits for no lock."""
    if url.get_backend_name() != "sqlite" or not url.database:
        yield
        return
    path = Path(url.database)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(path.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
