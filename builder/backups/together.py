"""Many of one kind of request, some at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


async def together(at_once: int, work: Callable[[A], Awaitable[B]], inputs: Sequence[A]) -> list[B]:
    """What `work` gives for each, in their order. The first error ends the others, and is raised
    by itself.
    """
    limit = asyncio.Semaphore(at_once)

    async def one(given: A) -> B:
        async with limit:
            return await work(given)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(given)) for given in inputs]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    return [task.result() for task in tasks]
