"""The Faust driver on a real broker: order, positions, rebalances, crashes, what must end it."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from faust.transport.conductor import Conductor

from core.errors import LogMismatch
from infra.faust import ConsumerStuck, FaustSettings, run_faust_consumer
from infra.faust.loop_guard import EXIT_STUCK
from infra.faust.transport import ClientThread
from infra.services.service import Service
from tests.faust_worker import DiaryConsumer, read_diary

ROOT = Path(__file__).resolve().parent.parent
SESSION_S = 6.0  # the shortest that a broker accepts


class Kit:
    """A topic, a group and a folder of one test; workers in this process and in others."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.address = service.address
        self.folder = folder
        self.topic = f"faust.{uuid.uuid4().hex[:8]}"
        self.checkpoints = folder / "checkpoints"
        self.checkpoints.mkdir()
        self.admin = AdminClient({"bootstrap.servers": self.address})
        self.processes: list[subprocess.Popen[bytes]] = []

    def make_topic(self, partitions: int) -> None:
        new = NewTopic(self.topic, partitions, 1, config={"max.message.bytes": "8000000"})
        for future in self.admin.create_topics([new]).values():
            future.result(20)

    def produce(self, partition: int, values: list[bytes | None], **headers: bytes) -> None:
        producer = Producer(
            {"bootstrap.servers": self.address, "acks": "all", "message.max.bytes": 8_000_000}
        )
        for value in values:
            producer.produce(self.topic, value, partition=partition, headers=dict(headers))
        assert producer.flush(30) == 0

    def settings(self, name: str, **options: Any) -> FaustSettings:
        return FaustSettings(
            self.address, self.topic, f"group.{self.topic}", self.folder / name / "data",
            **{"session_timeout_s": SESSION_S, "commit_interval_s": 0.2} | options,
        )  # fmt: skip

    def consumer(self, name: str, **options: Any) -> DiaryConsumer:
        (self.folder / name).mkdir()
        return DiaryConsumer(self.folder / name / "diary", self.checkpoints, **options)

    @contextlib.asynccontextmanager
    async def running(
        self, name: str = "a", options: dict[str, Any] | None = None, **settings: Any
    ) -> AsyncIterator[asyncio.Task[None]]:
        """A worker in this process, ended with the block."""
        consumer = self.consumer(name, **options or {})
        settings = {"handle_signals": False} | settings
        task = asyncio.create_task(run_faust_consumer(consumer, self.settings(name, **settings)))
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait([task])

    def spawn(
        self, name: str, *, consumer: dict[str, Any] | None = None, **settings: Any
    ) -> subprocess.Popen[bytes]:
        """A worker in a process of its own."""
        home = self.folder / name
        home.mkdir()
        arguments = {
            "diary": str(home / "diary"),
            "checkpoints": str(self.checkpoints),
            "consumer": consumer or {},
            "settings": {
                "bootstrap": self.address,
                "topic": self.topic,
                "group": f"group.{self.topic}",
                "data_dir": str(home / "data"),
                "session_timeout_s": SESSION_S,
                **settings,
            },
        }
        with (home / "log").open("wb") as log:
            command = [sys.executable, "-m", "tests.faust_worker", json.dumps(arguments)]
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def diary(self, name: str, what: str | None = None) -> list[dict[str, Any]]:
        lines = read_diary(self.folder / name / "diary")
        return [line for line in lines if what in (None, line["what"])]

    def offsets(self, name: str, partition: int) -> list[int]:
        return [e["offset"] for e in self.diary(name, "record") if e["partition"] == partition]

    def seen(self, *names: str) -> set[tuple[int, int]]:
        return {(e["partition"], e["offset"]) for n in names for e in self.diary(n, "record")}

    def owned(self, name: str) -> set[int]:
        mine: set[int] = set()
        for line in self.diary(name):
            if line["what"] == "assign":
                mine.add(line["partition"])
            elif line["what"] == "revoke":
                mine -= set(line["partitions"])
        return mine


@pytest.fixture
def kit(kafka_service: Service, tmp_path: Path) -> Iterator[Kit]:
    made = Kit(kafka_service, tmp_path)
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.kill()
        process.wait()


async def until(holds: Callable[[], bool], timeout_s: float = 20.0) -> float:
    """Seconds until `holds()`; the test fails if it never does."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < timeout_s, "it did not come about"
        await asyncio.sleep(0.05)
    return time.monotonic() - began


async def test_the_handler_says_where_to_start_and_the_group_only_follows(kit: Kit) -> None:
    """The group's offsets are a hint for people: a wrong one neither skips nor repeats a record."""
    kit.make_topic(2)
    for partition in (0, 1):
        kit.produce(partition, [b"%d" % i for i in range(30)])
    liar = Consumer({"bootstrap.servers": kit.address, "group.id": f"group.{kit.topic}"})
    liar.commit(offsets=[TopicPartition(kit.topic, 0, 25)], asynchronous=False)
    liar.close()
    (kit.checkpoints / "0").write_text("5")
    group = f"group.{kit.topic}"

    def committed() -> set[int]:
        asked = ConsumerGroupTopicPartitions(group)
        told = kit.admin.list_consumer_group_offsets([asked])[group].result(10)
        return {tp.offset for tp in told.topic_partitions}

    async with kit.running():
        await until(lambda: len(kit.seen("a")) == 55)
        await until(lambda: committed() == {30})
    assert kit.offsets("a", 0) == list(range(5, 30))
    assert kit.offsets("a", 1) == list(range(30))


async def test_big_records_null_values_and_headers_pass_as_they_are(kit: Kit) -> None:
    kit.make_topic(1)
    big = os.urandom(3_000_000)  # above the 2 MiB that are fetched of a partition at once
    kit.produce(0, [b"small", big, None, b"", big])
    kit.produce(0, [None], kind=b"\xff", other=b"")
    async with kit.running():
        await until(lambda: len(kit.seen("a")) == 6)
    records = kit.diary("a", "record")
    assert [e["size"] for e in records] == [5, 3_000_000, 0, 0, 3_000_000, 0]
    assert [e["value"] is None for e in records] == [False, False, True, False, False, True]
    assert records[-1]["headers"] == ["kind", "other"]


async def test_only_committed_records_are_delivered(kit: Kit) -> None:
    """Aborted records and markers leave gaps in the offsets: neither a loss nor a stall."""
    kit.make_topic(1)
    producer = Producer({"bootstrap.servers": kit.address, "transactional.id": kit.topic})
    producer.init_transactions(30)

    def transact(value: bytes) -> None:
        producer.begin_transaction()
        for _ in range(10):
            producer.produce(kit.topic, value, partition=0)
        assert producer.flush(20) == 0

    for value in (b"good", b"aborted!", b"good", b"aborted!"):
        transact(value)
        producer.commit_transaction(20) if value == b"good" else producer.abort_transaction(20)
    transact(b"good")
    async with kit.running(stall_timeout_s=1.0) as task:
        await until(lambda: len(kit.seen("a")) == 20)
        await asyncio.sleep(2.0)  # the log's end is an abort marker and an open transaction
        assert len(kit.seen("a")) == 20
        assert not task.done()
        await asyncio.to_thread(producer.commit_transaction, 20)
        await until(lambda: len(kit.seen("a")) == 30)
    assert {e["size"] for e in kit.diary("a", "record")} == {4}


async def test_workers_share_partitions_and_hand_them_over_without_loss(kit: Kit) -> None:
    """One joins, one leaves in good order, one is killed: nothing is lost, what is kept goes on."""
    kit.make_topic(4)
    written = 0

    async def write(rounds: int) -> None:
        nonlocal written
        for _ in range(rounds):
            for partition in range(4):
                await asyncio.to_thread(kit.produce, partition, [b"x"])
            written += 1

    kit.spawn("a")
    await write(5)
    await until(lambda: len(kit.owned("a")) == 4)
    leaver = kit.spawn("b")
    while len(kit.owned("b")) < 2:
        await write(1)
    await until(lambda: len(kit.owned("a")) == 2)
    leaver.send_signal(signal.SIGTERM)
    assert leaver.wait(10) == 0
    assert await until(lambda: len(kit.owned("a")) == 4) < SESSION_S / 2
    victim = kit.spawn("c")
    while len(kit.owned("c")) < 2:
        await write(1)
    victim.kill()
    await write(5)
    await until(lambda: len(kit.owned("a")) == 4, timeout_s=SESSION_S + 5)
    await write(5)
    await until(lambda: len(kit.seen("a", "b", "c")) == 4 * written)
    kept = {0, 1, 2, 3} - {p for e in kit.diary("a", "revoke") for p in e["partitions"]}
    assert kept, "the group keeps some partitions where they are"
    for partition in kept:  # never revoked: every record once, in order
        assert kit.offsets("a", partition) == list(range(written))
    for name in ("a", "b", "c"):
        for partition in range(4):
            offsets = kit.offsets(name, partition)
            assert offsets == sorted(set(offsets)), "in order, and none twice at one worker"


async def test_a_slow_object_store_costs_neither_membership_nor_other_partitions(kit: Kit) -> None:
    kit.make_topic(2)
    kit.produce(0, [b"x"])
    async with kit.running(options={"assign_s": SESSION_S + 1.5}):
        await until(lambda: len(kit.seen("a")) == 1)
        kit.produce(1, [b"y"])
        await until(lambda: len(kit.seen("a")) == 2, timeout_s=2.0)
    assert len(kit.diary("a", "assign")) == 2
    assert [e["lost"] for e in kit.diary("a", "revoke")] == [False]


async def test_a_slow_partition_does_not_stop_the_others(kit: Kit) -> None:
    kit.make_topic(3)
    for partition in range(3):
        kit.produce(partition, [b"x" * 100_000] * 60)
    async with kit.running(
        options={"apply_s": 30.0, "slow_partition": 1},
        partition_bytes_max=1 << 20,
        buffer_bytes_max=2 << 20,
    ):
        await until(lambda: len(kit.seen("a")) == 120)
        assert kit.offsets("a", 1) == []


async def test_a_broker_that_crashes_and_comes_back_is_waited_for(
    kit: Kit, kafka_service: Service
) -> None:
    kit.make_topic(2)
    kit.produce(0, [b"before"])
    async with kit.running(stall_timeout_s=3.0) as task:
        await until(lambda: len(kit.seen("a")) == 1)
        await asyncio.to_thread(kafka_service.kill)
        await asyncio.sleep(4.0)  # longer than the stall timeout: an absent broker is no stall
        await asyncio.to_thread(kafka_service.start)
        await asyncio.to_thread(kit.produce, 0, [b"after"])
        await asyncio.to_thread(kit.produce, 1, [b"after"])
        await until(lambda: len(kit.seen("a")) == 3)
        assert not task.done()
    assert kit.offsets("a", 0) == [0, 1]


@pytest.mark.parametrize(("checkpoint", "trimmed"), [(3, 10), (21, 0)])
async def test_a_log_that_lacks_what_is_wanted_is_refused(
    kit: Kit, checkpoint: int, trimmed: int
) -> None:
    """Trimmed above the checkpoint, or ending below it: never start somewhere else in silence."""
    kit.make_topic(1)
    kit.produce(0, [b"x"] * 20)
    if trimmed:
        kit.admin.delete_records([TopicPartition(kit.topic, 0, trimmed)])
        await asyncio.sleep(0.5)
    (kit.checkpoints / "0").write_text(str(checkpoint))
    async with kit.running() as task:
        with pytest.raises(LogMismatch, match=str(checkpoint)):
            await asyncio.wait_for(task, 10)
    assert kit.diary("a", "record") == []


async def test_records_that_faust_drops_are_read_again(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faust has several ways to drop a fetched message; each record proves its predecessor."""
    kit.make_topic(1)
    kit.produce(0, [b"%d" % i for i in range(200)])
    build = Conductor._build_handler
    dropped = []

    def leaky(self: Conductor, tp: Any, channels: Any) -> Any:
        handler = build(self, tp, channels)

        async def on_message(message: Any) -> None:
            if message.offset % 50 == 10 and message.offset not in dropped:
                dropped.append(message.offset)
            else:
                await handler(message)

        return on_message

    monkeypatch.setattr(Conductor, "_build_handler", leaky)
    async with kit.running():
        await until(lambda: len(kit.seen("a")) == 200)
    assert dropped == [10, 60, 110, 160]
    assert kit.offsets("a", 0) == list(range(200))


async def test_a_handler_error_ends_the_worker_with_that_error(kit: Kit) -> None:
    kit.make_topic(1)
    kit.produce(0, [b"x"])
    consumer = kit.consumer("a")

    async def refuse(*_: object) -> None:
        raise ZeroDivisionError

    consumer.apply = refuse  # type: ignore
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(
            run_faust_consumer(consumer, kit.settings("a", handle_signals=False)), 15
        )
    assert kit.diary("a")[-1]["what"] == "revoke"


async def test_a_stuck_handler_ends_the_worker(kit: Kit) -> None:
    kit.make_topic(1)
    kit.produce(0, [b"x"])
    async with kit.running(options={"apply_s": 60.0}, handler_timeout_s=1.0) as task:
        with pytest.raises(ConsumerStuck, match="handler"):
            await asyncio.wait_for(task, 15)


async def test_a_transport_that_delivers_nothing_ends_the_worker(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: object, **__: object) -> dict[str, object]:
        await asyncio.sleep(0.1)
        return {}

    monkeypatch.setattr(ClientThread, "_fetch_records", nothing)
    kit.make_topic(1)
    kit.produce(0, [b"x"] * 5)
    async with kit.running(stall_timeout_s=1.5) as task:
        with pytest.raises(ConsumerStuck, match="stood still"):
            await asyncio.wait_for(task, 15)


async def test_a_missing_topic_ends_the_worker(kit: Kit) -> None:
    async with kit.running(stall_timeout_s=1.5) as task:
        with pytest.raises(LogMismatch, match="no topic"):
            await asyncio.wait_for(task, 15)


async def test_a_blocked_event_loop_ends_the_process(kit: Kit) -> None:
    """Kafka's heartbeats come from another thread: alive for the group, dead for the data."""
    kit.make_topic(1)
    kit.produce(0, [b"x"])
    process = kit.spawn("a", consumer={"block_s": 30.0}, loop_timeout_s=2.0)
    await until(lambda: process.poll() is not None)
    assert process.returncode == EXIT_STUCK
    assert "loop" in (kit.folder / "a" / "log").read_text()


async def test_it_runs_beside_an_http_server_on_the_same_loop(kit: Kit) -> None:
    kit.make_topic(1)

    async def page(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"here"})

    server = uvicorn.Server(uvicorn.Config(page, port=0, lifespan="off", log_level="error"))
    serving = asyncio.create_task(server.serve())
    async with kit.running():
        await until(lambda: server.started and bool(kit.owned("a")))
        port = server.servers[0].sockets[0].getsockname()[1]
        kit.produce(0, [b"x"])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        assert b"here" in await reader.read()
        writer.close()
        await until(lambda: len(kit.seen("a")) == 1)
    server.should_exit = True
    await serving
