"""`rebuild` and `recluster` as admin verbs: their progress turned into lines as they come."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

from builder.compaction.recluster import ReclusterProgress, recluster
from builder.rebuild import RebuildProgress, rebuild
from cli.runtime.consumers import builder_parts, builder_settings, opened_cache
from cli.runtime.parts import Parts
from core.errors import NotFound
from core.indexes import IndexInfo, canonical_namespace
from storage.file_cache import FileCache

Line = dict[str, Any]
Tell = Callable[[str, int, int], None]


async def rebuild_lines(
    parts: Parts, index: str, namespace: str | None
) -> AsyncGenerator[Line, None]:
    """Progress over all partitions, then the rebuilt namespaces. `NotFound`, `LogMismatch`."""
    info = await named_index(parts, index)
    seen: dict[int, RebuildProgress] = {}

    async def work(cache: FileCache, tell: Tell) -> list[Line]:
        def note(progress: RebuildProgress) -> None:
            seen[progress.partition] = progress
            done = sum(p.at - p.start for p in seen.values())
            tell("replaying the log", done, sum(p.end - p.start for p in seen.values()))

        settings = builder_settings(parts.settings)
        made = await rebuild(
            *(builder_parts(parts, cache), parts.wal, info, _wanted(namespace)),
            settings=settings,
            progress=note,
        )
        return [asdict(one) for one in made]

    async with aclosing(told_lines(parts, "rebuild", work)) as lines:
        async for line in lines:
            yield line


async def recluster_lines(
    parts: Parts, index: str, namespace: str | None
) -> AsyncGenerator[Line, None]:
    """Progress of one namespace after the other, then all of them. `NotFound`,
    `FailedPrecondition`.
    """
    info = await named_index(parts, index)

    async def work(cache: FileCache, tell: Tell) -> list[Line]:
        def note(progress: ReclusterProgress) -> None:
            tell(f"clustering {progress.namespace}", progress.done, progress.total)

        made = await recluster(
            *(builder_parts(parts, cache), info, _wanted(namespace)),
            settings=builder_settings(parts.settings),
            progress=note,
        )
        return [asdict(one) for one in made]

    async with aclosing(told_lines(parts, "recluster", work)) as lines:
        async for line in lines:
            yield line


def _wanted(namespace: str | None) -> str | None:
    """None is every namespace; "" is the default one, as everywhere."""
    return None if namespace is None else canonical_namespace(namespace)


async def told_lines(
    parts: Parts, role: str, work: Callable[[FileCache, Tell], Awaitable[object]]
) -> AsyncGenerator[Line, None]:
    """Progress as `work` tells it, then what it returns.

    `role`: names the cache folder that the work has for itself.
    """
    lines: asyncio.Queue[Line | None] = asyncio.Queue()

    def tell(step: str, done: int, total: int) -> None:
        lines.put_nowait({"step": step, "done": done, "total": total})

    async with opened_cache(parts, role) as cache:
        task = asyncio.ensure_future(work(cache, tell))
        task.add_done_callback(lambda _: lines.put_nowait(None))
        try:
            while (line := await lines.get()) is not None:
                yield line
            yield {"result": task.result()}
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def named_index(parts: Parts, name: str) -> IndexInfo:
    """`NotFound`: no such index lives."""
    for index in await parts.catalog.living_indexes():
        if index.info.name == name:
            return index.info
    raise NotFound(f"there is no index {name}; `firndb indexes` lists them")
