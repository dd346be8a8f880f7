"""S3 as an object store: the suite against a real server, and odd answers from a scripted one."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from core.errors import ConfigError, Unavailable
from infra.objects.s3 import S3Store
from infra.services.process import free_port
from infra.services.service import Service
from tests.infra.object_store_suite import ObjectStoreSuite, keys

Open = Callable[..., S3Store]


@pytest.fixture
async def opened(s3_service: Service) -> AsyncIterator[Open]:
    """Opens stores under a prefix of this test's own; closes them."""
    settings = s3_service.settings
    bucket_there = urlsplit(settings["FIRNDB_OBJECT_STORE"]).netloc
    own = uuid4().hex
    stores: list[S3Store] = []

    def open_(
        prefix: str = own, bucket: str = bucket_there, secret_key: str | None = None
    ) -> S3Store:
        store = S3Store(
            bucket,
            prefix,
            endpoint=settings["FIRNDB_S3_ENDPOINT"],
            access_key=settings["FIRNDB_S3_ACCESS_KEY"],
            secret_key=secret_key or settings["FIRNDB_S3_SECRET_KEY"],
            region="us-east-1",
        )
        stores.append(store)
        return store

    yield open_
    for store in stores:
        await store.close()


@pytest.fixture
async def store(opened: Open) -> S3Store:
    return opened()


class TestS3Store(ObjectStoreSuite):
    pass


async def test_a_prefix_is_a_folder_of_its_own(opened: Open) -> None:
    own = uuid4().hex
    inner, outer, beside = opened(f"{own}/in"), opened(own), opened(f"{own}/i")
    await inner.put("a", b"1")
    assert await keys(inner) == ["a"]
    assert await keys(outer) == ["in/a"]
    assert await keys(beside) == []


async def test_a_wrong_secret_names_the_setting(opened: Open) -> None:
    with pytest.raises(ConfigError, match="access key"):
        await opened(secret_key="wrong").get("a")


async def test_a_missing_bucket_says_so(opened: Open) -> None:
    with pytest.raises(ConfigError, match="no such bucket"):
        await opened(bucket="not-there").put("a", b"1")


async def test_a_server_that_is_away_is_unavailable() -> None:
    store = S3Store("b", endpoint=f"http://127.0.0.1:{free_port()}", access_key="a", secret_key="b")
    with pytest.raises(Unavailable, match="does not answer"):
        await store.get("a")
    await store.close()


def answer(status: str, code: str = "", body: str = "") -> bytes:
    if code:
        body = f"<Error><Code>{code}</Code><Message>told to</Message></Error>"
    return (
        f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
    ).encode()


@asynccontextmanager
async def scripted(answers: Sequence[bytes]) -> AsyncIterator[tuple[S3Store, list[str]]]:
    """A store on a server that gives these answers, one a request; and the requests' heads."""
    heads: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if "content-length:" in head.lower():
            length = head.lower().split("content-length:")[1].split("\r\n")[0]
            await reader.readexactly(int(length))
        heads.append(head)
        writer.write(answers[len(heads) - 1])
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    store = S3Store("b", endpoint=f"http://127.0.0.1:{port}", access_key="a", secret_key="b")
    try:
        yield store, heads
    finally:
        await store.close()
        server.close()
        await server.wait_closed()


async def test_a_rival_put_under_way_is_waited_for() -> None:
    """Amazon answers 409 while the race is open: that is no loss, the put has to be sent again."""
    conflict = answer("409 Conflict", "ConditionalRequestConflict")
    async with scripted([conflict, conflict, answer("200 OK")]) as (store, heads):
        assert await store.put_if_absent("a", b"1") is True
        assert len(heads) == 3
        assert all("if-none-match: *" in head.lower() for head in heads)
    lost = answer("412 Precondition Failed", "PreconditionFailed")
    async with scripted([conflict, lost]) as (store, _):
        assert await store.put_if_absent("a", b"1") is False


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("500 Internal Server Error", "InternalError"),
        ("503 Slow Down", "SlowDown"),
        ("429 Too Many", "X"),
    ],
)
async def test_a_busy_server_is_unavailable_and_not_asked_again_here(
    status: str, code: str
) -> None:
    """A hidden repetition of a conditional put would turn our own success into a loss."""
    async with scripted([answer(status, code)] * 4) as (store, heads):
        with pytest.raises(Unavailable):
            await store.put_if_absent("a", b"1")
        with pytest.raises(Unavailable):
            await store.get("a")
        assert len(heads) == 2


async def test_an_answer_that_breaks_off_is_no_object() -> None:
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this"
    async with scripted([half, half]) as (store, _):
        with pytest.raises(Unavailable):
            await store.get("a")
        with pytest.raises(Unavailable):
            await store.get_range("a", 0, 100)
