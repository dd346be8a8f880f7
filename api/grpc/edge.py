"""What happens to every gRPC call: an id, bounds, a proved caller, a count, never a traceback.

The same as `api.edge` and `api.vectors.calls` do for REST, in the same order: who asks for what is
known before the message is read.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import grpc
import grpc.aio

from api.edge import ARRIVAL_S, REQUEST_ID
from api.errors import explained
from api.grpc.service import Method, Received, Reply
from api.in_flight import InFlight
from api.relay import AUTHORITY, Origins
from api.routing import Router
from api.vectors import headers
from api.vectors.plane import Call
from core.clock import new_uuid
from core.errors import DeadlineExceeded, InvalidRequest, Unauthenticated
from infra.telemetry import Metrics
from query.model import DEFAULT_READ, ReadOptions

log = logging.getLogger(__name__)

Messages = AsyncIterator[bytes]
Context = grpc.aio.ServicerContext[bytes, bytes]

CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
# Of what a client is ready to wait, this much is left for the way back.
ON_THE_WAY = 0.2


@dataclass(frozen=True, slots=True)
class _Arrival:
    headers: Mapping[str, str]


@dataclass(slots=True)
class _Counted:
    """What the metrics say of a call; CANCELLED unless it gets to its end."""

    code: grpc.StatusCode = grpc.StatusCode.CANCELLED
    began: float = field(default_factory=time.perf_counter)


class GrpcEdge:
    """Makes the server's handlers. `wait_s`: the longest that a read waits for freshness."""

    def __init__(
        self, router: Router, origins: Origins, in_flight: InFlight, metrics: Metrics, wait_s: float
    ) -> None:
        self._router = router
        self._origins = origins
        self._in_flight = in_flight
        self._wait_s = wait_s
        self._requests = metrics.counter(
            "firndb_grpc_requests_total", "Answered gRPC calls", ("method", "code")
        )
        self._seconds = metrics.latency(
            "firndb_grpc_request_seconds", "Time from a gRPC call's head to its answer", ("method",)
        )
        metrics.gauge("firndb_grpc_connections", "Open connections over HTTP/2").set_function(
            lambda: len(origins)
        )

    def handler(self, method: Method) -> "grpc.RpcMethodHandler[bytes, bytes]":
        """Reads the one message itself, as a handler of unary calls gets it before anything else
        is known of the call.
        """

        async def handle(messages: Messages, context: Context) -> bytes:
            counted = _Counted()
            try:
                with self._in_flight.request():
                    return await self._handle(method, messages, context, counted)
            finally:
                self._requests.labels(method.name, counted.code.name).inc()
                self._seconds.labels(method.name).observe(time.perf_counter() - counted.began)

        return grpc.stream_unary_rpc_method_handler(handle)

    async def _handle(
        self, method: Method, messages: Messages, context: Context, counted: _Counted
    ) -> bytes:
        request_id = new_uuid()
        try:
            reply = await self._answer(method, messages, context, request_id)
        except Exception as error:  # noqa: BLE001 - each becomes the status that it means
            meaning, text, told = explained(error, f"gRPC {method.name}")
            counted.code = CODES[meaning.number]
            told[REQUEST_ID] = request_id
            context.set_trailing_metadata(tuple(told.items()))
            await context.abort(counted.code, text)
        context.set_trailing_metadata(((REQUEST_ID, request_id), *reply.metadata.items()))
        counted.code = grpc.StatusCode.OK
        return reply.message

    async def _answer(
        self, method: Method, messages: Messages, context: Context, request_id: str
    ) -> Reply:
        self._in_flight.check()
        metadata = _metadata(context)
        origin = self._origins.of(context.peer())
        if origin is None:
            raise Unauthenticated("This port is internal: connect to the host of the index")
        arrival = _Arrival(metadata)
        place = (origin.port, metadata.get(AUTHORITY, ""))
        if method.writes:
            asked = await self._router.to_write(arrival, *place)
            options = DEFAULT_READ
        else:
            asked = await self._router.to_read(arrival, *place)
            options = self._read_options(metadata, context)
        message = await _read(messages)
        call = Call(asked.caller, asked.index, request_id, options, len(message), asked.spec)
        return await method.answer(Received(call, metadata, message))

    def _read_options(self, metadata: Mapping[str, str], context: Context) -> ReadOptions:
        """A read does not wait longer for freshness than its client waits for the read."""
        options = headers.read_options(metadata)
        left_s = context.time_remaining()
        if left_s is None or left_s * (1 - ON_THE_WAY) >= self._wait_s:
            return options
        deadline_s = max(0.0, left_s * (1 - ON_THE_WAY))
        return ReadOptions(options.consistency, options.min_lsn, deadline_s)


def _metadata(context: Context) -> Mapping[str, str]:
    """Of names that occur twice, the first one counts; binary ones mean nothing here."""
    found: dict[str, str] = {}
    for name, value in context.invocation_metadata() or ():
        if isinstance(value, str):
            found.setdefault(name, value)
    return found


async def _read(messages: Messages) -> bytes:
    with suppress(StopAsyncIteration):
        try:
            async with asyncio.timeout(ARRIVAL_S):
                return await anext(messages)
        except TimeoutError:
            raise DeadlineExceeded(f"the message did not arrive in {ARRIVAL_S:.0f} s") from None
    raise InvalidRequest("The call ended before its message.")
