"""gRPC messages and HTTP/2 frames that no client would send.

At stake: one strange client that ends the process, fills its memory or gets an INTERNAL, over the
same port that everybody uses.
"""

import random
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from api.grpc.generated import vector_service_pb2 as pb
from tests.e2e.processes import KEY
from tests.fuzz.target import MIB, Target

METHODS = [m.name for m in pb.DESCRIPTOR.services_by_name["VectorService"].methods]
# What a server may answer to nonsense. INTERNAL, UNKNOWN and UNAVAILABLE would be its own fault.
RIGHT = {
    "OK",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "UNAUTHENTICATED",
    "RESOURCE_EXHAUSTED",
    "DEADLINE_EXCEEDED",
}
GROWTH_BYTES_MAX = 48 * MIB


class Channel:
    """Calls with any bytes as message."""

    def __init__(self, target: Target) -> None:
        host, port = target.address
        self._channel = grpc.insecure_channel(
            f"{host}:{port}", options=[("grpc.max_send_message_length", -1)]
        )

    def __enter__(self) -> "Channel":
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def ask(
        self, method: str, message: bytes, metadata: Sequence[tuple[str, str | bytes]] | None = None
    ) -> str:
        """The name of the status."""
        path = method if method.startswith("/") else f"/VectorService/{method}"
        call: Any = self._channel.unary_unary(path)
        told = [("api-key", KEY)] if metadata is None else metadata
        try:
            call(message, metadata=told, timeout=30)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code.name
        return "OK"


def garbage(choose: random.Random, count: int) -> Iterator[bytes]:
    yield b""
    yield b"\xff" * 100
    yield b"\x0a" + b"\xff" * 9 + b"\x01"  # a length of 2^64
    yield b"\x0b" * 50_000  # groups in groups, the old kind of nesting
    for _ in range(count):
        yield choose.randbytes(choose.randrange(1, 200))


def nested_struct(depth: int) -> bytes:
    """{"a": {"a": …}} as a filter."""
    inner = b""
    for _ in range(depth):
        value = b"\x2a" + varint(len(inner)) + inner  # struct_value
        entry = b"\x0a\x01a\x12" + varint(len(value)) + value
        inner = b"\x0a" + varint(len(entry)) + entry  # fields
    return b"\x1a" + varint(len(inner)) + inner  # QueryRequest.filter


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def ask_garbage(target: Target, count: int, seed: int) -> None:
    choose = random.Random(seed)
    with Channel(target) as channel:
        for method in METHODS:
            for message in garbage(choose, count):
                assert channel.ask(method, message) in RIGHT, (method, message)
        for depth in (50, 99, 500, 20_000):
            status = channel.ask("Query", nested_struct(depth))
            assert status == "INVALID_ARGUMENT", depth
    target.check_alive()


def test_random_bytes_as_messages(target: Target) -> None:
    ask_garbage(target, 10, seed=1)


@pytest.mark.long
def test_many_random_bytes_as_messages(target: Target) -> None:
    ask_garbage(target, 5000, seed=2)


def fill(choose: random.Random, message: Message, depth: int = 0) -> None:
    """Random fields with random values, of the right types."""
    for field in message.DESCRIPTOR.fields:
        if choose.random() < 0.4 or depth > 4:
            continue
        name = field.name
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for _ in range(choose.randrange(3) if field.is_repeated else 1):
                below = getattr(message, name)
                fill(choose, below.add() if field.is_repeated else below, depth + 1)
                if not field.is_repeated:
                    below.SetInParent()
        elif field.is_repeated:
            getattr(message, name).extend(
                value_of(choose, field) for _ in range(choose.randrange(5))
            )
        else:
            setattr(message, name, value_of(choose, field))
    if message.DESCRIPTOR.full_name == "google.protobuf.Struct":
        for _ in range(choose.randrange(4)):
            key = choose.choice(["$and", "$in", "$eq", "a", "", "$", "\0", "é"])
            fill(choose, message.fields[key], depth + 1)  # type: ignore[attr-defined]


def value_of(choose: random.Random, field: Any) -> Any:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING:
            return choose.choice(
                ["", "a", "__default__", "\0", "é", "x" * 600, "../..", "%2F", " "]
            )
        case FieldDescriptor.CPPTYPE_BOOL:
            return choose.random() < 0.5
        case FieldDescriptor.CPPTYPE_UINT32:
            return choose.choice([0, 1, 3, 100, 10_001, 2**31, 2**32 - 1])
        case FieldDescriptor.CPPTYPE_INT32 | FieldDescriptor.CPPTYPE_ENUM:
            return choose.choice([0, 1] if field.enum_type is not None else [-1, 0, 1, 2**31 - 1])
        case FieldDescriptor.CPPTYPE_UINT64 | FieldDescriptor.CPPTYPE_INT64:
            return choose.choice([0, 1, 2**63 - 1])
        case _:
            return choose.choice([0.0, -0.0, 1.0, 1e30, float("nan"), float("inf"), -1e-30])


def ask_valid(target: Target, count: int, seed: int) -> None:
    choose = random.Random(seed)
    told: dict[str, int] = {}
    with Channel(target) as channel:
        for n in range(count):
            method = METHODS[n % len(METHODS)]
            message = getattr(pb, f"{method}Request")()
            fill(choose, message)
            status = channel.ask(method, message.SerializeToString())
            assert status in RIGHT, (method, message)
            told[status] = told.get(status, 0) + 1
    assert told.get("OK", 0) > count // 50, told
    target.check_alive()


def test_random_messages_of_the_right_types(target: Target) -> None:
    ask_valid(target, 240, seed=3)


@pytest.mark.long
def test_many_random_messages_of_the_right_types(target: Target) -> None:
    ask_valid(target, 30_000, seed=4)


def test_paths_and_metadata_that_nobody_sends(target: Target) -> None:
    paths = [
        "/",
        "//",
        "/VectorService/",
        "/VectorService/Nothing",
        "/a/b/c",
        "/x/Query",
        "/" * 9000,
    ]
    with Channel(target) as channel:
        for path in paths:
            assert channel.ask(path, b"") in RIGHT, path
        for key in ("", " ", "wrong", "k" * 4000):
            assert channel.ask("Query", b"", [("api-key", key)]) == "UNAUTHENTICATED"
        assert channel.ask("Query", b"", []) == "UNAUTHENTICATED"
        for metadata in (
            [("x-large", "y" * 100_000)],
            [(f"x-{n}", "y" * 100) for n in range(500)],
        ):
            assert channel.ask("Query", b"", metadata) in {"RESOURCE_EXHAUSTED", "UNAVAILABLE"}
        bytes_key: list[tuple[str, str | bytes]] = [("api-key", KEY), ("x-bin", b"\0\xff")]
        bytes_key += [("x-firndb-min-lsn", "-1"), ("grpc-timeout", "0n")]
        assert channel.ask("Query", b"", bytes_key) in {*RIGHT, "CANCELLED"}
    target.check_alive()


class Http2:
    """An HTTP/2 client that does as it is told."""

    def __init__(self, target: Target) -> None:
        self.socket = socket.create_connection(target.address, timeout=5)
        self.http = h2.connection.H2Connection(
            h2.config.H2Configuration(
                validate_outbound_headers=False, normalize_outbound_headers=False
            )
        )
        self.http.initiate_connection()
        self.flush()
        self.authority = f"{target.address[0]}:{target.address[1]}"

    def __enter__(self) -> "Http2":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def flush(self) -> None:
        self.socket.sendall(self.http.data_to_send())

    def open(self, stream: int, *more: tuple[str, str]) -> None:
        head = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/VectorService/Query"),
            (":authority", self.authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("api-key", KEY),
        ]
        self.http.send_headers(stream, [*head, *more])

    def listen(self) -> None:
        """Take in what has come; how it ends does not matter."""
        self.socket.settimeout(0.05)
        with suppress(OSError, h2.exceptions.ProtocolError):
            while data := self.socket.recv(1 << 16):
                self.http.receive_data(data)
                self.socket.sendall(self.http.data_to_send())


def rapid_resets(target: Target, count: int) -> None:
    """Streams that are opened and at once given up: each costs the server more than the client."""
    with suppress(OSError, h2.exceptions.ProtocolError), Http2(target) as client:
        for n in range(count):
            stream = 2 * n + 1
            client.open(stream)
            client.http.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
            if n % 50 == 49:
                client.flush()
                client.listen()


def raw_frames(target: Target, frames: bytes) -> None:
    with suppress(OSError, h2.exceptions.ProtocolError), Http2(target) as client:
        client.socket.sendall(frames)
        client.listen()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    size = len(payload).to_bytes(3, "big")
    return size + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


@pytest.mark.parametrize("count", [500, pytest.param(50_000, marks=pytest.mark.long)])
def test_streams_that_are_reset_at_once(target: Target, count: int) -> None:
    """CVE-2023-44487, and what it is kept in memory by."""
    rapid_resets(target, count)
    before = target.resident_bytes()
    for _ in range(3):
        rapid_resets(target, count)
    grown = target.resident_bytes() - before
    target.check_alive()
    assert grown < GROWTH_BYTES_MAX, f"{grown / MIB:.0f} MiB"


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param(frame(6, 0, 0, b"12345678") * 5000, id="pings"),
        pytest.param(frame(4, 0, 0, b"\0\x04\0\0\xff\xff") * 5000, id="settings"),
        pytest.param(frame(1, 0, 1, b"\x82") + frame(9, 0, 1, b"\x82") * 5000, id="continuations"),
        pytest.param(frame(8, 0, 0, b"\x7f\xff\xff\xff") * 100, id="windows"),
        pytest.param(frame(2, 0, 1, b"\0\0\0\x01\xff") * 5000, id="priorities"),
        pytest.param(frame(0, 0, 1, b"x" * 16_000) * 20, id="data without a head"),
        pytest.param(frame(0, 1, 1, b"") * 5000, id="empty data"),
        pytest.param(frame(1, 5, 1, b"\xff" * 2000), id="broken compression"),
        pytest.param(frame(5, 4, 1, b"\0\0\0\x02\x82"), id="a push"),
        pytest.param(frame(7, 0, 0, b"\0" * 8) * 100, id="goodbyes"),
        pytest.param(b"\xff" * 20_000, id="a frame of 16 MB"),
    ],
)
def test_floods_of_frames(target: Target, frames: bytes) -> None:
    for _ in range(3):
        raw_frames(target, frames)
    target.check_alive()


def test_random_frames(target: Target) -> None:
    choose = random.Random(9)
    for _ in range(100):
        frames = b"".join(
            frame(
                choose.randrange(12),
                choose.randrange(256),
                choose.choice([0, 1, 3, 2**31 - 1]),
                choose.randbytes(choose.randrange(60)),
            )
            for _ in range(choose.randrange(1, 12))
        )
        raw_frames(target, frames)
    target.check_alive()


def test_calls_that_are_left_open_take_no_memory_for_ever(target: Target) -> None:
    """Each says that a message of 1 MB comes, and sends ten bytes of it."""
    clients = []
    for _ in range(15):  # 300 places of the 400 that a project gets
        client = Http2(target)
        for stream in range(1, 40, 2):
            client.open(stream)
            client.http.send_data(stream, b"\0\0\x10\0\0" + b"x" * 10)
        client.flush()
        clients.append(client)
    target.check_alive()
    for client in clients:
        client.socket.close()
    target.check_alive()


@pytest.mark.parametrize("count", [300, pytest.param(30_000, marks=pytest.mark.long)])
def test_refusals_cost_no_memory(target: Target, count: int) -> None:
    large = b"\x0a" + varint(1_500_000) + b"x" * 1_500_000

    def lowest(channel: Channel, times: int) -> int:
        """Resident bytes in the second half: what the allocator keeps of large messages comes and
        goes.
        """
        least = 1 << 40
        for n in range(times):
            status = channel.ask(METHODS[n % len(METHODS)], large if n % 50 == 0 else b"\xff")
            assert status in RIGHT
            if (n >= times // 2 and n % 1000 == 999) or n == times - 1:
                least = min(least, target.resident_bytes())
        return least

    with Channel(target) as channel:
        lowest(channel, count // 6)
        before = lowest(channel, count // 2)
        grown = lowest(channel, count) - before
    assert grown < GROWTH_BYTES_MAX, f"{grown / MIB:.0f} MiB more after {count} refusals"
    target.check_alive()
