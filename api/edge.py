"""What happens to every request, whatever it asks: an id, bounds, a count, never a traceback.

Plain ASGI: it stands in the way of every query, and frameworks' middleware classes cost 50 us each.
"""

import asyncio
import contextlib
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import is_data_path, response_to
from api.in_flight import InFlight, give_back
from core.clock import new_uuid
from core.errors import DeadlineExceeded, TooLarge
from infra.telemetry import Metrics

REQUEST_ID = "x-pinecone-request-id"
# Those who watch over the process must not take a busy one for a dead one.
HEALTH_PATHS = ("/healthz", "/readyz", "/metrics")
# From the request line to the end of the body: who sends slower holds a place for nothing.
ARRIVAL_S = 60.0
# Of a body that is refused, this much is still read, so that a client that is busy sending gets
# to read the answer instead of a broken connection.
DRAIN_BYTES_MAX = 64 << 20


class Edge:
    """Wraps the app. The request's id is in `scope["firn.request_id"]`."""

    def __init__(
        self, app: ASGIApp, metrics: Metrics, in_flight: InFlight, max_request_bytes: int
    ) -> None:
        self._app = app
        self._max_request_bytes = max_request_bytes
        self._in_flight = in_flight
        self._requests = metrics.counter(
            "firndb_http_requests_total", "Answered requests", ("plane", "status")
        )
        self._seconds = metrics.latency(
            "firndb_http_request_seconds", "Time from request line to last byte", ("plane",)
        )
        metrics.gauge("firndb_http_requests_in_flight", "Requests being answered now").set_function(
            lambda: in_flight.count
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        exchange = _Exchange(scope, receive, send, self._max_request_bytes)
        try:
            with self._in_flight.request():
                await self._answer(exchange)
        finally:
            plane = "data" if is_data_path(scope["path"]) else "control"
            self._requests.labels(plane, str(exchange.status)).inc()
            self._seconds.labels(plane).observe(time.perf_counter() - began)

    async def _answer(self, exchange: "_Exchange") -> None:
        scope = exchange.scope
        try:
            if scope["path"] not in HEALTH_PATHS:
                self._in_flight.check()
            await exchange.check_announced_size()
            await self._app(scope, exchange.receive, exchange.send)
        except Exception as error:
            if exchange.complete:
                return  # Starlette raises again what its handler has logged and answered
            if exchange.status:
                raise  # half an answer is out: only breaking the connection tells the client
            await response_to(error, scope["path"])(scope, exchange.receive, exchange.send)


class _Exchange:
    """One request and its answer, watched on their way through."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        self.scope = scope
        self.status = 0
        self.complete = False
        self._receive = receive
        self._send = send
        self._limit = limit
        self._received = 0
        self._arrival_deadline = asyncio.get_running_loop().time() + ARRIVAL_S
        self._request_id = new_uuid()
        scope["firn.request_id"] = self._request_id

    async def check_announced_size(self) -> None:
        headers: list[tuple[bytes, bytes]] = self.scope["headers"]
        announced = next((value for name, value in headers if name == b"content-length"), b"0")
        if announced.isdigit() and int(announced) > self._limit:
            await self._refuse_body()

    async def receive(self) -> Message:
        try:
            async with asyncio.timeout_at(self._arrival_deadline):
                message = await self._receive()
        except TimeoutError:
            raise DeadlineExceeded(f"the body did not arrive in {ARRIVAL_S:.0f} s") from None
        self._received += len(message.get("body", b""))
        if self._received > self._limit:
            await self._refuse_body(message.get("more_body", False))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"].append((REQUEST_ID.encode(), self._request_id.encode()))
        elif not message.get("more_body", False):
            self.complete = True
        await self._send(message)

    async def _refuse_body(self, more: bool = True) -> None:
        give_back()
        self._received = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(self._arrival_deadline):
                while more and self._received < DRAIN_BYTES_MAX:
                    message = await self._receive()
                    self._received += len(message.get("body", b""))
                    more = message.get("more_body", False)
        self._received = 0
        raise TooLarge(
            f"Request size exceeds the maximum supported size of {self._limit} bytes: "
            "send less at once"
        )
