"""The listening sockets: one for the control plane, and with port-per-index one for each index.

One uvicorn server has them all, so an index costs a socket and no task of its own.
"""

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import Generator

import uvicorn
from starlette.types import ASGIApp

from api.living import FRESH_S, LivingIndexes
from api.protocol import BoundedProtocol, RelayingConfig
from api.relay import Relays
from core.errors import ConfigError, FailedPrecondition, Unavailable
from infra.catalog.catalog import Catalog
from infra.catalog.model import CatalogIndex
from infra.settings import Settings

log = logging.getLogger(__name__)

BACKLOG = 1024
# Clients pool their connections; uvicorn's 5 s would close them between two questions of a person.
KEEP_ALIVE_S = 75
# What requests get to finish when the server stops.
STOP_S = 10


class HttpServer(uvicorn.Server):
    """uvicorn, with the signals left to the process's owner and sockets added while it runs.

    `relays` get the connections that speak HTTP/2. `tls`: of every socket; None: plain HTTP.
    """

    def __init__(
        self, app: ASGIApp, relays: Relays | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        config = RelayingConfig(
            app,
            interface="asgi3",
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=STOP_S,
        )
        config.relays = relays
        config.load()
        config.ssl = tls  # uvicorn would make one of files, without HTTP/2
        super().__init__(config)
        self._serving: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def start(self, listener: socket.socket) -> None:
        """Returns once requests are answered on `listener`."""
        self._serving = asyncio.create_task(self.serve(sockets=[listener]))
        while not self.started:
            if self._serving.done():
                self._serving.result()
                raise ConfigError("the HTTP server ended while starting; its log says why")
            await asyncio.sleep(0.005)

    async def listen(self, listener: socket.socket) -> asyncio.Server:
        """Answer on one more socket, until the returned server or all of it is closed."""

        def protocol() -> asyncio.Protocol:
            return BoundedProtocol(self.config, self.server_state, self.lifespan.state)

        server = await asyncio.get_running_loop().create_server(
            protocol, sock=listener, backlog=BACKLOG, ssl=self.config.ssl
        )
        self.servers.append(server)
        return server

    def forget(self, server: asyncio.Server) -> None:
        """Stop listening there; open connections go on until their clients close them."""
        server.close()
        self.servers.remove(server)

    async def stop(self) -> None:
        """Finish what is being answered (at most `STOP_S`), then close."""
        self.should_exit = True
        if self._serving is not None:
            await self._serving


class IndexServers:
    """Keeps one listening socket per living index, following the catalog.

    `sole`: no other process serves this catalog, so an index whose port a stranger has taken may
    move to another one. Otherwise the port is shared with the other processes of this machine
    (`SO_REUSEPORT`), and an index that cannot be served here is reported and left where it is.
    """

    def __init__(
        self,
        http: HttpServer,
        catalog: Catalog,
        living: LivingIndexes,
        settings: Settings,
        *,
        sole: bool,
    ) -> None:
        self._http = http
        self._catalog = catalog
        self._living = living
        self._settings = settings
        self._sole = sole
        self._servers: dict[int, asyncio.Server] = {}
        self._changing = asyncio.Lock()
        self._following: asyncio.Task[None] | None = None
        self._taken: set[int] = set()

    async def start(self) -> None:
        """Open every living index's port; `ConfigError` when there is none for one of them."""
        if not self._settings.port_per_index:
            return
        async with self._changing:
            try:
                for index in await self._living.refresh():
                    if self._sole or index.port is None:
                        await self._open_or_move(index)
                    else:
                        await self._open_shared(index)
            except FailedPrecondition as error:
                raise ConfigError(str(error)) from error
        self._following = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Only ends the following of the catalog: the sockets close with the `HttpServer`."""
        if self._following is not None:
            self._following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._following

    async def created(self, index: CatalogIndex) -> CatalogIndex:
        """Serve a new index; returns it with the port that it got."""
        if not self._settings.port_per_index:
            self._living.add(index)
            return index
        async with self._changing:
            try:
                return await self._open_or_move(index)
            except FailedPrecondition:
                await self._catalog.drop_index(index.info.index_id)
                raise

    async def deleted(self, index: CatalogIndex) -> None:
        self._living.remove(index)
        if index.port is not None:
            async with self._changing:
                self._close(index.port)

    async def follow_once(self) -> None:
        """Bring the sockets in line with the catalog. `Unavailable` changes nothing."""
        async with self._changing:
            living = await self._living.refresh()
            wanted = {index.port: index for index in living if index.port is not None}
            for port in self._servers.keys() - wanted.keys():
                self._close(port)
            for port in wanted.keys() - self._servers.keys():
                await self._open_shared(wanted[port])

    async def _follow(self) -> None:
        away = False
        while True:
            await asyncio.sleep(FRESH_S)
            try:
                await self.follow_once()
                away = False
            except Unavailable as error:
                if not away:
                    log.warning("new and deleted indexes are not noticed for now: %s", error)
                away = True
            except Exception:  # one bad round (say, no file handle left) must not be the last one
                log.exception("indexes of other processes are not noticed for now")

    async def _open_or_move(self, index: CatalogIndex) -> CatalogIndex:
        """On its port, or the first free one of the range."""
        unusable: set[int] = set()
        while not await self._open(index):
            if index.port is not None:
                unusable.add(index.port)
                log.warning("port %d of index %s is taken", index.port, index.info.name)
            self._living.remove(index)
            index = await self._catalog.move_index(
                index.info.index_id, self._settings.port_range, unusable
            )
        self._living.add(index)
        return index

    async def _open_shared(self, index: CatalogIndex) -> None:
        if index.port is None:
            return
        if await self._open(index):
            self._taken.discard(index.port)
        elif index.port not in self._taken:
            self._taken.add(index.port)
            log.error(
                "index %s is not served here: its port %d is taken on this machine",
                index.info.name,
                index.port,
            )

    async def _open(self, index: CatalogIndex) -> bool:
        """False: the port is taken. An index that was made without a port counts as that, too."""
        if index.port is None:
            return False
        if index.port in self._servers:
            return True
        try:
            listener = bind(self._settings.host, index.port, shared=not self._sole)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
        self._servers[index.port] = await self._http.listen(listener)
        return True

    def _close(self, port: int) -> None:
        server = self._servers.pop(port, None)
        if server is not None:
            self._http.forget(server)


def bind(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A bound TCP socket; `OSError` when it cannot be.

    `shared`: other processes of this user may bind it, too, if they also say so.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def bind_control(settings: Settings) -> socket.socket:
    """The control plane's socket; `ConfigError` says what to change when it cannot be had."""
    try:
        return bind(settings.host, settings.port)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {settings.host}:{settings.port} ({error.strerror}): choose another "
            "--port (FIRNDB_PORT) or --host (FIRNDB_HOST)"
        ) from error
