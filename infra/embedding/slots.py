"""Who is next when a model is busy: projects in turn, and in each its namespaces in turn."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

Called = asyncio.Future[None]


class FairSlots:
    """`count` at the same time; for one event loop. How many may wait is the caller's to bound."""

    def __init__(self, count: int) -> None:
        self._free = count
        # By project and namespace, whoever is next in front.
        self._waiting: dict[str, dict[str, deque[Called]]] = {}

    @asynccontextmanager
    async def slot(self, project: str, namespace: str) -> AsyncIterator[None]:
        if self._free:  # then nobody waits
            self._free -= 1
        else:
            await self._called(project, namespace)
        try:
            yield
        finally:
            self._hand_on()

    async def _called(self, project: str, namespace: str) -> None:
        called: Called = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(project, {}).setdefault(namespace, deque()).append(called)
        try:
            await called
        except asyncio.CancelledError:
            if not called.cancelled():  # it was called in this very moment
                self._hand_on()
            raise

    def _hand_on(self) -> None:
        """To the next; a project and a namespace that more waits for goes to the end."""
        while self._waiting:
            project = next(iter(self._waiting))
            namespaces = self._waiting.pop(project)
            namespace = next(iter(namespaces))
            queue = namespaces.pop(namespace)
            called = queue.popleft()
            if queue:
                namespaces[namespace] = queue
            if namespaces:
                self._waiting[project] = namespaces
            if not called.done():  # else it gave up
                called.set_result(None)
                return
        self._free += 1
