"""What every request meets: bounds, an id, JSON errors, no internals; and what machines ask."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.api.gateway import CLASSIC, KEY, OTHER_KEY, Running

QUERY = {"vector": [1, 2, 3], "topK": 1}


async def chunks(total: int) -> AsyncIterator[bytes]:
    """A body whose length is not announced."""
    for _ in range(total // 65536):
        yield b" " * 65536


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("path", ["/indexes", "/vectors/upsert"])
async def test_a_body_that_is_too_large_is_refused_and_the_client_gets_to_read_why(
    gateway: Running, path: str, announced: bool
) -> None:
    host = (await gateway.create())["host"] if path.startswith("/vectors") else ""
    size = 8 << 20
    content = b" " * size if announced else chunks(size)
    answer = await gateway.ask("POST", path, host=host, content=content)
    assert answer.status_code == 413
    assert "2097152 bytes" in answer.text
    assert (await gateway.ask("GET", "/indexes")).status_code == 200


async def test_a_body_of_just_the_limit_is_read(gateway: Running) -> None:
    answer = await gateway.ask("POST", "/indexes", content=b" " * (2 << 20))
    assert answer.status_code == 400


async def test_a_head_without_end_is_cut_off(gateway: Running) -> None:
    address = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"GET / HTTP/1.1\r\nx-long: " + b"a" * (1 << 20))
    assert (await reader.readline()).startswith(b"HTTP/1.1 400")
    writer.close()


async def test_what_is_no_http_is_told_so_as_json(gateway: Running) -> None:
    """Clients read errors from JSON, also those that come before there is a request."""
    address = gateway.url.removeprefix("http://").split(":")
    for sent, data in [
        (b"NONSENSE\r\n\r\n", False),
        (b"GET /indexes HTTP/1.1\r\nno header\r\n\r\n", False),
        (b"GET /vectors/list?x=1 HTTP/1.1\r\nno header\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nx-long: " + b"a" * (1 << 20), False),
    ]:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(sent)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert head.startswith("http/1.1 400 ")
        assert "content-type: application/json\r\n" in head
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        body = json.loads(await reader.readexactly(length))
        if data:
            assert (body["code"], body["details"]) == (3, [])
        else:
            assert (body["status"], body["error"]["code"]) == (400, "INVALID_ARGUMENT")
        writer.close()


@pytest.mark.parametrize(
    ("path", "announced"),
    [("/oauth/token", 100), ("/oauth/token", 1 << 40), ("/indexes", 1 << 40), ("/query", 1 << 40)],
)
async def test_who_has_proved_nothing_takes_no_places_by_sending_slowly(
    gateway: Running, monkeypatch: pytest.MonkeyPatch, path: str, announced: int
) -> None:
    """With some hundred connections and no key it would keep everybody out."""
    monkeypatch.setattr("api.in_flight.IN_FLIGHT_MAX", 5)
    monkeypatch.setattr("api.control.accounts.TOKENS_AT_ONCE", 2, raising=False)
    address = gateway.url.removeprefix("http://").split(":")
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {announced}\r\n\r\n{{"
    opened = [await asyncio.open_connection(*address) for _ in range(10)]
    try:
        for _, writer in opened:
            writer.write(head.encode())
        await asyncio.sleep(0.1)
        assert (await gateway.ask("GET", "/indexes")).status_code == 200
    finally:
        for _, writer in opened:
            writer.close()
    await asyncio.sleep(0.1)
    body = {"client_secret": KEY}
    assert (await gateway.ask("POST", "/oauth/token", key=None, json=body)).status_code == 200


@pytest.mark.parametrize("path", ["/indexes", "/vectors/upsert"])
async def test_a_body_that_never_ends_gives_its_place_back(
    gateway: Running, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr("api.edge.ARRIVAL_S", 0.05)
    host = ((await gateway.create())["host"]).removeprefix("http://")
    reader, writer = await asyncio.open_connection(*host.split(":"))
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\napi-key: {KEY}\r\ncontent-length: 100\r\n\r\n{{"
    writer.write(head.encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 504")
    writer.close()


@pytest.mark.parametrize("path", ["/indexes", "/vectors/upsert"])
async def test_a_client_that_goes_away_leaves_no_error_behind(
    gateway: Running, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    """A traceback for every impatient client would bury those that mean something."""
    host = ((await gateway.create())["host"]).removeprefix("http://")
    _, writer = await asyncio.open_connection(*host.split(":"))
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\napi-key: {KEY}\r\ncontent-length: 100\r\n\r\n{{"
    writer.write(head.encode())
    await writer.drain()
    await asyncio.sleep(0.05)  # the request is being read
    writer.close()
    await writer.wait_closed()
    await asyncio.sleep(0.05)
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR], caplog.text


async def test_unknown_paths_and_methods_answer_in_json(gateway: Running) -> None:
    unknown = await gateway.ask("GET", "/nothing/here")
    assert unknown.json()["error"] == {
        "code": "NOT_FOUND",
        "message": "There is nothing at /nothing/here",
    }
    assert (await gateway.ask("GET", "/vectors/nothing")).json()["code"] == 5
    wrong = await gateway.ask("PUT", "/indexes")
    assert (wrong.status_code, wrong.json()["status"]) == (405, 405)
    assert wrong.headers["allow"] == "GET, POST"
    nameless = await gateway.ask("POST", "/namespaces/a%2Fb")
    assert (nameless.status_code, nameless.headers["allow"]) == (405, "DELETE, GET")
    assert (await gateway.ask("GET", "/query")).json()["code"] == 12
    assert (await gateway.ask("GET", "/redoc")).status_code == 404


async def test_an_unforeseen_error_is_logged_with_its_traceback_and_told_without(
    gateway: Running, caplog: pytest.LogCaptureFixture
) -> None:
    host = (await gateway.create())["host"]
    gateway.memory.fail_with = RuntimeError("secret: /etc/firn/key")
    with caplog.at_level(logging.ERROR):
        answer = await gateway.ask("POST", "/query", host=host, json=QUERY)
    assert answer.status_code == 500
    assert answer.json()["code"] == 13
    assert "secret" not in answer.text
    logged = [r for r in caplog.records if r.name == "api.errors"]
    assert len(logged) == 1
    assert "secret" in str(logged[0].exc_info)
    again = await gateway.ask("POST", "/query", host=host, json=QUERY)
    assert again.status_code == 200


async def test_every_answer_has_an_id_of_its_own(gateway: Running) -> None:
    answers = [await gateway.ask("GET", path) for path in ("/indexes", "/nothing", "/healthz")]
    assert len({a.headers["x-pinecone-request-id"] for a in answers}) == 3


async def test_a_project_that_takes_too_many_places_is_told_to_slow_down_and_others_get_in(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that may have all places could keep everybody else out."""
    monkeypatch.setattr("api.in_flight.IN_FLIGHT_MAX", 5)
    host = (await gateway.create())["host"]
    arrived, release = asyncio.Semaphore(0), asyncio.Event()
    query = gateway.memory.query

    async def held(*arguments: object) -> object:
        arrived.release()
        await release.wait()
        return await query(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(gateway.memory, "query", held)
    asking = [
        asyncio.create_task(gateway.ask("POST", "/query", host=host, json=QUERY)) for _ in range(4)
    ]
    for _ in asking:
        await arrived.acquire()
    refused = await gateway.ask("POST", "/query", host=host, json=QUERY)
    assert (refused.status_code, refused.json()["code"]) == (429, 8)
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["message"].startswith("4 requests of this project are being served")
    assert (await gateway.ask("GET", "/indexes", key=OTHER_KEY)).status_code == 200
    assert (await gateway.ask("GET", "/healthz", key=None)).status_code == 200
    release.set()
    assert [a.status_code for a in await asyncio.gather(*asking)] == [200] * 4
    assert (await gateway.ask("POST", "/query", host=host, json=QUERY)).status_code == 200


async def test_readiness_tells_what_is_missing(gateway: Running) -> None:
    async def ask(path: str) -> httpx.Response:
        return await gateway.ask("GET", path, key=None)

    assert (await ask("/readyz")).status_code == 200
    gateway.not_ready.append("freshness replays partition 3")
    waiting = await ask("/readyz")
    assert waiting.status_code == 503
    assert waiting.json()["reason"] == "freshness replays partition 3"
    assert (await ask("/healthz")).status_code == 200


async def test_metrics_count_what_was_answered(gateway: Running) -> None:
    await gateway.ask("GET", "/indexes", headers=CLASSIC)
    await gateway.ask("GET", "/indexes/none")
    text = (await gateway.ask("GET", "/metrics", key=None)).text
    assert 'firndb_http_requests_total{plane="control",status="200"} 1.0' in text
    assert 'firndb_http_requests_total{plane="control",status="404"} 1.0' in text
    assert 'firndb_http_request_seconds_count{plane="control"} 2.0' in text
