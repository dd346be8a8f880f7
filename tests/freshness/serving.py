"""A freshness layer behind a real HTTP server on a free port, in the test's own process."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Generator

import uvicorn
from fastapi import FastAPI

from core.owners import OwnerBoard
from freshness.layer import FreshnessLayer
from freshness.server import freshness_router


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


@contextlib.asynccontextmanager
async def served(layer: FreshnessLayer) -> AsyncIterator[str]:
    """The base URL, while the block runs."""
    app = FastAPI()
    app.include_router(freshness_router(layer))
    server = _Server(uvicorn.Config(app, port=0, lifespan="off", log_level="error", ws="none"))
    task = asyncio.create_task(server.serve())
    await server.up.wait()
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task


class Board(OwnerBoard):
    """Owners as a test sets them."""

    def __init__(self, url: str | None = None) -> None:
        self.url = url
        self.asked_again = asyncio.Event()
        self._asked = 0

    async def announce(self, partition: int, url: str) -> None:
        self.url = url

    async def withdraw(self, partition: int, url: str) -> None:
        self.url = None

    def owner_of(self, partition: int) -> str | None:
        self._asked += 1
        if self._asked > 3:
            self.asked_again.set()
        return self.url
