"""A raw gRPC client of a running gateway: Pinecone's methods by name, as any language has them."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from api.grpc.generated import vector_service_pb2 as pb
from tests.api.gateway import KEY

ANSWERS: dict[str, Any] = {
    "Delete": pb.DeleteResponse,
    "DeleteNamespace": pb.DeleteResponse,
    "CreateNamespace": pb.NamespaceDescription,
    "DescribeNamespace": pb.NamespaceDescription,
}


class RawClient:
    """Calls with an API key; `ask` returns the answer and what came in the metadata."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel

    async def ask(
        self,
        method: str,
        message: Any = None,
        *,
        key: str | None = KEY,
        metadata: Sequence[tuple[str, str]] = (),
        timeout: float = 30,
        **fields: Any,
    ) -> tuple[Any, Mapping[str, str]]:
        """`message`, or the method's request with these fields."""
        if message is None:
            message = getattr(pb, f"{method}Request")(**fields)
        packed = message if isinstance(message, bytes) else message.SerializeToString()
        function: Callable[..., Any] = self.channel.unary_unary(f"/VectorService/{method}")
        told = (*([("api-key", key)] if key else []), *metadata)
        call = function(packed, metadata=told, timeout=timeout)
        answer = await call
        kind = ANSWERS.get(method) or getattr(pb, f"{method}Response")
        return kind.FromString(answer), dict(await call.trailing_metadata())

    async def refused(
        self, method: str, message: Any = None, **options: Any
    ) -> tuple[grpc.StatusCode, str, Mapping[str, str]]:
        """The status, the text and the metadata of a call that must fail."""
        try:
            answer, _ = await self.ask(method, message, **options)
        except grpc.aio.AioRpcError as error:
            return error.code(), error.details() or "", _told(error)
        raise AssertionError(f"{method} was answered: {answer}")


def _told(error: grpc.aio.AioRpcError) -> Mapping[str, str]:
    return {name: str(value) for name, value in error.trailing_metadata()}


@asynccontextmanager
async def grpc_client(
    host: str, *options: tuple[str, Any], credentials: grpc.ChannelCredentials | None = None
) -> AsyncIterator[RawClient]:
    """host: of an index, with scheme."""
    target = host.split("://", 1)[1]
    # a pool of its own: channels to one address would share a connection
    given = [("grpc.use_local_subchannel_pool", 1), *options]
    channel = (
        grpc.aio.insecure_channel(target, options=given)
        if credentials is None
        else grpc.aio.secure_channel(target, credentials, options=given)
    )
    async with channel:
        yield RawClient(channel)


def vectors(count: int, dimension: int = 3) -> list[pb.Vector]:
    return [pb.Vector(id=f"v{n}", values=[1.0, float(n), 0.5][:dimension]) for n in range(count)]


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame of HTTP/2."""
    return (
        len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
    )
