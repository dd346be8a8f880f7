"""Bytes that are no requests, and requests that no client would send, over real connections.

At stake: one strange client that ends the process, fills its memory, or gets a traceback. Every
case is followed by proof that the server does its work as before.
"""

import gzip
import json
import random
import socket
import string
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.e2e.processes import KEY
from tests.fuzz.target import MIB, Target

PATHS = [
    "/vectors/upsert",
    "/query",
    "/vectors/update",
    "/vectors/delete",
    "/vectors/fetch_by_metadata",
    "/describe_index_stats",
    "/namespaces",
    "/bulk/imports",
    "/records/namespaces/n/upsert",
    "/records/namespaces/n/search",
    "/indexes",
    "/collections",
    "/indexes/fuzz/backups",
    "/admin/projects",
    "/embed",
]
# Of a case that is repeated, so much may be kept by allocators, caches and the log's index.
GROWTH_BYTES_MAX = 48 * MIB


def exchange(target: Target, data: bytes, wait_s: float = 5.0) -> bytes:
    """Everything that comes back, until the server closes, a whole answer came or `wait_s`."""
    answer = b""
    with socket.create_connection(target.address, timeout=wait_s) as connection:
        with suppress(ConnectionError):
            connection.sendall(data)
        with suppress(ConnectionError, TimeoutError):
            while chunk := connection.recv(1 << 16):
                answer += chunk
                if complete(answer):
                    break
    return answer


def complete(answer: bytes) -> bool:
    head, found, body = answer.partition(b"\r\n\r\n")
    lengths = [
        int(line.split(b":")[1])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    ]
    return bool(found) and bool(lengths) and len(body) >= lengths[0]


def status_of(answer: bytes) -> int:
    """0: no answer."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def post(path: str, body: bytes, *headers: str, length: bool = True) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: x", f"api-key: {KEY}", *headers]
    if length:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def nested(depth: int, kind: str) -> bytes:
    opened, closed = ("[", "]") if kind == "list" else ('{"$and":[', "]}")
    return b'{"filter":' + (opened * depth + closed * depth).encode() + b"}"


def bodies() -> Iterator[tuple[str, bytes]]:
    yield "nothing", b""
    yield "null", b"null"
    yield "a number", b"1"
    yield "NaN", b'{"vector":[NaN,1,2],"topK":1}'
    yield "Infinity", b'{"vector":[Infinity,1,2],"topK":1}'
    yield "numbers beyond doubles", b'{"vector":[1e400,-1e400,1],"topK":1}'
    yield "numbers beyond floats", b'{"vector":[1e300,1,1],"topK":1}'
    yield "a whole number of 5000 digits", b'{"topK":' + b"9" * 5000 + b',"vector":[1,2,3]}'
    yield "a fraction of 5000 digits", b'{"topK":1,"vector":[0.' + b"1" * 5000 + b",2,3]}"
    yield "negative zero", b'{"topK":1,"vector":[-0,-0.0,1]}'
    yield "a depth of 100,000 lists", nested(100_000, "list")
    yield "a depth of 20,000 conditions", nested(20_000, "and")
    yield "keys twice", b'{"topK":1,"topK":2,"vector":[1,2,3],"vector":[3,2,1]}'
    yield "UTF-16", '{"topK":1}'.encode("utf-16")
    yield "UTF-8 with a mark", b"\xef\xbb\xbf" + b'{"topK":1,"vector":[1,2,3]}'
    yield "broken UTF-8", b'{"id":"\xff\xfe","topK":1}'
    yield "half a pair", b'{"id":"\\ud800","topK":1,"namespace":"\\udfff"}'
    yield "NUL", b'{"id":"\\u0000","topK":1,"namespace":"a\\u0000b","name":"\\u0000"}'
    yield "cut off", b'{"topK":1,"vector":[1,2'
    yield "more behind", b'{"topK":1,"vector":[1,2,3]} {"topK":1}'
    yield "wrong types", b'{"vectors":{"id":1},"topK":"a","ids":3,"filter":[],"name":{},"query":[]}'
    yield "nulls", b'{"vectors":[null],"ids":[null],"filter":null,"query":null,"name":null}'
    yield "a million brackets", b"[" * 1_000_000
    yield "a wide object", json.dumps({f"k{n}": n for n in range(50_000)}).encode()
    yield "a wide filter", json.dumps({"filter": {"$or": [{"a": n} for n in range(5000)]}}).encode()
    yield "a large text", json.dumps({"namespace": "x" * 1_000_000, "uri": "y" * 500_000}).encode()
    yield "lines", b'{"_id":"a"}\n\n{"_id":1}\n[]\n{"_id":"\xff"}\nnull'
    yield "gzip", gzip.compress(b'{"topK":1,"vector":[1,2,3]}')
    yield "a gzip bomb", gzip.compress(b" " * (64 * MIB))


@pytest.mark.parametrize(("name", "body"), [pytest.param(*b, id=b[0]) for b in bodies()])
def test_no_body_is_too_strange_for_an_answer(target: Target, name: str, body: bytes) -> None:
    encoding = ["content-encoding: gzip"] if "gzip" in name else []
    for n, path in enumerate(PATHS):
        kind = ("application/json", "application/x-ndjson", "text/plain; charset=utf-16")[n % 3]
        headers = [f"content-type: {kind}", "connection: close", *encoding]
        status = status_of(exchange(target, post(path, body, *headers)))
        assert 200 <= status < 500 or status == 501, f"{path} {kind}: {status}"
    target.check_alive()


def heads() -> Iterator[tuple[str, bytes]]:
    json_body = b'{"topK":1,"vector":[1,2,3]}'
    yield "nothing but a newline", b"\r\n" * 1000
    yield "no protocol", b"GET /healthz\r\n\r\n"
    yield "protocol 9", b"GET / HTTP/9.9\r\n\r\n"
    yield "TLS", bytes.fromhex("160301020001000001fc0303") + b"\0" * 500
    yield "HTTP/2 cut off", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 500
    yield "a method of 1 MB", b"A" * MIB + b" / HTTP/1.1\r\n\r\n"
    yield "a path of 1 MB", b"GET /" + b"a" * MIB + b" HTTP/1.1\r\n\r\n"
    yield "a header of 1 MB", b"GET / HTTP/1.1\r\nx: " + b"a" * MIB + b"\r\n\r\n"
    yield "100,000 headers", b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 100_000 + b"\r\n"
    yield "a header without a name", b"GET / HTTP/1.1\r\n: y\r\n\r\n"
    yield "a header with NUL", b"GET / HTTP/1.1\r\nx: \0\r\n\r\n"
    yield "folded headers", b"GET / HTTP/1.1\r\nx: a\r\n  b\r\n\r\n"
    yield "bare newlines", b"GET /healthz HTTP/1.1\nhost: x\n\n"
    yield "bytes in the path", b"GET /\xff\xfe\x80 HTTP/1.1\r\nhost: x\r\n\r\n"
    yield "broken escapes", b"GET /namespaces/%zz%f%00%ff?ids=%ff&x=%%% HTTP/1.1\r\nhost: x\r\n\r\n"
    yield "an absolute address", b"GET http://elsewhere/healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    yield "an asterisk", b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n"
    yield "CONNECT", b"CONNECT elsewhere:443 HTTP/1.1\r\nhost: elsewhere\r\n\r\n"
    yield "an upgrade", b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n"
    yield (
        "a websocket",
        (
            b"GET /query HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-version: 13\r\n\r\n"
        ),
    )
    yield "a negative length", post("/query", b"", "content-length: -1", length=False)
    yield "an endless length", post("/query", b"", "content-length: " + "9" * 400, length=False)
    yield "two lengths", post("/query", json_body, "content-length: 5")
    yield "length and chunks", post("/query", b"0\r\n\r\n", "transfer-encoding: chunked")
    yield "no length", post("/query", json_body, length=False)
    chunked = ("transfer-encoding: chunked",)
    yield "chunks of no number", post("/query", b"zz\r\nabc\r\n0\r\n\r\n", *chunked, length=False)
    yield "a chunk of 2^64", post("/query", b"f" * 16 + b"\r\nabc", *chunked, length=False)
    yield (
        "chunks of one byte",
        post(
            "/query",
            b"".join(b"1\r\n%c\r\n" % c for c in json_body) + b"0\r\n\r\n",
            *chunked,
            length=False,
        ),
    )
    yield (
        "an extension of 1 MB",
        post("/query", b"1;" + b"x" * MIB + b"\r\na\r\n0\r\n\r\n", *chunked, length=False),
    )
    yield "expect", post("/query", json_body, "expect: 100-continue")
    yield "a key of 100 KB", b"GET /indexes HTTP/1.1\r\napi-key: " + b"k" * 100_000 + b"\r\n\r\n"
    yield "a key of bytes", b"GET /indexes HTTP/1.1\r\napi-key: \xff\x80\xc3\r\n\r\n"
    yield "a host of bytes", b"GET /indexes HTTP/1.1\r\nhost: \xff\xfe:\x80\r\napi-key: k\r\n\r\n"
    strange = (
        "x-firndb-min-lsn: \u00b2\r\nx-firndb-consistency: \u00ff\r\nx-pinecone-api-version: \u00e9"
    )
    yield "options of bytes", post("/query", json_body, strange)
    for parameters in (
        "limit=%00",
        "limit=" + "9" * 5000,
        "paginationToken=%ff",
        "ids=" + "&ids=" * 9000,
    ):
        for path in ("/vectors/list", "/vectors/fetch", "/namespaces", "/backups", "/firndb/audit"):
            line = f"GET {path}?{parameters} HTTP/1.1\r\nhost: x\r\napi-key: {KEY}\r\n\r\n"
            yield f"{path}?{parameters[:20]}", line.encode()


@pytest.mark.parametrize(("name", "data"), [pytest.param(*h, id=h[0]) for h in heads()])
def test_no_head_is_too_strange(target: Target, name: str, data: bytes) -> None:
    answer = exchange(target, data, wait_s=0.3)
    status = status_of(answer)
    assert status < 500 or status == 501, answer[:500]
    target.check_alive()


def test_requests_in_a_row_on_one_connection_are_answered_in_order(target: Target) -> None:
    good = post("/query", b'{"topK":1,"vector":[1,2,3]}')
    bad = post("/query", b'{"topK":')
    count = 50
    data = b"".join([good, bad] * count) + post("/nothing", b"", "connection: close")
    with socket.create_connection(target.address, timeout=30) as connection:
        connection.sendall(data)
        answer = b""
        while chunk := connection.recv(1 << 16):
            answer += chunk
    statuses = [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [200, 400] * count + [404]


def random_case(choose: random.Random) -> bytes:
    """A right request of which some bytes are lost, doubled or others."""
    body = json.dumps(
        choose.choice(
            [
                {"vector": [1, 2, 3], "topK": 3, "filter": {"a": {"$in": [1, "b"]}}},
                {"vectors": [{"id": "a", "values": [1, 2, 3], "metadata": {"a": [1, "b"]}}]},
                {"ids": ["a"], "namespace": "n"},
                {"id": "a", "setMetadata": {"a": 1}, "values": [3, 2, 1]},
            ]
        )
    ).encode()
    data = bytearray(post(choose.choice(PATHS), body, "connection: close"))
    for _ in range(choose.randrange(1, 6)):
        at = choose.randrange(len(data))
        match choose.randrange(4):
            case 0:
                data[at] = choose.randrange(256)
            case 1:
                del data[at : at + choose.randrange(1, 20)]
            case 2:
                data[at:at] = data[at : at + choose.randrange(1, 40)]
            case _:
                data[at:at] = choose.choice(string.punctuation).encode() * choose.randrange(1, 9)
    return bytes(data)


def mutate(target: Target, count: int, seed: int) -> None:
    choose = random.Random(seed)
    for n in range(count):
        data = random_case(choose)
        answer = exchange(target, data, wait_s=0.3)
        status = status_of(answer)
        assert status < 500 or status == 501, (n, data, answer[:500])
    target.check_alive()


def test_requests_with_broken_bytes(target: Target) -> None:
    mutate(target, 100, seed=1)


@pytest.mark.long
def test_many_requests_with_broken_bytes(target: Target) -> None:
    mutate(target, 20_000, seed=2)


def test_whoever_stops_in_the_middle_leaves_nothing_behind(target: Target) -> None:
    whole = post("/vectors/upsert", json.dumps({"vectors": [{"id": "a"}]}).encode() * 50)
    for end in range(1, len(whole), len(whole) // 40):
        with socket.create_connection(target.address, timeout=5) as connection:
            connection.sendall(whole[:end])
    held = [socket.create_connection(target.address, timeout=5) for _ in range(200)]
    for n, connection in enumerate(held):
        connection.sendall(whole[: 1 + n])
    target.check_alive()
    for connection in held:
        connection.close()
    target.check_alive()


def rounds(target: Target, count: int) -> None:
    """Every kind of refusal, large bodies among them, on connections that stay open."""
    large = json.dumps({"namespace": "x" * 1_500_000}).encode()
    cases = [
        post("/vectors/upsert", b'{"vectors":'),
        post("/vectors/upsert", b'{"vectors":[{"id":"a","values":[1,2]}]}'),
        post("/query", b'{"topK":0}'),
        post("/nothing", b"{}"),
        post("/indexes/none/backups", b"{}"),
        post("/records/namespaces/n/search", b"{}"),
        b"GET /indexes HTTP/1.1\r\nhost: x\r\napi-key: wrong\r\n\r\n",
    ]
    with socket.create_connection(target.address, timeout=60) as connection:
        for n in range(count):
            connection.sendall(large_or(cases[n % len(cases)], large, n))
            answer = b""
            while not complete(answer):
                answer += connection.recv(1 << 16)
            assert 400 <= status_of(answer) < 500, answer


def large_or(case: bytes, large: bytes, n: int) -> bytes:
    return post("/vectors/upsert", large) if n % 100 == 0 else case


@pytest.mark.parametrize("count", [pytest.param(800), pytest.param(50_000, marks=pytest.mark.long)])
def test_errors_cost_no_memory(target: Target, count: int) -> None:
    rounds(target, count // 2)
    before = target.resident_bytes()
    rounds(target, count)
    grown = target.resident_bytes() - before
    assert grown < GROWTH_BYTES_MAX, f"{grown / MIB:.0f} MiB more after {count} errors"
    target.check_alive()
