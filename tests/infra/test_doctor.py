"""The doctor finds what is wrong; on what is right it finds nothing and leaves nothing behind."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from core.object_store import ObjectInfo, ObjectStore
from infra.doctor import check_log, check_store, healthy, probe_put_if_absent
from infra.logs.kafka import KafkaLog
from infra.logs.kafka_topics import TopicSpec, create_topics
from infra.logs.sqlite import SqliteLog
from infra.objects.faulty import Fault, FaultyStore
from infra.objects.local import LocalStore
from infra.objects.open import open_store
from infra.services.service import Service
from tests.infra.object_store_suite import keys


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalStore]:
    opened = LocalStore(tmp_path / "objects")
    yield opened
    await opened.close()


class CheckThenPut(LocalStore):
    """What a server does that emulates the condition: it looks, then it writes."""

    async def put_if_absent(self, key: str, data: bytes) -> bool:
        if await self.stat(key) is not None:
            return False
        await self.put(key, data)
        return True


class FolderByFolder(LocalStore):
    """Lists folders where their bare names sort."""

    async def list(self, prefix: str, *, start_after: str = "") -> AsyncIterator[ObjectInfo]:
        found = [info async for info in super().list(prefix, start_after=start_after)]
        for info in sorted(found, key=lambda info: info.key.split("/")):
            yield info


async def test_a_good_folder_passes_and_is_left_empty(store: LocalStore) -> None:
    checks = await check_store(store)
    assert healthy(checks)
    assert [check.name for check in checks if check.took_ms is not None] == [
        "object store: put",
        "object store: get",
    ]
    assert await keys(store) == []


async def test_a_condition_that_is_only_emulated_is_found(tmp_path: Path) -> None:
    store = CheckThenPut(tmp_path / "objects")
    report = await probe_put_if_absent(store)
    assert not report.atomic
    assert max(report.winners) > 1
    checks = await check_store(store)
    assert [check.name for check in checks if not check.ok] == [
        "object store: put-if-absent is atomic"
    ]
    assert await keys(store) == []
    await store.close()


async def test_a_wrong_order_of_listing_is_found(tmp_path: Path) -> None:
    store = FolderByFolder(tmp_path / "objects")
    checks = await check_store(store)
    assert [check.name for check in checks if not check.ok] == ["object store: list"]
    await store.close()


async def test_a_store_that_fails_is_told_in_one_line(store: LocalStore) -> None:
    faulty = FaultyStore(store)
    faulty.inject(Fault(verbs=("get",), for_good=True))
    (*_, last) = await check_store(faulty)
    assert not last.ok
    assert "injected" in last.detail
    assert "\n" not in last.detail


async def test_the_real_s3_server_passes(s3_service: Service) -> None:
    settings = s3_service.settings
    bucket = urlsplit(settings["FIRNDB_OBJECT_STORE"]).netloc
    store: ObjectStore = open_store(
        f"s3://{bucket}/doctors",
        s3_endpoint=settings["FIRNDB_S3_ENDPOINT"],
        s3_access_key=settings["FIRNDB_S3_ACCESS_KEY"],
        s3_secret_key=settings["FIRNDB_S3_SECRET_KEY"],
        region="us-east-1",
    )
    checks = await check_store(store)
    assert healthy(checks), checks
    assert await keys(store) == []
    await store.close()


async def test_a_sqlite_log_passes(tmp_path: Path) -> None:
    log = await SqliteLog.open(tmp_path / "log.db", "doctor", 1)
    checks = await check_log(log)
    assert healthy(checks), checks
    assert await log.start_offset(0) == await log.end_offset(0)
    await log.close()
    checks = await check_log(log)
    assert not healthy(checks)
    assert checks[0].detail


async def test_a_kafka_log_passes(kafka_service: Service) -> None:
    bootstrap = kafka_service.settings["FIRNDB_KAFKA"]
    await create_topics(bootstrap, [TopicSpec("firn.doctor", 1)])
    log = KafkaLog(bootstrap, "firn.doctor")
    checks = await check_log(log)
    assert healthy(checks), checks
    await asyncio.wait_for(log.close(), 30)
