"""News and owners, within a process, over SQLite and over a real broker."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from core.errors import Unavailable
from core.feed import CheckpointEvent, FeedEvent, ManifestEvent, ManifestFeed
from core.log import Log
from infra.feed import tail
from infra.feed.local import LocalFeed
from infra.feed.over_log import LogFeed
from infra.feed.owners import LogOwners
from infra.logs.kafka import KafkaLog
from infra.logs.kafka_topics import KEEP_NEWEST_OF_KEY, TopicSpec, create_topics
from infra.logs.sqlite import LogFile, SqliteLog
from infra.services.service import Service

# Opens one more client of the same topic, as another process would.
OpenLog = Callable[[], Awaitable[Log]]

EVENTS: list[FeedEvent] = [
    ManifestEvent("index-a", "nämespace/with slash", 3, 5, 7, 41, False, 1000),
    CheckpointEvent(3, 42),
    ManifestEvent("index-a", "nämespace/with slash", 3, 5, 8, 50, True, 0),
]


@pytest.fixture(params=["sqlite", "kafka"])
async def open_log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[OpenLog]:
    async with AsyncExitStack() as stack:
        if request.param == "sqlite":
            file = await LogFile.open(tmp_path / "log.db")
            stack.push_async_callback(file.close)

            async def open_() -> Log:
                return await SqliteLog.open(file, "news", 1)
        else:
            service: Service = request.getfixturevalue("kafka_service")
            bootstrap, topic = service.settings["FIRNDB_KAFKA"], f"news-{uuid4().hex}"
            await create_topics(bootstrap, [TopicSpec(topic, 1, KEEP_NEWEST_OF_KEY)])

            async def open_() -> Log:
                return KafkaLog(bootstrap, topic)

        yield open_


class Heard:
    """A listener that can be waited for."""

    def __init__(self) -> None:
        self.events: list[FeedEvent] = []
        self._changed = asyncio.Event()

    def __call__(self, event: FeedEvent) -> None:
        self.events.append(event)
        self._changed.set()

    async def until(self, count: int) -> list[FeedEvent]:
        async with asyncio.timeout(30):
            while len(self.events) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.events


async def hears_in_order(publisher: ManifestFeed, listening: ManifestFeed) -> None:
    heard, gone, failing = Heard(), Heard(), Heard()

    def fail(event: FeedEvent) -> None:
        failing(event)
        raise ZeroDivisionError

    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    unsubscribe = listening.subscribe(gone)
    listening.subscribe(fail)
    listening.subscribe(heard)
    unsubscribe()
    unsubscribe()
    for event in EVENTS:
        await publisher.publish(event)
    assert await heard.until(3) == EVENTS
    assert failing.events == EVENTS, "one listener's failure ended the news"
    assert len(told) == 3, "and must not be silent"
    assert gone.events == []


async def test_news_within_a_process() -> None:
    feed = LocalFeed()
    await hears_in_order(feed, feed)
    await feed.close()
    await feed.publish(EVENTS[0])


class TestNewsOverALog:
    async def test_another_process_hears_what_is_published_from_now_on(
        self, open_log: OpenLog
    ) -> None:
        builder, query = LogFeed(await open_log()), LogFeed(await open_log())
        await builder.publish(CheckpointEvent(0, 1))
        await query.start()
        await hears_in_order(builder, query)
        await builder.close()
        await query.close()

    async def test_what_others_write_into_the_topic_is_passed_over(
        self, open_log: OpenLog, caplog: pytest.LogCaptureFixture
    ) -> None:
        foreign, feed = await open_log(), LogFeed(await open_log())
        heard = Heard()
        feed.subscribe(heard)
        await feed.start()
        for key, value in (
            (b"", b"x"),
            (b"\xff\xfe", b"{}"),
            (b"unknown/1", b"{}"),
            (b"manifest/a/b", b"{not json"),
            (b"manifest/a/b", b'{"version": "seven"}'),
            (b"manifest/a/b", b'{"index_id": "\xff"}'),
            (b"checkpoint/1", None),
        ):
            await foreign.append(0, key, value)
        await feed.publish(EVENTS[1])
        assert await heard.until(1) == [EVENTS[1]]
        assert "cannot be read" in caplog.text
        await foreign.close()
        await feed.close()

    async def test_it_goes_on_when_the_log_was_away(
        self, open_log: OpenLog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tail, "BACKOFF_FIRST_S", 0.01)
        publisher, source = LogFeed(await open_log()), await open_log()
        read, failures = source.read, 3

        async def unsteady(*args: int, **options: float) -> object:
            nonlocal failures
            if failures:
                failures -= 1
                raise Unavailable("away")
            return await read(*args, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(source, "read", unsteady)
        feed, heard = LogFeed(source), Heard()
        feed.subscribe(heard)
        await feed.start()
        await publisher.publish(EVENTS[0])
        assert await heard.until(1) == EVENTS[:1]
        assert failures == 0
        await publisher.close()
        await feed.close()


async def until_owner(board: LogOwners, partition: int, url: str | None) -> None:
    async with asyncio.timeout(30):
        while board.owner_of(partition) != url:  # noqa: ASYNC110 - the board tells nobody
            await asyncio.sleep(0.01)


class TestOwners:
    async def test_a_partition_that_moves_is_found_again(self, open_log: OpenLog) -> None:
        first, second = LogOwners(await open_log()), LogOwners(await open_log())
        query = LogOwners(await open_log())
        for board in (first, second, query):
            await board.start()
        assert query.owner_of(5) is None
        await first.announce(5, "http://first:1")
        await first.announce(6, "http://first:1")
        await until_owner(query, 5, "http://first:1")
        await second.announce(5, "http://second:2")
        await until_owner(query, 5, "http://second:2")
        await until_owner(first, 5, "http://second:2")
        # The first one learns late that it lost the partition: that must not hide the second.
        await first.withdraw(5, "http://first:1")
        await first.withdraw(6, "http://first:1")
        await until_owner(query, 6, None)
        assert query.owner_of(5) == "http://second:2"
        for board in (first, second, query):
            await board.close()

    async def test_who_starts_late_knows_what_was_announced(self, open_log: OpenLog) -> None:
        worker = LogOwners(await open_log())
        await worker.start()
        for n in range(20):
            await worker.announce(n % 3, f"http://worker:{n}")
        await until_owner(worker, 1, "http://worker:19")
        await worker.withdraw(1, "http://worker:19")
        query = LogOwners(await open_log())
        await query.start()
        assert [query.owner_of(p) for p in range(3)] == [
            "http://worker:18",
            None,
            "http://worker:17",
        ]
        await worker.close()
        await query.close()

    async def test_what_others_write_into_the_topic_is_passed_over(self, open_log: OpenLog) -> None:
        foreign, board = await open_log(), LogOwners(await open_log())
        for key in (b"", b"x", b"9" * 5000, b"-1"):
            await foreign.append(0, key, b"http://elsewhere")
        await board.announce(7, "http://worker:7")
        await board.start()
        assert board.owner_of(7) == "http://worker:7"
        await foreign.close()
        await board.close()
