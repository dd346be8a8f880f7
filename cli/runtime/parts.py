"""From settings to the adapters behind the ports: the one place that knows the deployment."""

import asyncio
import importlib.metadata
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from core.clock import Clock, SystemClock
from core.errors import ConfigError, FirnError, Unavailable
from core.feed import ManifestFeed
from core.log import Log
from core.object_store import ObjectStore
from infra.catalog.callers import Callers
from infra.catalog.catalog import Catalog
from infra.catalog.directory import CatalogDirectory
from infra.catalog.model import LogEpoch
from infra.catalog.quotas import Quotas
from infra.feed.local import LocalFeed
from infra.logs.sqlite import LogFile, SqliteLog
from infra.objects.counting import CountingStore
from infra.objects.open import open_store
from infra.objects.retrying import RetryingStore
from infra.settings import Settings
from infra.telemetry import Metrics
from storage.file_cache import FileCache
from storage.layout import kind_of

if TYPE_CHECKING:
    from infra.logs.kafka_topics import TopicSpec

# A dead letter wraps a record of up to 7 MiB; the rest is room for its frame.
TOPIC_RECORD_BYTES_MAX = 9 << 20


# What a broker or an object store gets for its first answer: a person waits for it.
ANSWER_S = 10.0


@dataclass(frozen=True, slots=True)
class Parts:
    """The opened adapters of one process. `store` retries, and counts every request it makes.
    caches: those that are open now.
    """

    settings: Settings
    clock: Clock
    metrics: Metrics
    store: ObjectStore
    counts: CountingStore
    wal: Log
    dead: Log
    feed: ManifestFeed
    catalog: Catalog
    callers: Callers
    directory: CatalogDirectory
    epoch: LogEpoch
    caches: list[FileCache] = field(default_factory=list)

    @property
    def partitions(self) -> int:
        return self.epoch.partitions


@asynccontextmanager
async def open_parts(settings: Settings) -> AsyncIterator[Parts]:
    """Open everything, close it in reverse order. `ConfigError` names what cannot be reached."""
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        catalog = Catalog.open(settings.catalog_url, clock, Quotas.of(settings))
        stack.push_async_callback(catalog.close)
        counts = CountingStore(_bare_store(settings), kind_of)
        store = RetryingStore(counts)
        stack.push_async_callback(store.close)
        await _check_store(settings, counts)
        if settings.kafka is None:
            wal, dead, feed = await _embedded_logs(settings, stack)
        else:
            wal, dead, feed = await _kafka_logs(settings, settings.kafka, stack)
        yield Parts(
            settings=settings,
            clock=clock,
            metrics=Metrics(),
            store=store,
            counts=counts,
            wal=wal,
            dead=dead,
            feed=feed,
            catalog=catalog,
            callers=Callers(catalog, clock),
            directory=CatalogDirectory(catalog, clock),
            epoch=await catalog.register_log(await wal.identity()),
        )


async def check_reachable(settings: Settings) -> None:
    """Everything is opened once, topics and tables are made; `ConfigError` as `open_parts`."""
    async with open_parts(settings):
        pass


def check_deployment(settings: Settings) -> None:
    """`ConfigError` if Kafka is set without the object store that the roles share."""
    if settings.kafka is None:
        return
    for package in ("confluent-kafka", "faust-streaming", "aiohttp", "cramjam"):
        try:
            importlib.metadata.distribution(package)
        except importlib.metadata.PackageNotFoundError as error:
            raise ConfigError(
                f"FIRNDB_KAFKA is set but {package} is not installed: pip install 'firndb[kafka]'"
            ) from error
    if settings.object_store is None:
        raise ConfigError(
            "FIRNDB_KAFKA is set but FIRNDB_OBJECT_STORE is not: the roles share one object store, "
            "set it to s3://bucket/prefix"
        )


def _bare_store(settings: Settings) -> ObjectStore:
    secret = settings.s3_secret_key
    try:
        return open_store(
            settings.object_store_url,
            s3_endpoint=settings.s3_endpoint,
            s3_access_key=settings.s3_access_key,
            s3_secret_key=secret.get_secret_value() if secret is not None else None,
            region=settings.s3_region,
        )
    except ConfigError as error:
        raise ConfigError(f"FIRNDB_OBJECT_STORE: {error}") from error


async def _check_store(settings: Settings, store: ObjectStore) -> None:
    """Lists once, so that wrong credentials end the start and not the first flush."""
    try:
        async with asyncio.timeout(ANSWER_S):
            await anext(aiter(store.list("registry/")), None)
    except FirnError as error:
        raise ConfigError(f"FIRNDB_OBJECT_STORE: {error}; see FIRNDB_S3_* as well") from error
    except TimeoutError as error:
        raise ConfigError(
            f"FIRNDB_OBJECT_STORE={settings.object_store_url} does not answer; "
            "see FIRNDB_S3_ENDPOINT as well"
        ) from error


async def _embedded_logs(
    settings: Settings, stack: AsyncExitStack
) -> tuple[Log, Log, ManifestFeed]:
    file = await LogFile.open(settings.data / "log.db")
    stack.push_async_callback(file.close)
    wal = await SqliteLog.open(file, settings.wal_topic, settings.partitions)
    stack.push_async_callback(wal.close)
    dead = await SqliteLog.open(file, settings.dead_letters_topic, 1)
    stack.push_async_callback(dead.close)
    feed = LocalFeed()
    stack.push_async_callback(feed.close)
    return wal, dead, feed


async def _kafka_logs(
    settings: Settings, bootstrap: str, stack: AsyncExitStack
) -> tuple[Log, Log, ManifestFeed]:
    from infra.feed.over_log import LogFeed
    from infra.logs.kafka import KafkaLog
    from infra.logs.kafka_topics import create_topics

    try:
        await create_topics(bootstrap, topics(settings), timeout_s=ANSWER_S)
    except Unavailable as error:
        raise ConfigError(f"FIRNDB_KAFKA={bootstrap} does not answer: {error}") from error
    wal = KafkaLog(bootstrap, settings.wal_topic)
    stack.push_async_callback(wal.close)
    dead = KafkaLog(bootstrap, settings.dead_letters_topic)
    stack.push_async_callback(dead.close)
    feed = LogFeed(KafkaLog(bootstrap, settings.manifests_topic))
    stack.push_async_callback(feed.close)
    await feed.start()
    return wal, dead, feed


def topics(settings: Settings) -> "list[TopicSpec]":
    """The four topics as FirnDB makes them; those that exist stay as they are."""
    from infra.logs.kafka_topics import KEEP_ALL, KEEP_NEWEST_OF_KEY, TopicSpec

    large = {"max.message.bytes": str(TOPIC_RECORD_BYTES_MAX)}
    copies = settings.kafka_replication
    return [
        TopicSpec(settings.wal_topic, settings.kafka_partitions, {**KEEP_ALL, **large}, copies),
        TopicSpec(settings.dead_letters_topic, 1, {**KEEP_ALL, **large}, copies),
        TopicSpec(settings.manifests_topic, 1, KEEP_NEWEST_OF_KEY, copies),
        TopicSpec(settings.owners_topic, 1, KEEP_NEWEST_OF_KEY, copies),
    ]
