"""`ManifestFeed` within one process."""

import asyncio
from collections.abc import Callable

from core.feed import FeedEvent


class LocalFeed:
    """Each listener gets every event in its own turn of the event loop: it neither delays nor fails
    the publisher.
    """

    def __init__(self) -> None:
        self._listeners: dict[object, Callable[[FeedEvent], None]] = {}

    async def publish(self, event: FeedEvent) -> None:
        loop = asyncio.get_running_loop()
        for listener in self._listeners.values():
            loop.call_soon(listener, event)

    def subscribe(self, listener: Callable[[FeedEvent], None]) -> Callable[[], None]:
        token = object()
        self._listeners[token] = listener

        def unsubscribe() -> None:
            self._listeners.pop(token, None)

        return unsubscribe

    async def close(self) -> None:
        self._listeners.clear()
