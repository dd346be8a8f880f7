"""The data folder of an embedded deployment: one owner at a time, and how others reach it.

`LOCK` is held by the owner (flock: gone with the process, however it dies). `server.json` (mode
0600) tells commands beside a running server its address and the token of its admin endpoint; it is
believed only while the lock is held.
"""

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from core.errors import ConfigError

LOCK = "LOCK"
ADDRESS = "server.json"
CLAIMS_MAX = 64


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where the owner of the folder serves its admin endpoint.

    certificate: the file with the certificate that it shows; None: it speaks plain HTTP.
    """

    url: str
    token: str
    pid: int
    certificate: str | None = None

    def at(self, url: str) -> "ServerAddress":
        return replace(self, url=url)


def new_address(url: str, certificate: Path | None = None) -> ServerAddress:
    return ServerAddress(
        url=url,
        token=secrets.token_urlsafe(32),
        pid=os.getpid(),
        certificate=None if certificate is None else str(certificate.absolute()),
    )


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Own the folder (made if absent) until the block ends; `ConfigError` if it has an owner."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError(
            f"cannot use the data folder {folder}: {error.strerror}; choose another with --data"
        ) from error
    try:
        if not _locked(lock):
            raise ConfigError(
                f"the data folder {folder} is in use by another FirnDB{_owner_hint(folder)}; "
                "stop it, or choose another folder with --data"
            )
        (folder / ADDRESS).unlink(missing_ok=True)
        yield
        (folder / ADDRESS).unlink(missing_ok=True)
    finally:
        os.close(lock)


def _locked(lock: int) -> bool:
    """Tries for half a second: `running_server` of a neighbour holds the lock for an instant."""
    for _ in range(10):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False


@contextmanager
def claimed(base: Path, name: str) -> Iterator[Path]:
    """The first of the folders `name`, `name-2`, `name-3` ... that no other process has claimed.

    Several processes of one role on one machine then each have a folder of their own.
    """
    for number in range(1, CLAIMS_MAX + 1):
        folder = base / (name if number == 1 else f"{name}-{number}")
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            continue
        try:
            yield folder
        finally:
            os.close(lock)
        return
    raise ConfigError(f"{CLAIMS_MAX} processes use folders of {base}; set another FIRNDB_DATA")


def publish_address(folder: Path, address: ServerAddress) -> None:
    """Tell other commands of this user how to reach the owner."""
    temporary = folder / (ADDRESS + ".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(address), file)
    temporary.replace(folder / ADDRESS)


def running_server(folder: Path) -> ServerAddress | None:
    """The folder's owner; None if nobody owns it. `ConfigError` while it is still starting."""
    try:
        lock = os.open(folder / LOCK, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            address = _read_address(folder)
            if address is None:
                raise ConfigError(
                    f"the data folder {folder} is in use by a FirnDB that is starting or is busy "
                    "with a command; try again in a moment"
                ) from None
            return address
        return None
    finally:
        os.close(lock)


def _read_address(folder: Path) -> ServerAddress | None:
    try:
        return ServerAddress(**json.loads((folder / ADDRESS).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _owner_hint(folder: Path) -> str:
    address = _read_address(folder)
    return f" (process {address.pid} at {address.url})" if address else ""
