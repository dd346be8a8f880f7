"""Heads of gRPC calls get their authority as metadata, however the bytes are cut."""

from collections.abc import Iterator

import pytest
from hpack import Decoder, Encoder
from hypothesis import given
from hypothesis import strategies as st

from api.authority import (
    END_HEADERS,
    HEAD_BYTES_MAX,
    HEADS_AT_ONCE,
    PADDED,
    PRIORITY,
    Authorities,
    NotHttp2,
)
from api.relay import PREFACE
from tests.api.grpc_client import frame

Field = tuple[str, str]
Frame = tuple[int, int, int, bytes]
PING, DATA, HEADERS, CONTINUATION = 6, 0, 1, 9
END_STREAM = 1


def frames(data: bytes) -> Iterator[Frame]:
    while data:
        length = int.from_bytes(data[:3], "big")
        assert len(data) >= 9 + length
        yield data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + length]
        data = data[9 + length :]


def fields_of(decoder: Decoder, block: bytes) -> list[Field]:
    return [(str(field[0]), str(field[1])) for field in decoder.decode(block)]


def call(authority: str, *more: Field) -> list[Field]:
    path = (":path", "/VectorService/Query")
    return [(":method", "POST"), path, (":authority", authority), ("te", "trailers"), *more]


def head(encoder: Encoder, stream: int, fields: list[Field], form: str) -> bytes:
    """A call's head as clients may send it."""
    block = encoder.encode(fields)
    match form:
        case "padded":
            return frame(HEADERS, END_HEADERS | PADDED, stream, b"\x03" + block + b"\0\0\0")
        case "priority":
            return frame(HEADERS, END_HEADERS | PRIORITY, stream, b"\0\0\0\0\x10" + block)
        case "pieces":
            first = frame(HEADERS, END_STREAM, stream, block[:5])
            middle = frame(CONTINUATION, 0, stream, block[5:7])
            return first + middle + frame(CONTINUATION, END_HEADERS, stream, block[7:])
    return frame(HEADERS, END_HEADERS, stream, block)


FORMS = ["plain", "padded", "priority", "pieces"]
HOSTS = st.sampled_from(["movies.example:443", "books.example", "x" * 300])
CALLS = st.lists(st.tuples(HOSTS, st.sampled_from(FORMS), st.binary(max_size=40)), max_size=8)


@given(CALLS, st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_every_call_on_a_connection_gets_its_own(
    calls: list[tuple[str, str, bytes]], cuts: list[int]
) -> None:
    encoder = Encoder()
    sent = PREFACE + frame(4, 0, 0, b"")
    for n, (host, form, body) in enumerate(calls):
        spoofed = ("x-firndb-authority", "spoofed.example")
        sent += head(encoder, 2 * n + 1, call(host, spoofed, ("k" * 200, "v" * 200)), form)
        sent += frame(DATA, END_STREAM, 2 * n + 1, body) + frame(PING, 0, 0, b"12345678")
    through, out, turn = Authorities(), b"", 0
    while sent:
        size = cuts[turn % len(cuts)]
        out += through.feed(sent[:size])
        assert not through.behind
        sent, turn = sent[size:], turn + 1
    assert out.startswith(PREFACE)
    decoder = Decoder()
    seen: list[tuple[str, bytes]] = []
    for kind, flags, stream, payload in frames(out[len(PREFACE) :]):
        if kind == HEADERS:
            form = calls[stream // 2][1]
            assert flags == END_HEADERS | (END_STREAM if form == "pieces" else 0)
            found = fields_of(decoder, payload)
            authorities = [value for name, value in found if name == "x-firndb-authority"]
            assert [f for f in found if f[0] != "x-firndb-authority"] == call(
                calls[stream // 2][0], ("k" * 200, "v" * 200)
            )
            assert len(authorities) == 1
            seen.append((authorities[0], b""))
        elif kind == DATA:
            seen[-1] = (seen[-1][0], payload)
    assert seen == [(host, body) for host, _, body in calls]


def test_a_long_head_is_written_in_several_frames() -> None:
    fields = call("a.example", *((f"name{n}", "v" * 4000) for n in range(10)))
    through = Authorities()
    block = Encoder().encode(fields, huffman=False)
    sent = frame(HEADERS, 0, 1, block[:16000]) + frame(CONTINUATION, 0, 1, block[16000:32000])
    sent += frame(CONTINUATION, END_HEADERS, 1, block[32000:])
    out = list(frames(through.feed(PREFACE + sent)[len(PREFACE) :]))
    assert [(kind, flags) for kind, flags, _, _ in out] == [(1, 0), (9, 0), (9, END_HEADERS)]
    decoded = fields_of(Decoder(), b"".join(payload for *_, payload in out))
    assert decoded == [*fields, ("x-firndb-authority", "a.example")]


@pytest.mark.parametrize(
    "sent",
    [
        frame(CONTINUATION, END_HEADERS, 1, b""),
        frame(HEADERS, 0, 1, b"\x82") + frame(DATA, 0, 1, b"x"),
        frame(HEADERS, 0, 1, b"\x82") + frame(CONTINUATION, END_HEADERS, 3, b""),
        frame(HEADERS, END_HEADERS | PADDED, 1, b"\x09abc"),
        frame(HEADERS, END_HEADERS | PADDED, 1, b""),
        frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff"),
        frame(HEADERS, END_HEADERS, 1, b"\xc0"),
        (HEAD_BYTES_MAX + 1).to_bytes(3, "big") + bytes((HEADERS, 0, 0, 0, 0, 1)),
        frame(HEADERS, 0, 1, b"x" * 40_000) + frame(CONTINUATION, 0, 1, b"x" * 40_000),
        frame(HEADERS, END_HEADERS, 1, Encoder().encode([("a", "b" * 9000)]) + b"\xbe" * 40),
    ],
)
def test_what_is_no_head_ends_the_connection(sent: bytes) -> None:
    with pytest.raises(NotHttp2):
        Authorities().feed(PREFACE + sent)


def test_a_flood_of_heads_is_taken_in_slices() -> None:
    encoder, calls = Encoder(), 3 * HEADS_AT_ONCE + 5
    heads = [head(encoder, 2 * n + 1, call("a.example"), "plain") for n in range(calls)]
    through = Authorities()
    out = [through.feed(PREFACE + b"".join(heads))]
    while through.behind:
        out.append(through.feed(b""))
    assert len(out) == 4
    assert len(list(frames(out[0][len(PREFACE) :]))) == HEADS_AT_ONCE
    assert len(list(frames(b"".join(out)[len(PREFACE) :]))) == calls


@given(st.binary(max_size=200))
def test_any_bytes_pass_or_end_the_connection(sent: bytes) -> None:
    through = Authorities()
    try:
        through.feed(PREFACE + sent)
    except NotHttp2:
        return
    assert len(through._kept) <= HEAD_BYTES_MAX + 9
