"""The files of an import, listed and opened: by a descriptor, so that nobody needs a path.

A folder of this machine is walked part by part without following links; a file of S3 is copied into
a file without a name on the cache's disk first (a reader of Parquet seeks a lot).
"""

import asyncio
import os
import stat
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from core.errors import (
    ConfigError,
    FailedPrecondition,
    FirnError,
    InvalidRequest,
    NotFound,
    ObjectNotFound,
)
from core.limits import IMPORT_FILE_BYTES_MAX, IMPORT_FILES_MAX
from infra.imports.locations import Place
from infra.objects.open import open_store
from infra.objects.retrying import RetryingStore

SUFFIX = ".parquet"
_COPY_BYTES = 16 << 20
_FOLDERS_DEEP_MAX = 32
# Entries of folders and objects that are looked at, most of them of other kinds.
_LOOKED_AT_MAX = 10 * IMPORT_FILES_MAX
_NOT_FOLLOWED = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class SourceFile:
    """path: below the import's folder, its first part names the namespace. modified_ms: with the
    size, what tells that it is still the same file.
    """

    path: str
    size: int
    modified_ms: int


class Source(ABC):
    """One import's folder."""

    @abstractmethod
    async def files(self) -> list[SourceFile]:
        """All Parquet files in sub-folders, ordered by path. `NotFound`: no such folder.
        `InvalidRequest`: more or larger ones than there may be.
        """

    @abstractmethod
    async def open(self, file: SourceFile) -> int:
        """A descriptor to read and seek, the caller's to close. `FailedPrecondition`: the file has
        changed since it was listed.
        """

    @abstractmethod
    async def close(self) -> None: ...


def open_source(place: Place, scratch: Path) -> Source:
    """`scratch`: a folder for copies. `ConfigError` where S3 is not set up."""
    if place.root.bucket:
        return S3Source(place, scratch)
    return LocalSource(place)


class LocalSource(Source):
    def __init__(self, place: Place) -> None:
        self._place = place

    async def files(self) -> list[SourceFile]:
        return await asyncio.to_thread(self._list)

    async def open(self, file: SourceFile) -> int:
        return await asyncio.to_thread(self._open, file)

    async def close(self) -> None: ...

    def _list(self) -> list[SourceFile]:
        found = _Found()
        with self._folder(()) as top:
            self._walk(top, (), found)
        return found.ordered()

    def _walk(self, folder: int, parts: tuple[str, ...], found: "_Found") -> None:
        with os.scandir(folder) as entries:
            listed = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        found.looked_at(len(listed))
        for name, is_folder in listed:
            if is_folder and len(parts) < _FOLDERS_DEEP_MAX:
                below = os.open(name, _NOT_FOLLOWED | os.O_DIRECTORY, dir_fd=folder)
                try:
                    self._walk(below, (*parts, name), found)
                finally:
                    os.close(below)
            elif parts and name.endswith(SUFFIX):
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    path = "/".join((*parts, name))
                    found.add(SourceFile(path, status.st_size, status.st_mtime_ns // 1_000_000))

    def _open(self, file: SourceFile) -> int:
        *parts, name = file.path.split("/")
        with self._folder(tuple(parts)) as folder:
            descriptor = os.open(name, _NOT_FOLLOWED | os.O_NONBLOCK, dir_fd=folder)
        status = os.fstat(descriptor)
        now = (status.st_size, status.st_mtime_ns // 1_000_000)
        if now != (file.size, file.modified_ms) or not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise _changed(file)
        return descriptor

    @contextmanager
    def _folder(self, parts: Sequence[str]) -> Iterator[int]:
        """A folder below the configured one, which alone may be reached over links."""
        root = self._place.root
        opened: list[int] = []
        try:
            try:
                opened.append(os.open(root.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
                for part in (*self._place.parts, *parts):
                    flags = _NOT_FOLLOWED | os.O_DIRECTORY
                    opened.append(os.open(part, flags, dir_fd=opened[-1]))
            except OSError as error:
                raise NotFound(
                    f"{self._place.folder} cannot be read ({error.strerror}); links are not "
                    "followed"
                ) from error
            yield opened[-1]
        except OSError as error:
            raise FailedPrecondition(
                f"a file in {self._place.folder} cannot be read: {error.strerror}"
            ) from error
        finally:
            for descriptor in opened:
                os.close(descriptor)


class S3Source(Source):
    def __init__(self, place: Place, scratch: Path) -> None:
        self._place = place
        self._scratch = scratch
        access = place.access
        try:
            self._store = RetryingStore(
                open_store(
                    str(place.folder),
                    s3_endpoint=access.endpoint,
                    s3_access_key=access.access_key,
                    s3_secret_key=access.secret_key,
                    region=access.region,
                )
            )
        except ConfigError as error:
            raise FailedPrecondition(f"{place.folder} cannot be read: {error}") from error

    async def files(self) -> list[SourceFile]:
        found = _Found()
        try:
            async for info in self._store.list(""):
                found.looked_at(1)
                if info.key.endswith(SUFFIX) and "/" in info.key:
                    found.add(SourceFile(info.key, info.size, info.modified_ms))
        except ConfigError as error:
            raise _refused(self._place, error) from error
        return found.ordered()

    async def open(self, file: SourceFile) -> int:
        with tempfile.TemporaryFile(dir=self._scratch) as copy:
            try:
                info = await self._store.stat(file.path)
                if info is None or (info.size, info.modified_ms) != (file.size, file.modified_ms):
                    raise _changed(file)
                for start in range(0, file.size, _COPY_BYTES):
                    end = min(file.size, start + _COPY_BYTES)
                    part = await self._store.get_range(file.path, start, end)
                    if len(part) != end - start:
                        raise _changed(file)
                    await asyncio.to_thread(copy.write, part)
            except (ObjectNotFound, InvalidRequest) as error:
                raise _changed(file) from error
            except ConfigError as error:
                raise _refused(self._place, error) from error
            await asyncio.to_thread(copy.flush)
            return os.dup(copy.fileno())

    async def close(self) -> None:
        await self._store.close()


class _Found:
    """The files so far, within bounds."""

    def __init__(self) -> None:
        self._files: list[SourceFile] = []
        self._looked_at = 0

    def looked_at(self, count: int) -> None:
        self._looked_at += count
        if self._looked_at > _LOOKED_AT_MAX:
            raise InvalidRequest(f"The folder holds more than {_LOOKED_AT_MAX} files of any kind.")

    def add(self, file: SourceFile) -> None:
        if file.size > IMPORT_FILE_BYTES_MAX:
            raise InvalidRequest(
                f"{file.path} has {file.size} bytes; a file has {IMPORT_FILE_BYTES_MAX} at most."
            )
        if len(self._files) == IMPORT_FILES_MAX:
            raise InvalidRequest(f"An import has {IMPORT_FILES_MAX} Parquet files at most.")
        self._files.append(file)

    def ordered(self) -> list[SourceFile]:
        return sorted(self._files, key=lambda file: file.path.split("/"))


def _changed(file: SourceFile) -> FirnError:
    return FailedPrecondition(
        f"{file.path} is gone or was changed since the import began; begin a new one"
    )


def _refused(place: Place, error: ConfigError) -> FirnError:
    return FailedPrecondition(f"{place.folder} cannot be read: {error}")
