"""grpcio's asynchronous server on an internal port, which only the relay may use."""

from collections.abc import Sequence

import grpc
import grpc.aio

from api.grpc.edge import GrpcEdge
from api.grpc.service import Method
from api.relay import Relays
from api.vectors.answers import FETCH_RESULT_BYTES_MAX
from core.errors import ConfigError

ADDRESS = "127.0.0.1"
# A message a little over the limit gets an answer that says so. Of more than this the library reads
# nothing, and answers RESOURCE_EXHAUSTED.
RECEIVED_TIMES_MAX = 4
STREAMS_MAX = 100  # calls at once on one connection; clients queue further ones
METADATA_BYTES_MAX = 32 << 10
HANDSHAKE_MS = 10_000
# A client that vanished without a word is noticed after this, and an idle connection closed.
ALIVE_MS = 60_000
IDLE_MS = 600_000


class GrpcServer:
    """Serves the connections that `relays` hand on."""

    def __init__(
        self, edge: GrpcEdge, methods: Sequence[Method], relays: Relays, max_request_bytes: int
    ) -> None:
        self._edge = edge
        self._methods = methods
        self._relays = relays
        self._received_max = RECEIVED_TIMES_MAX * max_request_bytes
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """`ConfigError` when there is no internal port to be had."""
        server = grpc.aio.server(options=self._options())
        handlers = {method.name: self._edge.handler(method) for method in self._methods}
        generic = grpc.method_handlers_generic_handler("VectorService", handlers)
        server.add_generic_rpc_handlers((generic,))
        try:
            port = server.add_insecure_port(f"{ADDRESS}:0")
        except RuntimeError as error:
            raise ConfigError(f"cannot listen on {ADDRESS} for gRPC: {error}") from error
        await server.start()
        self._server = server
        self._relays.to = (ADDRESS, port)

    async def stop(self, grace_s: float) -> None:
        """Take no more calls; returns when those at work are answered, or after `grace_s`."""
        self._relays.to = None
        if self._server is not None:
            await self._server.stop(grace_s)
        await self._relays.stop()

    def _options(self) -> list[tuple[str, int]]:
        return [
            ("grpc.so_reuseport", 0),  # nobody else may listen there
            ("grpc.max_receive_message_length", self._received_max),
            ("grpc.max_send_message_length", FETCH_RESULT_BYTES_MAX + (1 << 20)),
            ("grpc.max_concurrent_streams", STREAMS_MAX),
            ("grpc.max_metadata_size", METADATA_BYTES_MAX // 2),
            ("grpc.absolute_max_metadata_size", METADATA_BYTES_MAX),
            ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
            ("grpc.keepalive_time_ms", ALIVE_MS),
            ("grpc.keepalive_timeout_ms", ALIVE_MS // 3),
            ("grpc.http2.min_ping_interval_without_data_ms", HANDSHAKE_MS),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", HANDSHAKE_MS),
            ("grpc.max_connection_idle_ms", IDLE_MS),
        ]
