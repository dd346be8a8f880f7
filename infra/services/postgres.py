"""A real PostgreSQL server: the machine's own binaries, or those of PyPI's `pgserver`.

It listens on loopback only and trusts every local connection, like the other two services.
PostgreSQL refuses to run as root, so under root (a container, a CI job) it runs as another user
who owns the data folder.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

import psycopg
from psycopg import sql

from infra.services.process import ServiceError, Unavailable
from infra.services.service import LocalService

INSTALL = "install PostgreSQL (Debian: apt-get install postgresql; or: pip install pgserver)"
PLACES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")
ROOT_STAND_INS = ("postgres", "nobody")  # users to run as under root, the first that exists

USER = "firndb"
DATABASE = "firndb"
# A catalog holds a few MB; a small buffer keeps the laptop's memory for vectors.
OPTIONS = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "shared_buffers=32MB")

START_TIMEOUT_S = 120.0
STOP_GRACE_S = 10.0
# After SIGKILL of the parent its workers hold shared memory until they notice, some ms later.
ORPHANS_GONE_S = 5.0


def binaries() -> Path:
    """Folder with `initdb` and `postgres`; Unavailable when this machine has none."""
    on_path = shutil.which("initdb")
    places = [Path(on_path).resolve().parent] if on_path else []
    for pattern in PLACES:
        found = Path("/").glob(pattern.lstrip("/"))
        places += sorted(found, key=_version_in, reverse=True)
    package = find_spec("pgserver")
    if package is not None and package.origin is not None:
        places.append(Path(package.origin).parent / "pginstall" / "bin")
    for place in places:
        if (place / "initdb").exists() and (place / "postgres").exists():
            return place
    raise Unavailable(f"no PostgreSQL binaries found: {INSTALL}")


def _version_in(path: Path) -> int:
    number = re.search(r"\d+", str(path))
    return int(number[0]) if number else 0


def connect(url: str, database: str) -> psycopg.Connection:
    """A session in autocommit mode with `database` on the server of SQLAlchemy's `url`."""
    server = url.replace("+psycopg", "").rpartition("/")[0]
    return psycopg.connect(f"{server}/{database}", connect_timeout=2, autocommit=True)


def make_database(url: str, name: str) -> str:
    """URL of the database `name` on the server of `url`; created empty unless it exists."""
    try:
        with connect(url, "postgres") as session:
            session.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    except psycopg.errors.DuplicateDatabase:
        pass
    return f"{url.rpartition('/')[0]}/{name}"


class Postgres(LocalService):
    """One server with one empty database; `url` is what SQLAlchemy takes."""

    name = "postgres"

    def __init__(self, folder: Path, port: int | None = None) -> None:
        super().__init__(folder, [port])
        self._user = _stand_in_for_root() if os.geteuid() == 0 else None

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://{USER}@{self.address}/{DATABASE}"

    @property
    def settings(self) -> dict[str, str]:
        return {"FIRNDB_CATALOG": self.url}

    def _launch(self) -> None:
        programs = binaries()
        data = self._data_folder()
        if not (data / "PG_VERSION").exists():
            self._initialise(programs, data)
        deadline = time.monotonic() + ORPHANS_GONE_S
        while True:
            try:
                self._serve(programs, data)
            except ServiceError as error:
                if "shared memory" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
            else:
                break
        make_database(self.url, DATABASE)

    def _serve(self, programs: Path, data: Path) -> None:
        options = [*OPTIONS, f"port={self.ports[0]}"]
        self.child.spawn(
            [str(programs / "postgres"), "-D", str(data), *(f"-c{option}" for option in options)],
            user=self._user and self._user.pw_uid,
            group=self._user and self._user.pw_gid,
        )
        self.child.wait_ready(self.answers, START_TIMEOUT_S)

    def _initialise(self, programs: Path, data: Path) -> None:
        command = [str(programs / "initdb"), f"--pgdata={data}", f"--username={USER}"]
        # The C locale exists on every machine and sorts bytes, as the code that reads pages does.
        command += ["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd=data,
            user=self._user and self._user.pw_uid,
            group=self._user and self._user.pw_gid,
            extra_groups=[] if self._user else None,
        )
        if done.returncode != 0:
            raise ServiceError(f"initdb failed in {data}:\n{done.stdout[-2000:]}")

    def _data_folder(self) -> Path:
        """The cluster's folder, owned by the user the server runs as, who can walk into it."""
        data = self.folder / "data"
        if self._user is None:
            data.mkdir(mode=0o700, exist_ok=True)
            return data
        if not all(parent.stat().st_mode & 0o001 for parent in data.parents):
            # E.g. a checkout below /root, closed to every other user.
            mark = hashlib.sha256(str(self.folder).encode()).hexdigest()[:12]
            data = Path("/var/tmp") / f"firndb-postgres-{mark}"
        data.mkdir(mode=0o700, exist_ok=True)
        if data.stat().st_uid == 0:
            os.chown(data, self._user.pw_uid, self._user.pw_gid)
        if data.is_symlink() or data.stat().st_uid != self._user.pw_uid:
            raise ServiceError(f"{data} belongs to somebody else; remove it and start again")
        return data

    def answers(self) -> bool:
        """True when the server accepts a session (it does not while it replays its log)."""
        try:
            connect(self.url, "postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        # SIGINT is PostgreSQL's "fast" shutdown; SIGTERM would wait for clients to leave.
        self.child.stop(STOP_GRACE_S, signal.SIGINT)


def _stand_in_for_root() -> pwd.struct_passwd:
    for name in ROOT_STAND_INS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise Unavailable(f"PostgreSQL refuses to run as root: create a user {ROOT_STAND_INS[0]}")
