"""Hands HTTP/2 connections on to the gRPC server, byte for byte, with back-pressure both ways.

The near side of a relay is the client's connection, taken over from the HTTP server, the far side
one to the gRPC server. What one cannot write any more, the other does not read.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

log = logging.getLogger(__name__)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Metadata that says which host a call is for, where hosts have names: set by the relay only.
AUTHORITY = "x-firndb-authority"
# Each may keep as much in either direction, besides the sockets' own buffers.
BUFFER_BYTES = 256 << 10
RELAYS_MAX = 1000
# What a client gets to take in the last words of a connection that ends.
FLUSH_S = 5.0


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a relayed connection came in: the port that the client connected to."""

    port: int


class Origins:
    """The relayed connections, by the address that the gRPC server knows them by."""

    def __init__(self) -> None:
        self._by_port: dict[int, Origin] = {}

    def __len__(self) -> int:
        return len(self._by_port)

    def of(self, peer: str) -> Origin | None:
        """peer: as gRPC writes it, `ipv4:127.0.0.1:40000`. None: it did not come by the relay."""
        port = peer.rpartition(":")[2]
        return self._by_port.get(int(port)) if port.isdigit() else None

    def add(self, port: int, origin: Origin) -> None:
        self._by_port[port] = origin

    def remove(self, port: int) -> None:
        self._by_port.pop(port, None)


class Through(Protocol):
    """What a connection's bytes from its client go through."""

    behind: bool
    """It has more to do with what it got: it is fed again, with nothing, in the next round."""

    def feed(self, data: bytes) -> bytes:
        """`ValueError` ends the connection."""


class Relays:
    """All relayed connections of the process. `to`: the gRPC server's address, once it listens.

    make_through: for each connection, what its client's bytes go through.
    """

    def __init__(self, make_through: Callable[[], Through] | None = None) -> None:
        self.origins = Origins()
        self._make_through = make_through
        self.to: tuple[str, int] | None = None
        self._open: set[_Relay] = set()
        self._none_open = asyncio.Event()

    def __len__(self) -> int:
        return len(self._open)

    def take(self, near: asyncio.Transport, first: bytes) -> None:
        """Go on with a client's connection, of which `first` is read already."""
        if self.to is None or len(self._open) >= RELAYS_MAX:
            near.abort()
            return
        relay = _Relay(near, self.origins, self._ended)
        if self._make_through is not None:
            relay.near_side.through = self._make_through()
        self._open.add(relay)
        self._none_open.clear()
        relay.start(self.to, first)

    async def stop(self) -> None:
        """Take no more, and close what is open; what is on its way to clients is still sent."""
        self.to = None
        for relay in tuple(self._open):
            relay.close()
        if self._open:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._none_open.wait(), 2 * FLUSH_S)

    def _ended(self, relay: "_Relay") -> None:
        self._open.discard(relay)
        if not self._open:
            self._none_open.set()


class _Side(asyncio.Protocol):
    """One of a relay's two connections; `transport` is None until it is made."""

    def __init__(self, made: Callable[[asyncio.Transport], None], lost: Callable[[], None]) -> None:
        self._made = made
        self._lost = lost
        self._held: set[str] = set()
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None
        self.through: Through | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses of it
        self._made(self.transport)

    def data_received(self, data: bytes) -> None:
        other = None if self.other is None else self.other.transport
        if other is None or other.is_closing():
            return
        if self.through is None:
            other.write(data)
            return
        try:
            other.write(self.through.feed(data))
        except ValueError as error:
            log.info("a connection over HTTP/2 is ended: %s", error)
            other.abort()
            return
        if self.through.behind:
            self.hold("behind")
            asyncio.get_running_loop().call_soon(self.data_received, b"")
        else:
            self.go_on("behind")

    def hold(self, why: str) -> None:
        """Read nothing until nobody has a reason any more."""
        if not self._held and self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()
        self._held.add(why)

    def go_on(self, why: str) -> None:
        if why not in self._held:
            return
        self._held.remove(why)
        if not self._held and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.hold("full")

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.go_on("full")

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost()


class _Relay:
    def __init__(
        self,
        near: asyncio.Transport,
        origins: Origins,
        ended: Callable[["_Relay"], None],
    ) -> None:
        self._near = near
        self._far: asyncio.Transport | None = None
        self._first = b""
        self._origins = origins
        self._ended = ended
        self.near_side = _Side(lambda _: None, self._near_lost)
        self.near_side.transport = near
        self._far_side = _Side(self._far_made, self._far_lost)
        self.near_side.other, self._far_side.other = self._far_side, self.near_side
        self._far_port = 0
        self._connecting: asyncio.Task[None] | None = None
        self._flushed: asyncio.TimerHandle | None = None

    def start(self, to: tuple[str, int], first: bytes) -> None:
        self._first = first
        self.near_side.hold("unconnected")
        self._near.set_protocol(self.near_side)
        self._near.set_write_buffer_limits(high=BUFFER_BYTES)
        self._connecting = asyncio.create_task(self._connect(to))

    def close(self) -> None:
        """Send what is still on its way to the client, then end both connections."""
        if self._far is not None:
            self._far.abort()
        if self._flushed is None and not self._near.is_closing():
            self._flushed = asyncio.get_running_loop().call_later(FLUSH_S, self._near.abort)
            self._near.close()

    async def _connect(self, to: tuple[str, int]) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(FLUSH_S):
                await loop.create_connection(lambda: self._far_side, *to)
        except OSError as error:  # a timeout is one, too
            log.error("the gRPC server does not take a connection: %r", error)
            self._near.abort()

    def _far_made(self, far: asyncio.Transport) -> None:
        if self._near.is_closing():
            far.abort()
            return
        self._far = far
        far.set_write_buffer_limits(high=BUFFER_BYTES)
        self._far_port = far.get_extra_info("sockname")[1]
        _address, port = self._near.get_extra_info("sockname")[:2]
        self._origins.add(self._far_port, Origin(port))
        self.near_side.data_received(self._first)
        self.near_side.go_on("unconnected")

    def _near_lost(self) -> None:
        if self._flushed is not None:
            self._flushed.cancel()
        if self._far is not None:
            self._far.abort()
        self._ended(self)

    def _far_lost(self) -> None:
        self._origins.remove(self._far_port)
        self.close()
