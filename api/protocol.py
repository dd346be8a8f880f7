"""HTTP/1.1 as uvicorn speaks it, with a bound on the head; HTTP/2 is handed on."""

import asyncio

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.errors import body_of, meaning_of
from api.relay import PREFACE, Relays
from core.errors import InvalidRequest

# Known clients send less than 4 KiB of headers; the parser takes URLs of 64 KiB (a fetch of some
# hundred long ids). It has no bound of its own for headers, and grows with them.
HEAD_BYTES_MAX = 256 << 10
# The 24 bytes that HTTP/2 begins with come in one piece; who sends them slower is nobody we know.
PREFACE_S = 10.0


class RelayingConfig(uvicorn.Config):
    """With somewhere to hand HTTP/2 connections on to; None: they are refused like bad HTTP/1."""

    relays: Relays | None = None


class BoundedProtocol(HttpToolsProtocol):
    """One connection. A head that goes on for too long ends it with 400."""

    _reading_head = True
    _head_bytes = 0
    _fresh = True
    _held = b""
    _held_timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        if self._reading_head:
            if self._fresh:
                data = self._first(data)
                if not data:
                    return
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self.send_400_response(f"The URL and headers exceed {HEAD_BYTES_MAX} bytes.")
                return
        super().data_received(data)

    def on_headers_complete(self) -> None:
        self._reading_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._reading_head, self._head_bytes = True, 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """uvicorn's own answer is plain text, and clients look for JSON."""
        path = getattr(self, "url", b"").partition(b"?")[0].decode("ascii", "replace")
        body = body_of(meaning_of(InvalidRequest(msg)), msg, path)
        fields = [*self.server_state.default_headers, (b"content-type", b"application/json")]
        fields += [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        head = b"".join(b"%b: %b\r\n" % field for field in fields)
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n" + head + b"\r\n" + body)
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_timer()
        super().connection_lost(exc)

    def _first(self, data: bytes) -> bytes:
        """What HTTP/1.1 is to read of a connection's first bytes; none if they may be HTTP/2's."""
        data = self._held + data
        relays = self.config.relays if isinstance(self.config, RelayingConfig) else None
        if relays is None or not PREFACE.startswith(data[: len(PREFACE)]):
            self._fresh = False
            self._forget_timer()
            return data
        if len(data) < len(PREFACE):
            self._held = data
            if self._held_timer is None:
                self._held_timer = self.loop.call_later(PREFACE_S, self.transport.abort)
            return b""
        self._forget_timer()
        self.connections.discard(self)
        relays.take(self.transport, data)
        return b""

    def _forget_timer(self) -> None:
        if self._held_timer is not None:
            self._held_timer.cancel()
            self._held_timer = None
