"""The Kafka log on a real broker, and what only it shows: crashes of the broker, transactions."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from uuid import uuid4

import pytest
from confluent_kafka import Producer

from core.errors import ConfigError, InvalidRequest, Overloaded, TooLarge, Unavailable
from core.log import LogRecord
from infra.logs import kafka, kafka_producer, kafka_topics
from infra.logs.coalesced import Coalesced
from infra.logs.kafka import KafkaLog
from infra.logs.kafka_topics import KEEP_ALL, KEEP_NEWEST_OF_KEY, TopicSpec, create_topics
from infra.services.process import free_port
from infra.services.service import Service
from tests.infra.log_suite import PARTITIONS, LogSuite, read_all, values

SETTINGS = {**KEEP_ALL, "max.message.bytes": str(9 << 20)}


def bootstrap_of(service: Service) -> str:
    return service.settings["FIRNDB_KAFKA"]


@pytest.fixture
async def topic(kafka_service: Service) -> str:
    name = f"log-{uuid4().hex}"
    await create_topics(bootstrap_of(kafka_service), [TopicSpec(name, PARTITIONS, SETTINGS)])
    return name


@pytest.fixture
async def log(kafka_service: Service, topic: str) -> AsyncIterator[KafkaLog]:
    opened = KafkaLog(bootstrap_of(kafka_service), topic)
    yield opened
    await opened.close()


class TestKafkaLog(LogSuite):
    pass


class TestTopics:
    async def test_making_them_again_changes_nothing(
        self, kafka_service: Service, topic: str, log: KafkaLog
    ) -> None:
        identity = await log.identity()
        await create_topics(bootstrap_of(kafka_service), [TopicSpec(topic, PARTITIONS)])
        assert await log.identity() == identity

    async def test_another_partition_count_is_refused(
        self, kafka_service: Service, topic: str
    ) -> None:
        with pytest.raises(ConfigError, match="has 4 partitions, not 5"):
            await create_topics(bootstrap_of(kafka_service), [TopicSpec(topic, 5)])

    async def test_a_topic_that_is_not_there_says_so(self, kafka_service: Service) -> None:
        log = KafkaLog(bootstrap_of(kafka_service), "never-made", append_timeout_s=2)
        with pytest.raises(ConfigError, match="no such topic"):
            await log.identity()
        with pytest.raises(Unavailable):
            await log.append(0, None, b"x")
        await log.close()

    async def test_a_topic_with_a_lower_limit_names_it(self, kafka_service: Service) -> None:
        name = f"log-{uuid4().hex}"
        small = {**KEEP_ALL, "max.message.bytes": "10000"}
        await create_topics(bootstrap_of(kafka_service), [TopicSpec(name, 1, small)])
        log = KafkaLog(bootstrap_of(kafka_service), name)
        with pytest.raises(TooLarge, match=r"max\.message\.bytes"):
            await log.append(0, None, os.urandom(60_000))
        assert await log.append(0, None, b"fits") == 0
        await log.close()


async def test_a_compacted_topic_refuses_a_record_without_a_key(kafka_service: Service) -> None:
    name = f"log-{uuid4().hex}"
    await create_topics(bootstrap_of(kafka_service), [TopicSpec(name, 1, KEEP_NEWEST_OF_KEY)])
    log = KafkaLog(bootstrap_of(kafka_service), name)
    with pytest.raises(InvalidRequest, match="wants a key"):
        await log.append(0, None, b"x")
    await log.close()


async def until_end(log: KafkaLog, partition: int, end: int) -> None:
    """The mark of a transaction is written after the producer was told that it is decided."""
    async with asyncio.timeout(30):
        while await log.end_offset(partition) < end:  # noqa: ASYNC110 - only the broker knows
            await asyncio.sleep(0.01)
    assert await log.end_offset(partition) == end


async def transactional(bootstrap: str, work: Callable[[Producer], None], *, commit: bool) -> None:
    producer = Producer(
        {"bootstrap.servers": bootstrap, "transactional.id": uuid4().hex, "log_level": 0}
    )

    def run() -> None:
        producer.init_transactions(30)
        producer.begin_transaction()
        work(producer)
        producer.flush(30)
        if commit:
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)

    await asyncio.to_thread(run)


class TestForeignTransactions:
    """Others may write with transactions: their marks take offsets, what they abort must not be
    seen.
    """

    async def test_aborted_records_are_neither_read_nor_waited_for(
        self, kafka_service: Service, topic: str, log: KafkaLog
    ) -> None:
        def produce(producer: Producer) -> None:
            for n in range(3):
                producer.produce(topic, f"foreign {n}", partition=0)

        await log.append(0, None, b"before")
        await transactional(bootstrap_of(kafka_service), produce, commit=False)
        await until_end(log, 0, 1 + 3 + 1)  # one record, three aborted ones, one mark
        assert values(await log.read(0, 0)) == [b"before"]
        assert await log.read(0, 1) == []
        assert await log.read(0, 1) == []
        await transactional(bootstrap_of(kafka_service), produce, commit=True)
        await until_end(log, 0, 5 + 3 + 1)
        found = await log.read(0, 1)
        assert values(found) == [b"foreign 0", b"foreign 1", b"foreign 2"]
        assert found[0].offset == 5
        await log.append(0, None, b"after")
        assert values(await log.read(0, found[-1].offset + 1)) == [b"after"]

    async def test_the_end_is_before_what_is_not_decided(
        self, kafka_service: Service, topic: str, log: KafkaLog
    ) -> None:
        """A query that waits for an open transaction's offset would wait for ever."""
        ends: list[int] = []
        loop = asyncio.get_running_loop()

        def produce(producer: Producer) -> None:
            producer.produce(topic, "undecided", partition=1)
            producer.flush(30)
            ends.append(asyncio.run_coroutine_threadsafe(log.end_offset(1), loop).result(30))

        await transactional(bootstrap_of(kafka_service), produce, commit=True)
        assert ends == [0]
        await until_end(log, 1, 2)


class TestProducer:
    async def test_a_broken_producer_is_replaced(self, log: KafkaLog) -> None:
        """A fatal error of an idempotent producer is for good: only a new one can write again."""
        assert await log.append(0, None, b"1") == 0
        broken = log._producer._session
        broken.broken = True
        assert await log.append(0, None, b"2") == 1
        assert log._producer._session is not broken
        assert values(await read_all(log, 0)) == [b"1", b"2"]

    async def test_a_full_queue_asks_to_slow_down(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kafka_producer, "QUEUE_RECORDS_MAX", 5)
        log = KafkaLog(f"127.0.0.1:{free_port()}", "topic", append_timeout_s=1)
        results = await asyncio.gather(
            *(log.append(0, None, b"x") for _ in range(8)), return_exceptions=True
        )
        assert [type(result) for result in results] == [Unavailable] * 5 + [Overloaded] * 3
        await log.close()


class TestBrokerAway:
    async def test_no_broker_is_unavailable_within_the_deadline(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in (kafka, kafka_topics):
            monkeypatch.setattr(module, "REQUEST_TIMEOUT_S", 1.0)
        log = KafkaLog(f"127.0.0.1:{free_port()}", "topic", append_timeout_s=1)
        questions: list[Callable[[], Awaitable[object]]] = [
            lambda: log.append(0, None, b"x"),
            lambda: log.end_offset(0),
            lambda: log.read(0, 0),
            log.identity,
        ]
        for ask in questions:
            with pytest.raises(Unavailable):
                await asyncio.wait_for(ask(), 20)
        await log.close()

    async def test_appends_through_a_killed_broker_are_all_there_once(
        self, kafka_service: Service, topic: str, log: KafkaLog
    ) -> None:
        """Killed with SIGKILL under load. Writers wait it out; nothing acknowledged is lost or
        doubled.
        """
        acknowledged: dict[tuple[int, int], bytes] = {}
        failed: set[bytes] = set()
        writing = True

        async def write(writer: int) -> None:
            n = 0
            while writing:
                body = f"{writer} {n}".encode()
                n += 1
                try:
                    lsn = await log.append(writer % PARTITIONS, None, body)
                except Unavailable:
                    failed.add(body)
                else:
                    acknowledged[writer % PARTITIONS, lsn] = body

        async def until_more(count: int) -> None:
            wanted = len(acknowledged) + count
            while len(acknowledged) < wanted:  # noqa: ASYNC110 - counts, not one event
                await asyncio.sleep(0.01)

        writers = [asyncio.create_task(write(n)) for n in range(8)]
        await until_more(500)
        for _ in range(2):
            await asyncio.to_thread(kafka_service.kill)
            await asyncio.to_thread(kafka_service.start)
            await asyncio.wait_for(until_more(500), 60)
        writing = False
        await asyncio.gather(*writers)
        there: dict[tuple[int, int], bytes | None] = {}
        for partition in range(PARTITIONS):
            for record in await read_all(log, partition):
                there[partition, record.offset] = record.value
        assert {at: there.get(at) for at in acknowledged} == acknowledged
        bodies = list(there.values())
        assert len(bodies) == len(set(bodies)), "an append was stored twice"
        assert set(bodies) - set(acknowledged.values()) <= failed

    async def test_a_reader_goes_on_after_a_restart(
        self, kafka_service: Service, log: KafkaLog
    ) -> None:
        await log.append(0, None, b"1")
        assert values(await log.read(0, 0)) == [b"1"]

        async def read_next() -> Sequence[LogRecord]:
            while True:
                try:
                    return await log.read(0, 1, wait_s=60)
                except Unavailable:
                    await asyncio.sleep(0.1)

        waiting = asyncio.create_task(read_next())
        await asyncio.to_thread(kafka_service.kill)
        await asyncio.to_thread(kafka_service.start)
        await log.append(0, None, b"2")
        assert values(await asyncio.wait_for(waiting, 60)) == [b"2"]
        assert await log.end_offset(0) == 2


class TestCoalesced:
    async def test_who_asks_at_the_same_time_shares_one_request(self) -> None:
        asked = 0

        async def ask() -> int:
            nonlocal asked
            asked += 1
            await asyncio.sleep(0.01)
            return asked

        shared = Coalesced(ask)
        assert await asyncio.gather(*(shared() for _ in range(100))) == [1] * 100
        assert await shared() == 2

    async def test_an_answer_under_way_is_too_old_for_a_new_question(self) -> None:
        """The write of the second caller came after the first request was sent."""
        end = 0
        sent = asyncio.Event()
        release = asyncio.Event()

        async def ask() -> int:
            seen = end
            sent.set()
            await release.wait()
            return seen

        shared = Coalesced(ask)
        first = asyncio.create_task(shared())
        await sent.wait()
        end = 7
        late = [asyncio.create_task(shared()) for _ in range(3)]
        await asyncio.sleep(0)
        release.set()
        assert await first == 0
        assert await asyncio.gather(*late) == [7, 7, 7]

    async def test_one_who_gives_up_leaves_the_answer_to_the_others(self) -> None:
        release = asyncio.Event()

        async def ask() -> int:
            await release.wait()
            return 1

        shared = Coalesced(ask)
        gone, stays = asyncio.create_task(shared()), asyncio.create_task(shared())
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        release.set()
        assert await stays == 1

    async def test_a_failure_is_told_to_all_and_forgotten(self) -> None:
        answers = iter((Unavailable("away"), None))

        async def ask() -> str:
            await asyncio.sleep(0)
            if (error := next(answers)) is not None:
                raise error
            return "there"

        shared = Coalesced(ask)
        told = await asyncio.gather(shared(), shared(), return_exceptions=True)
        assert [type(t) for t in told] == [Unavailable, Unavailable]
        assert await shared() == "there"
