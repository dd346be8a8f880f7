"""Producers that write straight to the Kafka topic, well and badly.

At stake: the topic is open to programs that FirnDB does not control. What is right must become
searchable, what is wrong must be kept with a reason where a person finds it, and no bad message may
stop its partition or touch its neighbours.
"""

import asyncio
import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from confluent_kafka import Producer

from tests.e2e.commands import told
from tests.e2e.deployments import distributed
from tests.e2e.ledger import answered
from tests.e2e.processes import KEY
from tests.e2e.topics import read_all, topic

JSON = {"content-type": "application/json"}
MSGPACK = {"content-type": "application/msgpack"}
DIMENSION = 3
NAMESPACES = [f"films{n}" for n in range(8)]  # on several partitions
LOOKS_MAX = 100
LOOK_S = 0.3


@dataclass
class Topic:
    """A stranger's producer, and where the index is."""

    services: Mapping[str, str]
    index_id: str
    host: str
    producer: Producer
    sent: dict[str, tuple[int, int]] = field(default_factory=dict)

    def send(
        self,
        name: str,
        value: bytes | None,
        headers: Mapping[str, str],
        key: str | bytes | None = None,
        partition: int = -1,
    ) -> None:
        """Acknowledged by the broker when it returns; `sent[name]` is (partition, offset)."""

        def delivered(error: object, message: Any) -> None:
            assert error is None, f"{name}: {error}"
            self.sent[name] = (message.partition(), message.offset())

        more: Any = {} if partition < 0 else {"partition": partition}
        self.producer.produce(
            topic(self.services, "wal"),
            key=key,
            value=value,
            headers=list(headers.items()),
            on_delivery=delivered,
            **more,
        )
        assert self.producer.flush(30) == 0

    def key(self, namespace: str) -> str:
        return f"{self.index_id}/{namespace}"


@pytest.fixture(scope="module")
def stranger(
    tmp_path_factory: pytest.TempPathFactory, service_settings: Mapping[str, str]
) -> Iterator[Topic]:
    folder: Path = tmp_path_factory.mktemp("producers")
    with distributed(folder, service_settings) as deployment:
        host = deployment.create_index("direct", DIMENSION, "dotproduct")
        environment = {**service_settings, "FIRNDB_DATA": str(folder / "command")}
        (row,) = told("indexes", environment=environment)
        producer = Producer(
            {
                "bootstrap.servers": service_settings["FIRNDB_KAFKA"],
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "acks": "all",
                "message.max.bytes": 8 << 20,
            }
        )
        yield Topic(service_settings, row["index_id"], host, producer)


def packed(numbers: list[float]) -> bytes:
    return np.array(numbers, dtype="<f4").tobytes()


def upsert(*vectors: dict[str, Any]) -> dict[str, Any]:
    return {"op": "upsert", "vectors": list(vectors)}


def vector(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "values": [1.0, 2.0, 3.0], **more}


async def search(host: str, namespace: str) -> dict[str, Any]:
    body = {
        "vector": [1.0, 0.0, 0.0],
        "topK": 100,
        "namespace": namespace,
        "includeMetadata": True,
        "includeValues": True,
    }
    async with httpx.AsyncClient(base_url=host, headers={"Api-Key": KEY}, timeout=60) as client:
        matches = (await answered(client, "POST", "/query", json=body))["matches"]
    return {m["id"]: m for m in matches}


def test_good_messages_of_every_form_are_searchable(stranger: Topic) -> None:
    for namespace in NAMESPACES:
        key = stranger.key(namespace)
        entry = upsert(
            vector("json", metadata={"year": 1979, "genres": ["drama"]}),
            {"id": "base64", "values": base64.b64encode(packed([4, 5, 6])).decode()},
        )
        stranger.send("json", json.dumps(entry).encode(), JSON, key)
        stranger.send("no header", json.dumps(upsert(vector("plain"))).encode(), {}, key)
        envelope = {
            "v": 1,
            "index": stranger.index_id,
            "namespace": namespace,
            "entries": [
                upsert({"id": "msgpack", "values": packed([7, 8, 9])}, vector("gone")),
                {"op": "delete", "ids": ["gone", "never-there"]},
                {"op": "update", "id": "msgpack", "setMetadata": {"seen": True}},
            ],
        }
        stranger.send("msgpack", msgspec.msgpack.encode(envelope), MSGPACK, key)
        sparse = {"sparseValues": {"indices": [17, 4711], "values": [0.5, 1.5]}}
        stranger.send(
            "sparse", msgspec.msgpack.encode(upsert(vector("hybrid", **sparse))), MSGPACK, key
        )
    for namespace in NAMESPACES:
        found = asyncio.run(search(stranger.host, namespace))
        assert set(found) == {"json", "base64", "plain", "msgpack", "hybrid"}
        assert found["json"]["metadata"] == {"year": 1979, "genres": ["drama"]}
        assert found["base64"]["values"] == [4, 5, 6]
        assert found["msgpack"]["values"] == [7, 8, 9]
        assert found["msgpack"]["metadata"] == {"seen": True}
        assert found["msgpack"]["score"] == 7
    partitions = {p for p, _ in stranger.sent.values()}
    assert partitions, "nothing was sent"


def wrong_messages(stranger: Topic) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name -> (the reason code that is due, how to send it)."""
    key = stranger.key("films0")
    good = json.dumps(upsert(vector("poison"))).encode()
    huge = "x" * (7 << 20)

    def body(what: Any) -> bytes:
        return json.dumps(what).encode()

    return {
        "null": ("null_value", {"value": None, "headers": {}, "key": key}),
        "oversize": (
            "oversize",
            {"value": body(upsert(vector("poison", metadata={"t": huge}))), "headers": JSON,
             "key": key},
        ),
        "no key": ("bad_key", {"value": good, "headers": JSON, "key": None, "partition": 0}),
        "half a key": ("bad_key", {"value": good, "headers": JSON, "key": stranger.index_id}),
        "wrong partition": (
            "wrong_partition",
            {"value": good, "headers": JSON, "key": key, "partition": -2},
        ),
        "another format": (
            "unknown_format",
            {"value": good, "headers": {"content-type": "application/avro"}, "key": key},
        ),
        "version 2": (
            "unknown_version",
            {"value": body({"v": 2, **upsert(vector("poison"))}), "headers": JSON, "key": key},
        ),
        "not json": ("bad_body", {"value": b'{"op": "upsert", ', "headers": JSON, "key": key}),
        "not msgpack": ("bad_body", {"value": b"\xc1\xff\x00", "headers": MSGPACK, "key": key}),
        "misspelt field": (
            "bad_body",
            {"value": body({"op": "upsert", "vektors": []}), "headers": JSON, "key": key},
        ),
        "another index inside": (
            "key_mismatch",
            {"value": body({**upsert(vector("poison")), "index": "else"}), "headers": JSON,
             "key": key},
        ),
        "index unknown": (
            "unknown_index",
            {"value": good, "headers": JSON, "key": "no-such-index/films0"},
        ),
        "dimension": (
            "wrong_dimension",
            {"value": body(upsert({"id": "poison", "values": [1.0]})), "headers": JSON,
             "key": key},
        ),
        "nested metadata": (
            "invalid_record",
            {"value": body(upsert(vector("poison", metadata={"a": {"b": 1}}))), "headers": JSON,
             "key": key},
        ),
    }  # fmt: skip


def test_bad_messages_are_kept_with_their_reason_and_stop_nothing(stranger: Topic) -> None:
    wrong = wrong_messages(stranger)
    partitions = int(stranger.services["FIRNDB_KAFKA_PARTITIONS"])
    stranger.send("first", json.dumps(upsert(vector("first"))).encode(), JSON,
                  stranger.key("films0"))  # fmt: skip
    right = stranger.sent["first"][0]
    for name, (_, how) in wrong.items():
        if how.get("partition") == -2:
            how = {**how, "partition": (right + 1) % partitions}
        stranger.send(name, **how)
    # one bad entry leaves the others of its record alone
    half = {
        "v": 1,
        "index": stranger.index_id,
        "namespace": "films0",
        "entries": [upsert(vector("kept")), upsert({"id": "poison", "values": [1.0, 2.0]})],
    }
    stranger.send("half", json.dumps(half).encode(), JSON, stranger.key("films0"))
    expected = {stranger.sent[name]: reason for name, (reason, _) in wrong.items()}
    expected[stranger.sent["half"]] = "wrong_dimension"

    letters = asyncio.run(dead_letters(stranger, expected))
    for place, reason in expected.items():
        letter = letters[place]
        assert letter["reason"] == reason, letter["text"]
        assert len(letter["text"]) > 20, "a sentence for a person"
    assert letters[stranger.sent["half"]]["position"] == 1
    assert letters[stranger.sent["oversize"]]["valueCut"]
    kept = base64.b64decode(letters[stranger.sent["not json"]]["value"])
    assert kept == b'{"op": "upsert", '

    # every partition goes on
    for namespace in NAMESPACES:
        message = json.dumps(upsert(vector("after"))).encode()
        stranger.send("after", message, JSON, stranger.key(namespace))
        found = asyncio.run(search(stranger.host, namespace))
        assert "after" in found
        assert "poison" not in found
    assert {"first", "kept"} <= set(asyncio.run(search(stranger.host, "films0")))


async def dead_letters(
    stranger: Topic, expected: Mapping[tuple[int, int], str]
) -> dict[tuple[int, int], dict[str, Any]]:
    """By the place of the bad message; waits until there is one for each."""
    letters: dict[tuple[int, int], dict[str, Any]] = {}
    for _ in range(LOOKS_MAX):
        for message in await asyncio.to_thread(read_all, stranger.services, "dead"):
            letter = json.loads(message.value() or b"")
            headers = dict(message.headers() or [])
            assert headers["firn-reason"] == letter["reason"].encode()
            letters[letter["partition"], letter["offset"]] = letter
        if expected.keys() <= letters.keys():
            return letters
        await asyncio.sleep(LOOK_S)
    missing = [reason for place, reason in expected.items() if place not in letters]
    raise AssertionError(f"no dead letter for {missing}")
