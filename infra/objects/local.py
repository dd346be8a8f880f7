"""`ObjectStore` in a local folder: an object is the file of its key's name.

An object appears by rename (put) or by hard link (put_if_absent) of a complete, synced temporary
file, and its folder is synced before the call returns. Deletions are not synced: after a power cut
an object may be back. A key cannot be another key's folder (`a` beside `a/b`); that is
`InvalidRequest`.
"""

import asyncio
import errno
import fcntl
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TypeVar

from core.errors import ConfigError, InvalidRequest, ObjectNotFound, Unavailable
from core.object_store import ObjectInfo, ObjectStore
from infra.objects.keys import check_key

T = TypeVar("T")

TEMPORARY = ".tmp"
THREADS = (
    16  # they wait for the disk; a pool of its own, so that syncs never hold up computing threads
)
LIST_PAGE = 1000  # entries per trip to a thread
# A folder that a deletion empties is removed; a put that loses it again and again gives up here.
FOLDER_TRIES_MAX = 20
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class LocalStore(ObjectStore):
    """Several processes may use one folder; only the first of them to open it sweeps temporary
    files.
    """

    def __init__(self, folder: Path) -> None:
        self._root = folder.absolute()
        self._temporary = self._root / TEMPORARY
        try:
            self._temporary.mkdir(parents=True, exist_ok=True)
            self._lock = _share_and_sweep(self._temporary)
        except OSError as error:
            raise ConfigError(
                f"the object store's folder {folder} cannot be used: {error.strerror}"
            ) from error
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="objects")
        self._closed = False

    async def get(self, key: str) -> bytes:
        return await self._run(self._get, self._path(key))

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        return await self._run(self._get_range, self._path(key), start, end)

    async def put(self, key: str, data: bytes) -> None:
        await self._run(self._put, self._path(key), data)

    async def put_if_absent(self, key: str, data: bytes) -> bool:
        return await self._run(self._put_if_absent, self._path(key), data)

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        folder = prefix.rpartition("/")[0]
        if folder:
            try:
                self._path(folder)  # or the walk would leave the root
            except InvalidRequest:
                return  # no key lies there
        walk = _walk(self._root, folder, prefix, start_after)
        while page := await self._run(lambda: [*islice(walk, LIST_PAGE)]):
            for info in page:
                yield info

    async def delete(self, key: str) -> None:
        await self._run(self._delete, self._path(key))

    async def stat(self, key: str) -> ObjectInfo | None:
        return await self._run(_info, self._path(key), key)

    def local_path(self, key: str) -> Path:
        """Whether or not there is an object now."""
        return self._path(key)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await asyncio.to_thread(self._threads.shutdown)
        os.close(self._lock)

    async def _run(self, work: Callable[..., T], *args: object) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: _mapped(work, *args))

    def _path(self, key: str) -> Path:
        check_key(key)
        if key == TEMPORARY or key.startswith(f"{TEMPORARY}/"):
            raise InvalidRequest(f"object keys under {TEMPORARY}/ are the store's own")
        return self._root / key

    def _get(self, path: Path) -> bytes:
        with _opened(path, self._root) as descriptor:
            return _read(descriptor, 0, os.fstat(descriptor).st_size)

    def _get_range(self, path: Path, start: int, end: int) -> bytes:
        with _opened(path, self._root) as descriptor:
            size = os.fstat(descriptor).st_size
            if not 0 <= start < end or start >= size:
                raise InvalidRequest(
                    f"range [{start}, {end}) does not lie in the {size} bytes of {path}"
                )
            return _read(descriptor, start, min(end, size) - start)

    def _put(self, path: Path, data: bytes) -> None:
        with self._written(data) as temporary:
            self._place(lambda: temporary.rename(path), path)
        _sync(path.parent)

    def _put_if_absent(self, path: Path, data: bytes) -> bool:
        created = False
        if not path.is_file():
            with self._written(data) as temporary:
                created = self._link(temporary, path)
        # For the loser as well: who builds on the winner's object may rely on it.
        _sync(path.parent)
        return created

    def _link(self, temporary: Path, path: Path) -> bool:
        try:
            self._place(lambda: os.link(temporary, path), path)
        except FileExistsError:
            if path.is_dir():
                raise
            return False
        except OSError as error:
            if error.errno in NO_LINKS:
                raise ConfigError(
                    f"the file system of {self._root} has no hard links; choose another folder"
                ) from error
            raise
        return True

    def _place(self, act: Callable[[], object], path: Path) -> None:
        """Do `act`; only where the folder is missing, make it and try again: the usual put makes
        none.
        """
        for _ in range(FOLDER_TRIES_MAX):
            try:
                act()
                return
            except FileNotFoundError:
                with suppress(FileNotFoundError):
                    _make_folder(path.parent)
        raise Unavailable(f"the folder of {path} vanishes again and again")

    @contextmanager
    def _written(self, data: bytes) -> Iterator[Path]:
        """A synced temporary file, gone at the end unless it was renamed."""
        temporary = self._temporary / uuid.uuid4().hex
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def _delete(self, path: Path) -> None:
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return
        for folder in path.parents:
            if folder == self._root:
                return
            try:
                folder.rmdir()
            except OSError:  # not empty, or gone already
                return


def _mapped(work: Callable[..., T], *args: object) -> T:
    """Run `work`; what the operating system says becomes the port's errors."""
    try:
        return work(*args)
    except (NotADirectoryError, IsADirectoryError, FileExistsError) as error:
        raise InvalidRequest(
            f"object key and folder collide at {error.filename2 or error.filename}"
        ) from error
    except PermissionError as error:
        raise ConfigError(f"no permission for the object store's file {error.filename}") from error
    except OSError as error:
        raise Unavailable(f"object store: {error.strerror} ({error.filename})") from error


@contextmanager
def _opened(path: Path, root: Path) -> Iterator[int]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _not_found(path, root) from error
    try:
        if path.is_dir():
            raise _not_found(path, root)
        yield descriptor
    finally:
        os.close(descriptor)


def _not_found(path: Path, root: Path) -> ObjectNotFound:
    return ObjectNotFound(f"there is no object {path.relative_to(root).as_posix()}")


def _read(descriptor: int, start: int, length: int) -> bytes:
    parts = []
    while length > 0 and (part := os.pread(descriptor, length, start)):
        parts.append(part)
        start += len(part)
        length -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _sync(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:  # emptied and removed by a deletion that came after
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _make_folder(folder: Path) -> None:
    """With its parents; each new name is synced, or a synced file below it could still be lost."""
    try:
        folder.mkdir()
    except FileExistsError:
        return
    except FileNotFoundError:
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
    _sync(folder.parent)


def _share_and_sweep(temporary: Path) -> int:
    """A shared lock for the store's life; who is alone removes what killed processes left."""
    descriptor = os.open(temporary / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pass  # in use: those temporary files may be somebody's running puts
    else:
        for path in temporary.iterdir():
            if path.name != "lock":
                path.unlink(missing_ok=True)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def _walk(root: Path, folder: str, prefix: str, start_after: str) -> Iterator[ObjectInfo]:
    """Objects of one folder and below, in the order of whole keys; folders out of range are not
    opened.
    """
    try:
        with os.scandir(root / folder) as entries:
            found = [(e.name + "/" * e.is_dir(follow_symlinks=False), e.name) for e in entries]
    except (FileNotFoundError, NotADirectoryError):
        return
    # With its slash a folder sorts where its keys do: `a-b` before `a/b` before `ab`.
    found.sort()
    base = f"{folder}/" if folder else ""
    for ordered, name in found:
        key = base + ordered
        if not key.startswith(prefix) or key == f"{TEMPORARY}/":
            continue
        if key.endswith("/"):
            if key > start_after or start_after.startswith(key):
                yield from _walk(root, base + name, prefix, start_after)
        elif key > start_after:
            info = _info(root / key, key)
            if info is not None:
                yield info


def _info(path: Path, key: str) -> ObjectInfo | None:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if path.is_dir():
        return None
    return ObjectInfo(key, status.st_size, status.st_mtime_ns // 1_000_000)
