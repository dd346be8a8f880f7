"""Tells the gRPC server which host each call of an HTTP/2 connection is for.

grpcio does not show a call's `:authority` to Python, and one connection may carry calls to several
hosts (an ingress pools its connections). So where hosts have names, the heads of calls are read on
their way through the relay, and written anew with the authority in the metadata. Everything else
passes as it is.
"""

from collections.abc import Iterable

from hpack import Decoder, HPACKError

from api.relay import AUTHORITY, PREFACE

HEADERS, CONTINUATION = 1, 9
END_HEADERS, PADDED, PRIORITY = 0x4, 0x8, 0x20
FRAME_HEAD = 9
# Nobody has to understand larger frames unless it said so; of calls' heads there are few so large.
FRAME_BYTES_MAX = 16 << 10
# Compressed and unfolded; the gRPC server refuses half as much.
HEAD_BYTES_MAX = 64 << 10
# Each takes some 0.1 ms of the event loop; further ones wait for its next round.
HEADS_AT_ONCE = 32


class NotHttp2(ValueError):
    """The bytes are not a client's side of an HTTP/2 connection."""


class Authorities:
    """One connection's bytes from its client; bounded in what it keeps.

    behind: it stopped in the middle of what it has, to go on when it is fed again, also nothing.
    """

    def __init__(self) -> None:
        self._decoder = Decoder(max_header_list_size=HEAD_BYTES_MAX)
        self._kept = bytearray()
        self._passing = len(PREFACE)  # of the present frame, so many bytes pass as they are
        self._block = bytearray()
        self._stream = 0  # whose head is not complete yet
        self._flags = 0
        self._heads = 0
        self.behind = False

    def feed(self, data: bytes) -> bytes:
        """The same, with the authority in the metadata, as far as it is complete. `NotHttp2`."""
        self._kept += data
        self._heads = 0
        out = bytearray()
        while self._kept and self._heads < HEADS_AT_ONCE:
            if self._passing:
                passed = self._kept[: self._passing]
                self._passing -= len(passed)
                del self._kept[: len(passed)]
                out += passed
            elif not self._next_frame(out):
                self.behind = False
                return bytes(out)
        self.behind = bool(self._kept)
        return bytes(out)

    def _next_frame(self, out: bytearray) -> bool:
        """False: it is not there as far as it must be."""
        if len(self._kept) < FRAME_HEAD:
            return False
        length = int.from_bytes(self._kept[:3], "big")
        kind, flags = self._kept[3], self._kept[4]
        stream = int.from_bytes(self._kept[5:9], "big") & 0x7FFF_FFFF
        if (kind == CONTINUATION) != (self._stream != 0) or self._stream not in (0, stream):
            raise NotHttp2("a call's head is not in one piece")
        if kind not in (HEADERS, CONTINUATION):
            self._passing = FRAME_HEAD + length
            return True
        if length + len(self._block) > HEAD_BYTES_MAX:
            raise NotHttp2(f"a call's head exceeds {HEAD_BYTES_MAX} bytes")
        if len(self._kept) < FRAME_HEAD + length:
            return False
        payload = bytes(self._kept[FRAME_HEAD : FRAME_HEAD + length])
        del self._kept[: FRAME_HEAD + length]
        if kind == HEADERS:
            self._flags = flags
            payload = _block_of(payload, flags)
        self._heads += 1
        self._block += payload
        self._stream = stream
        if flags & END_HEADERS:
            out += self._written_anew()
        return True

    def _written_anew(self) -> bytes:
        try:
            fields = [(f[0], f[1]) for f in self._decoder.decode(bytes(self._block), raw=True)]
        except HPACKError as error:
            raise NotHttp2(f"a call's head cannot be read: {error}") from error
        block = b"".join(_literal(name, value) for name, value in _told(fields))
        kind, flags = HEADERS, self._flags & ~(END_HEADERS | PADDED | PRIORITY)
        out = bytearray()
        while True:
            piece, block = block[:FRAME_BYTES_MAX], block[FRAME_BYTES_MAX:]
            flags |= 0 if block else END_HEADERS
            out += len(piece).to_bytes(3, "big") + bytes((kind, flags))
            out += self._stream.to_bytes(4, "big") + piece
            if not block:
                break
            kind, flags = CONTINUATION, 0
        self._block.clear()
        self._stream = 0
        return bytes(out)


def _block_of(payload: bytes, flags: int) -> bytes:
    """The payload of a HEADERS frame without its padding and its priority."""
    start, end = 0, len(payload)
    if flags & PADDED:
        if not payload:
            raise NotHttp2("padding is missing")
        start, end = 1, end - payload[0]
    if flags & PRIORITY:
        start += 5
    if start > end:
        raise NotHttp2("a call's head is padded beyond its end")
    return payload[start:end]


def _told(fields: list[tuple[bytes, bytes]]) -> Iterable[tuple[bytes, bytes]]:
    """With the authority as metadata, which clients cannot set themselves."""
    ours = AUTHORITY.encode()
    yield from ((name, value) for name, value in fields if name != ours)
    hosts = [value for name, value in fields if name == b":authority"]
    hosts += [value for name, value in fields if name == b"host"]
    if hosts:
        yield ours, hosts[0]


def _literal(name: bytes, value: bytes) -> bytes:
    """A field that no table remembers, in plain bytes."""
    return b"\0" + _sized(name) + _sized(value)


def _sized(text: bytes) -> bytes:
    """A string of HPACK: its length in 7 bits, or 127 and the rest in groups of 7 bits."""
    length = len(text)
    if length < 127:
        return bytes((length,)) + text
    head, length = bytearray((127,)), length - 127
    while length >= 128:
        head.append(length & 127 | 128)
        length >>= 7
    head.append(length)
    return bytes(head) + text
