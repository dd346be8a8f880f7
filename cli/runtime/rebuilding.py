"""`rebuild` as an admin verb: the builder's progress turned into lines as they come."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

from builder.rebuild import RebuildProgress, rebuild
from cli.runtime.consumers import builder_parts, builder_settings, opened_cache
from cli.runtime.parts import Parts
from core.errors import NotFound
from core.indexes import IndexInfo
from storage.file_cache import FileCache

Line = dict[str, Any]


async def rebuild_lines(
    parts: Parts, index: str, namespace: str | None
) -> AsyncGenerator[Line, None]:
    """Progress over all partitions, then the rebuilt namespaces. `NotFound`, `LogMismatch`."""
    info = await named_index(parts, index)
    async with (
        opened_cache(parts, "rebuild") as cache,
        aclosing(_lines(parts, cache, info, namespace)) as lines,
    ):
        async for line in lines:
            yield line


async def _lines(
    parts: Parts, cache: FileCache, info: IndexInfo, namespace: str | None
) -> AsyncGenerator[Line, None]:
    lines: asyncio.Queue[Line | None] = asyncio.Queue()
    seen: dict[int, RebuildProgress] = {}

    def note(progress: RebuildProgress) -> None:
        seen[progress.partition] = progress
        done = sum(p.at - p.start for p in seen.values())
        total = sum(p.end - p.start for p in seen.values())
        lines.put_nowait({"step": "replaying the log", "done": done, "total": total})

    task = asyncio.create_task(
        rebuild(
            builder_parts(parts, cache),
            parts.wal,
            info,
            namespace,
            settings=builder_settings(parts.settings),
            progress=note,
        )
    )
    task.add_done_callback(lambda _: lines.put_nowait(None))
    try:
        while (line := await lines.get()) is not None:
            yield line
        yield {"result": [asdict(one) for one in task.result()]}
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def named_index(parts: Parts, name: str) -> IndexInfo:
    """`NotFound`: no such index lives."""
    for index in await parts.catalog.living_indexes():
        if index.info.name == name:
            return index.info
    raise NotFound(f"there is no index {name}; `firndb indexes` lists them")
