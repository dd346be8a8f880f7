"""What the process that decodes files and its parent say to each other: length, then msgpack."""

import socket
from typing import Any

import msgspec

from core.errors import CorruptData

# The largest batch: 1,000 records of 20,000 dimensions, 40 KB of metadata and 2,048 sparse values.
FRAME_BYTES_MAX = 256 << 20
_LENGTH = 8


class Open(msgspec.Struct, frozen=True, tag=True):
    """The descriptor comes with it. The index that the rows are judged by; skip_rows: done before.
    abort: the first row that is no record ends the file.
    """

    index_id: str
    dimension: int | None
    metric: str
    vector_type: str
    skip_rows: int
    abort: bool


class Next(msgspec.Struct, frozen=True, tag=True):
    """The next batch of the open file."""


class Opened(msgspec.Struct, frozen=True, tag=True):
    """rows: in the file, as it says."""

    rows: int


class Batch(msgspec.Struct, frozen=True, tag=True):
    """Some rows in the order of the file, those that are records; `next_row` is behind them.

    values: little-endian float32 (len(ids), dimension), "" in a sparse index. sparse: one for each
    id, uint32 indices (ascending) and float32 values as bytes, or None. reasons: why rows were left
    out, as many as fit; skipped: how many.
    """

    next_row: int
    ids: list[str]
    values: bytes
    sparse: list[tuple[bytes, bytes] | None]
    metadata: list[dict[str, Any]]
    skipped: int
    reasons: list[str]


class End(msgspec.Struct, frozen=True, tag=True):
    """No more rows."""


class Refused(msgspec.Struct, frozen=True, tag=True):
    """The file is not what it should be; `text` says why, `row` where, if it is one row."""

    text: str
    row: int | None = None


_encoder = msgspec.msgpack.Encoder()
_questions: msgspec.msgpack.Decoder[Open | Next] = msgspec.msgpack.Decoder(Open | Next)
_answers: msgspec.msgpack.Decoder[Opened | Batch | End | Refused] = msgspec.msgpack.Decoder(
    Opened | Batch | End | Refused
)


def send(peer: socket.socket, message: msgspec.Struct, descriptor: int | None = None) -> None:
    """Blocks."""
    data = _encoder.encode(message)
    head = len(data).to_bytes(_LENGTH, "big")
    if descriptor is None:
        peer.sendall(head)
    else:
        socket.send_fds(peer, [head], [descriptor])
    peer.sendall(data)


def read_question(peer: socket.socket) -> tuple[Open | Next, int | None] | None:
    """The question and its descriptor; None: the parent is gone. Blocks."""
    head, descriptors, _, _ = socket.recv_fds(peer, _LENGTH, 1)
    if not head:
        return None
    head += _exactly(peer, _LENGTH - len(head))
    data = _exactly(peer, _checked(head))
    return _questions.decode(data), descriptors[0] if descriptors else None


def read_answer(peer: socket.socket) -> tuple[Opened | Batch | End | Refused, int]:
    """The answer and its size. `EOFError`: the process is gone; `CorruptData`: it does not speak as
    it should. Blocks.
    """
    data = _exactly(peer, _checked(_exactly(peer, _LENGTH)))
    try:
        return _answers.decode(data), len(data)
    except msgspec.MsgspecError as error:
        raise CorruptData(f"the process that decodes files said something else: {error}") from error


def _checked(head: bytes | bytearray) -> int:
    size = int.from_bytes(head, "big")
    if size > FRAME_BYTES_MAX:
        raise CorruptData(f"a frame of {size} bytes is beyond {FRAME_BYTES_MAX}")
    return size


def _exactly(peer: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while len(view):
        count = peer.recv_into(view)
        if count == 0:
            raise EOFError
        view = view[count:]
    return data
