"""Feeding the consumers of the log in this process: the embedded server's, and for as long as a
command on a closed folder needs the index builder.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cli.runtime.consumers import make_builder, opened_cache
from cli.runtime.parts import Parts
from core.consumer import LogConsumer
from infra.log_loop import run_log_loop


@asynccontextmanager
async def consuming(parts: Parts, *consumers: LogConsumer) -> AsyncIterator[asyncio.Task[None]]:
    """Until the block ends. The task ends only when a consumer cannot go on; it then raises."""
    stopping = asyncio.Event()
    task = asyncio.create_task(_consume(parts, consumers, stopping))
    try:
        yield task
    finally:
        stopping.set()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def indexing(parts: Parts) -> AsyncIterator[None]:
    """An index builder of every partition, of a folder that no server has."""
    async with opened_cache(parts, "command") as cache:
        builder = make_builder(parts, cache)
        await builder.start()
        try:
            async with consuming(parts, builder):
                yield
        finally:
            await builder.stop()


async def _consume(
    parts: Parts, consumers: tuple[LogConsumer, ...], stopping: asyncio.Event
) -> None:
    """Feed every consumer with every partition; the first one that fails ends the others."""
    partitions = range(parts.partitions)
    try:
        async with asyncio.TaskGroup() as group:
            for consumer in consumers:
                group.create_task(run_log_loop(parts.wal, consumer, partitions, stop=stopping))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
