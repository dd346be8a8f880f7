"""`export` as an admin verb: a namespace into a file on this machine."""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.runtime.consumers import make_exporter
from cli.runtime.parts import Parts
from cli.runtime.rebuilding import Tell, named_index, told_lines
from core.errors import AlreadyExists, FailedPrecondition, InvalidRequest
from core.indexes import IndexInfo, canonical_namespace
from ingest.vectors import checked_namespace
from query.export import Export
from storage.file_cache import FileCache

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """path: of the file to be; lsn: what it must be exact for, None for now."""

    index: IndexInfo
    namespace: str
    path: Path
    lsn: int | None


async def export_lines(
    parts: Parts, index: str, to: str, namespace: str | None = None, lsn: int | None = None
) -> AsyncGenerator[Line, None]:
    """`to`: an absolute path, beside which the file is written until it is whole."""
    path = Path(to)
    if not path.is_absolute():
        raise InvalidRequest(f"{to} is not an absolute path")
    info = await named_index(parts, index)
    wanted = Wanted(info, checked_namespace(canonical_namespace(namespace)), path, lsn)

    async def work(cache: FileCache, tell: Tell) -> Line:
        total = 0

        def told(rows: int) -> None:
            tell("writing records", rows, total)

        exporter = make_exporter(parts, cache)
        if await asyncio.to_thread(path.exists):
            raise AlreadyExists(f"{path} exists; choose another name")
        async with exporter.export(info, wanted.namespace, told) as made:
            _check_lsn(made, wanted)
            total = made.records
            size = await _write(made, path)
        return {
            "namespace": wanted.namespace,
            "file": str(path),
            "lsn": made.lsn,
            "records": made.records,
            "bytes": size,
        }

    async with aclosing(told_lines(parts, "export", work)) as lines:
        async for line in lines:
            yield line


def _check_lsn(made: Export, wanted: Wanted) -> None:
    if wanted.lsn is None or made.changed_at <= wanted.lsn <= made.lsn:
        return
    if wanted.lsn > made.lsn:
        raise InvalidRequest(f"LSN {wanted.lsn} is not written yet; the last one is {made.lsn}")
    raise FailedPrecondition(
        f"namespace {wanted.namespace!r} was changed after LSN {wanted.lsn}, at {made.changed_at}: "
        f"make one as it was by `firndb restore {wanted.index.name} --to-lsn {wanted.lsn}`, then "
        "export that"
    )


async def _write(made: Export, path: Path) -> int:
    """The size. The file is there when all of it is on the disk, or not at all."""
    part = path.with_name(f".{path.name}.part")
    size = 0
    try:
        with part.open("wb") as file:
            async for chunk in made.chunks:
                size += await asyncio.to_thread(file.write, chunk)
            await asyncio.to_thread(os.fsync, file.fileno())
        part.rename(path)
    except OSError as error:
        raise FailedPrecondition(f"{path} cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
    return size
