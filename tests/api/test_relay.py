"""HTTP/2 beside HTTP/1.1 on one port: how connections are told apart, handed on and ended."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import grpc
import grpc.aio
import httpx
import pytest
import uvloop
from hpack import Encoder

from api import protocol, relay
from api.grpc.generated import vector_service_pb2 as pb
from tests.api.gateway import KEY, Running, running_gateway
from tests.api.grpc_client import RawClient, frame, grpc_client, vectors

SETTINGS_FRAME = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))


def place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port


def relays_of(gateway: Running) -> relay.Relays:
    return gateway.gateway._grpc._relays


async def until(met: Callable[[], bool]) -> None:
    """Waits for what comes true soon."""
    for _ in range(1000):
        if met():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")


@pytest.fixture
async def host(gateway: Running) -> str:
    made: str = (await gateway.create())["host"]
    return made


async def test_both_transports_at_once_on_one_port(gateway: Running, host: str) -> None:
    async def by_grpc(raw: RawClient, turn: int) -> None:
        await raw.ask("Upsert", vectors=vectors(10), namespace=f"grpc{turn}")

    async def by_rest(turn: int) -> None:
        body = {"vectors": [{"id": "a", "values": [1, 2, 3]}], "namespace": f"rest{turn}"}
        answer = await gateway.ask("POST", "/vectors/upsert", host=host, json=body)
        assert answer.status_code == 200

    async with grpc_client(host) as raw:
        await asyncio.gather(*(f for n in range(20) for f in (by_grpc(raw, n), by_rest(n))))
        stats, _ = await raw.ask("DescribeIndexStats")
    assert stats.total_vector_count == 20 * 11
    assert len(stats.namespaces) == 40


def test_the_same_under_uvloop(tmp_path: Path) -> None:
    """Its transports are other classes than asyncio's; the server runs on them."""

    async def run() -> None:
        async with running_gateway(tmp_path) as gateway:
            host = (await gateway.create())["host"]
            async with grpc_client(host) as raw:
                done, _ = await raw.ask("Upsert", vectors=vectors(1000))
                assert done.upserted_count == 1000
            await until(lambda: not len(relays_of(gateway)))

    uvloop.run(run())


@pytest.mark.parametrize("pieces", [[1, 2, 21], [1] * 24, [23, 1], [14, 10]])
async def test_a_preface_in_pieces_is_still_http2(host: str, pieces: list[int]) -> None:
    reader, writer = await asyncio.open_connection(*place(host))
    rest = relay.PREFACE
    for size in pieces:
        writer.write(rest[:size])
        rest = rest[size:]
        await writer.drain()
        await asyncio.sleep(0.005)
    writer.write(SETTINGS_FRAME)
    frame = await reader.readexactly(9)
    assert frame[3] == 4  # the server's SETTINGS
    writer.close()


@pytest.mark.parametrize("first", [b"P", b"PR", b"PRI * HTTP/2.0\r\n\r\n"])
async def test_bytes_that_begin_like_http2_and_are_not(host: str, first: bytes) -> None:
    """POST begins like the preface; what is neither gets HTTP's 400."""
    reader, writer = await asyncio.open_connection(*place(host))
    writer.write(first)
    await writer.drain()
    await asyncio.sleep(0.02)
    if first == b"P":
        writer.write(b"OST /query HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 401 ")
    else:
        writer.write(b"nonsense\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_half_a_preface_is_not_waited_for_long(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "PREFACE_S", 0.1)
    reader, writer = await asyncio.open_connection(*place(host))
    writer.write(relay.PREFACE[:10])
    with pytest.raises(ConnectionResetError):
        raise ConnectionResetError if await reader.read() == b"" else AssertionError
    writer.close()


async def test_a_client_that_goes_away_leaves_nothing(gateway: Running, host: str) -> None:
    relays = relays_of(gateway)
    _, writer = await asyncio.open_connection(*place(host))
    writer.write(relay.PREFACE + SETTINGS_FRAME)
    await until(lambda: len(relays) == 1 and len(relays.origins._by_port) == 1)
    writer.transport.abort()
    await until(lambda: len(relays) == 0 and not relays.origins._by_port)


async def test_what_is_no_http2_after_the_preface_ends_the_connection(
    gateway: Running, host: str
) -> None:
    reader, writer = await asyncio.open_connection(*place(host))
    writer.write(relay.PREFACE + b"\xff" * 100)
    await asyncio.wait_for(reader.read(), 10)  # SETTINGS, perhaps GOAWAY, and the end
    await until(lambda: len(relays_of(gateway)) == 0)
    writer.close()


async def test_a_flood_of_connections_is_bounded(
    gateway: Running, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "RELAYS_MAX", 5)
    opened = [await asyncio.open_connection(*place(host)) for _ in range(9)]
    for _, writer in opened:
        writer.write(relay.PREFACE + SETTINGS_FRAME)
    ends = [asyncio.create_task(reader.read(1)) for reader, _ in opened]
    firsts = await asyncio.gather(*ends, return_exceptions=True)
    refused = [f for f in firsts if isinstance(f, ConnectionError) or f == b""]
    assert len(refused) == 4
    assert (await gateway.ask("GET", "/indexes")).status_code == 200
    for _, writer in opened:
        writer.transport.abort()
    await until(lambda: len(relays_of(gateway)) == 0)
    async with grpc_client(host) as raw:
        await raw.ask("DescribeIndexStats")


@pytest.mark.parametrize("template", ["http://{host}:{port}", "http://{name}.example:{port}"])
async def test_a_flood_of_calls_that_are_reset_at_once_passes(
    tmp_path: Path, template: str
) -> None:
    """By port and by name; it ends, and then everybody is served."""
    async with running_gateway(tmp_path, index_host=template) as gateway:
        made = await gateway.create("movies")
        host = made["host"] if "{port}" in template and "{name}" not in template else gateway.url
        encoder, flood = Encoder(), bytearray(relay.PREFACE + SETTINGS_FRAME)
        head = [(":method", "POST"), (":path", "/VectorService/Query"), (":scheme", "http")]
        head += [(":authority", "movies.example"), ("content-type", "application/grpc")]
        for stream in range(1, 10_001, 2):
            block = encoder.encode([*head, ("api-key", KEY), ("te", "trailers")])
            flood += frame(1, 4, stream, block) + frame(3, 0, stream, b"\0\0\0\x08")
        _, writer = await asyncio.open_connection(*place(host))
        writer.write(flood)
        answer = await gateway.ask("GET", "/indexes")
        assert answer.status_code == 200
        async with grpc_client(host, ("grpc.default_authority", "movies.example")) as raw:
            await raw.ask("DescribeIndexStats")
        writer.transport.abort()
        await until(lambda: len(relays_of(gateway)) == 0)
        await until(lambda: gateway.gateway._grpc._edge._in_flight.count == 0)


async def test_a_connection_that_the_relay_did_not_make_is_refused(
    gateway: Running, host: str
) -> None:
    to = relays_of(gateway).to
    assert to is not None
    async with grpc_client(f"http://{to[0]}:{to[1]}") as raw:
        code, text, _ = await raw.refused("DescribeIndexStats")
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert text.startswith("This port is internal")


async def test_a_message_over_the_limit_is_told_its_limit(host: str) -> None:
    async with grpc_client(host) as raw:
        vector = pb.Vector(id="a", values=[1.0] * 600_000)
        code, text, _ = await raw.refused("Upsert", vectors=[vector])
        assert code is grpc.StatusCode.OUT_OF_RANGE
        assert "exceeds the limit of 2097152 bytes" in text
        vector = pb.Vector(id="a", values=[1.0] * 3_000_000)
        code, text, _ = await raw.refused("Upsert", vectors=[vector])
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in text
        await raw.ask("DescribeIndexStats")


async def test_a_message_that_does_not_come_gives_its_place_back(
    gateway: Running, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.grpc.edge.ARRIVAL_S", 0.1)

    async def never() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    async with grpc_client(host) as raw:
        asking: Any = raw.channel.stream_unary("/VectorService/Upsert")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await asking(never(), metadata=(("api-key", KEY),), timeout=30)
        assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert refused.value.details() == "the message did not arrive in 0 s"
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await asking(never(), metadata=(("api-key", "wrong"),), timeout=30)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED

        async def none() -> AsyncIterator[bytes]:
            no_messages: list[bytes] = []
            for message in no_messages:
                yield message

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await asking(none(), metadata=(("api-key", KEY),), timeout=30)
        assert refused.value.details() == "The call ended before its message."
    assert gateway.gateway._grpc._edge._in_flight.count == 0


async def test_compressed_messages_are_bounded_as_they_unfold(host: str) -> None:
    bomb = pb.UpsertRequest(namespace="n" * (64 << 20))
    async with grpc_client(host) as raw:
        call: Any = raw.channel.unary_unary(
            "/VectorService/Upsert", request_serializer=pb.UpsertRequest.SerializeToString
        )
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(
                bomb, metadata=(("api-key", KEY),), timeout=30, compression=grpc.Compression.Gzip
            )
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        small = pb.UpsertRequest(vectors=vectors(900))
        await call(
            small, metadata=(("api-key", KEY),), timeout=30, compression=grpc.Compression.Gzip
        )


async def test_calls_beyond_the_bound_are_told_to_slow_down(
    gateway: Running, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REST and gRPC share the bound."""
    monkeypatch.setattr("api.in_flight.IN_FLIGHT_MAX", 0)
    async with grpc_client(host) as raw:
        code, text, told = await raw.refused("DescribeIndexStats")
    assert (code, text) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "0 requests are being served; try again soon",
    )
    assert told["retry-after"] == "1"


async def test_when_the_client_gives_up_the_work_ends(gateway: Running, host: str) -> None:
    ended: list[str] = []

    async def slow(*_: object, **__: object) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    gateway.memory.stats = slow  # type: ignore[assignment,method-assign]
    async with grpc_client(host) as raw:
        code, _, _ = await raw.refused("DescribeIndexStats", timeout=0.3)
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: ended == ["cancelled"])
        asking = asyncio.create_task(raw.ask("DescribeIndexStats"))
        await until(lambda: gateway.gateway._grpc._edge._in_flight.count == 1)
    with pytest.raises((asyncio.CancelledError, grpc.aio.AioRpcError)):
        await asking
    await until(lambda: ended == ["cancelled"] * 2)
    await until(lambda: gateway.gateway._grpc._edge._in_flight.count == 0)
    text = gateway.metrics.text().decode()
    assert 'firndb_grpc_requests_total{code="CANCELLED",method="DescribeIndexStats"} 2.0' in text


async def test_a_stop_lets_calls_at_work_end(tmp_path: Path) -> None:
    async with running_gateway(tmp_path) as gateway:
        host = (await gateway.create())["host"]
        entered, go = asyncio.Event(), asyncio.Event()
        stats = gateway.memory.stats

        async def waiting(*arguments: object, **named: object) -> object:
            entered.set()
            await go.wait()
            return await stats(*arguments, **named)  # type: ignore[arg-type]

        gateway.memory.stats = waiting  # type: ignore[assignment,method-assign]
        async with grpc_client(host) as raw:
            asking = asyncio.create_task(raw.ask("DescribeIndexStats"))
            await entered.wait()
            stopping = asyncio.create_task(gateway.gateway.stop())
            await asyncio.sleep(0.1)
            go.set()
            answer, _ = await asking
            assert answer.total_vector_count == 0
            await stopping
            code, _, _ = await raw.refused("DescribeIndexStats")
            assert code is grpc.StatusCode.UNAVAILABLE


MUCH = 64 << 20


class _Flood(asyncio.Protocol):
    """Sends without end what its transport takes, or reads nothing, then everything."""

    def __init__(self) -> None:
        self.sent = self.got = 0
        self._may_write = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._may_write.set()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def data_received(self, data: bytes) -> None:
        self.got += len(data)

    async def send(self) -> None:
        while self.sent < MUCH:
            await self._may_write.wait()
            self.transport.write(b"x" * (1 << 20))
            self.sent += 1 << 20

    async def until_stalled(self) -> int:
        """Bytes sent, once no more go."""
        before = -1
        while before != self.sent:
            before = self.sent
            await asyncio.sleep(0.3)
        return before


class _Through:
    """Lets bytes pass in slices, each in a round of its own."""

    def __init__(self) -> None:
        self.behind = False
        self._kept = b""

    def feed(self, data: bytes) -> bytes:
        self._kept += data
        passed, self._kept = self._kept[:50_000], self._kept[50_000:]
        self.behind = bool(self._kept)
        return passed


@pytest.mark.parametrize("towards", ["client", "server", "server in slices"])
@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run])
def test_a_peer_that_does_not_read_holds_back_the_one_that_sends(
    runner: Callable[[Coroutine[None, None, None]], None], towards: str
) -> None:
    """Far less than all is on its way then; when the peer reads on, all of it arrives."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server_side, client_side = _Flood(), _Flood()
        relays = relay.Relays(_Through if towards == "server in slices" else None)
        far = await loop.create_server(lambda: server_side, "127.0.0.1", 0)
        relays.to = far.sockets[0].getsockname()

        class Taking(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                relays.take(cast(asyncio.Transport, transport), b"")

        near = await loop.create_server(Taking, "127.0.0.1", 0)
        address = near.sockets[0].getsockname()
        await loop.create_connection(lambda: client_side, *address)
        await until(lambda: hasattr(server_side, "transport"))
        sender, peer = server_side, client_side
        if towards != "client":
            sender, peer = peer, sender
        peer.transport.pause_reading()
        sending = asyncio.create_task(sender.send())
        assert await sender.until_stalled() < MUCH // 2
        buffered = [r._near.get_write_buffer_size() for r in relays._open]
        buffered += [r._far.get_write_buffer_size() for r in relays._open if r._far is not None]
        assert max(buffered) < 4 * relay.BUFFER_BYTES
        peer.transport.resume_reading()
        await sending
        await until(lambda: peer.got == MUCH)
        client_side.transport.close()
        await until(lambda: not len(relays))
        near.close()
        far.close()

    runner(run())


async def test_http_requests_after_each_other_on_one_connection(host: str) -> None:
    async with httpx.AsyncClient(headers={"api-key": KEY}) as client:
        for _ in range(3):
            answer = await client.post(f"{host}/describe_index_stats", json={})
            assert answer.status_code == 200
