"""Bad records: they go to the dead letters, durably, and nothing else stops."""

import asyncio

import orjson
import pytest

from builder.builder import IndexBuilder
from core.errors import Unavailable
from core.indexes import IndexInfo
from core.log import Headers
from tests.builder.world import ListLog, World, upsert

JSON: Headers = (("content-type", b"application/json"),)


async def owner(world: World) -> IndexBuilder:
    builder = world.builder()
    await builder.assign(0)
    return builder


def letters(world: World) -> list[dict[str, object]]:
    return [orjson.loads(record.value or b"") for record in world.dead_log.records]


async def produce(world: World, body: object, key: bytes = b"dense/n") -> int:
    value = body if isinstance(body, bytes) else orjson.dumps(body)
    return await world.log.append(0, key, value, JSON)


async def test_bad_records_are_dead_letters_and_the_good_ones_around_them_count(
    world: World,
) -> None:
    builder = await owner(world)
    await world.write(upsert("a"))
    bad = [
        await produce(world, b"{"),
        await produce(world, {"op": "explode"}),
        await produce(world, {"op": "upsert", "vectors": [{"id": "x", "values": [1.0]}]}),
        await produce(world, {"op": "delete", "deleteAll": True}, key=b"nowhere/n"),
        await world.log.append(0, b"dense/n", None, JSON),
        await world.log.append(0, None, b"{}", JSON),
    ]
    await world.write(upsert("b"))
    await world.feed_all(builder)
    assert [letter["offset"] for letter in letters(world)] == bad
    assert all(letter["reason"] for letter in letters(world))
    await builder.flush()
    await world.check()
    assert builder.committable(0) == await world.log.end_offset(0)


async def test_a_bad_entry_leaves_the_others_of_its_record_alone(world: World) -> None:
    builder = await owner(world)
    values = [1.0, 2.0, 3.0, 4.0]
    good = {"op": "upsert", "vectors": [{"id": "good", "values": values}]}
    short = {"op": "upsert", "vectors": [{"id": "bad", "values": [1.0]}]}
    envelope = {"v": 1, "index": "dense", "namespace": "n", "entries": [short, good]}
    await produce(world, envelope)
    await world.feed_all(builder)
    await builder.flush()
    assert [letter["position"] for letter in letters(world)] == [0]
    manifest = await world.manifest()
    assert manifest is not None
    assert manifest.record_count == 1


class AwayLog(ListLog):
    """Dead letters cannot be written for now."""

    away = True

    async def append(
        self, partition: int, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> int:
        if self.away:
            raise Unavailable("away")
        return await super().append(partition, key, value, headers)


async def test_progress_waits_for_the_dead_letter(world: World) -> None:
    """A letter that is not durable would be lost with the next checkpoint."""
    world.dead_log = dead = AwayLog()
    builder = await owner(world)
    lsn = await produce(world, b"{")
    feeding = asyncio.create_task(world.feed_all(builder))
    await asyncio.sleep(0.05)
    assert builder.applied(0) == 0
    dead.away = False
    await feeding
    assert builder.applied(0) == lsn + 1
    assert len(letters(world)) == 1


async def test_the_catalog_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that the cache does not know is not unknown while the catalog is away."""
    builder = await owner(world)
    asked = 0

    async def find(index_id: str) -> IndexInfo | None:
        nonlocal asked
        asked += 1
        if asked < 3:
            raise Unavailable("catalog")
        return world.directory.indexes.get(index_id)

    monkeypatch.setattr(world.directory, "find", find)
    await world.write(upsert("a"))
    await world.feed_all(builder)
    await builder.flush()
    assert letters(world) == []
    await world.check()
