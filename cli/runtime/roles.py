"""The roles of the distributed deployment: gateway with queries, builder, freshness worker."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import APIRouter, FastAPI

from api.app import Gateway, GatewayParts
from api.health import health_router
from api.server import HttpServer, bind
from cli.runtime.backups import running_backups
from cli.runtime.consumers import (
    make_builder,
    make_freshness,
    make_queries,
    make_writes,
    opened_cache,
)
from cli.runtime.folder import claimed
from cli.runtime.gauges import show_amplification, show_cache, show_freshness, show_store
from cli.runtime.importing import importing
from cli.runtime.keys import ensure_key, first_words
from cli.runtime.parts import Parts, check_deployment, open_parts
from core.consumer import LogConsumer
from core.errors import ConfigError, Unavailable
from freshness.client import RemoteFreshReader
from freshness.layer import FreshnessLayer
from freshness.server import freshness_router
from infra.embedding.embedders import Embedders
from infra.faust.driver import run_faust_consumer
from infra.faust.settings import FaustSettings
from infra.feed.owners import LogOwners
from infra.logs.kafka import KafkaLog
from infra.settings import Settings
from ingest.writer import LogWriter

# How soon a partition that moved is announced: queries meanwhile look for its owner.
ANNOUNCE_S = 0.1

log = logging.getLogger(__name__)

Stopped = asyncio.Event


def kafka_of(settings: Settings) -> str:
    """The brokers. `ConfigError` where there are none: roles are for the distributed deployment."""
    if settings.kafka is None:
        raise ConfigError(
            "roles run on Kafka: set FIRNDB_KAFKA and FIRNDB_OBJECT_STORE, or use `firndb serve`"
        )
    check_deployment(settings)
    return settings.kafka


async def serve_api(settings: Settings, stopped: Stopped) -> None:
    """The gateway and the query service, until `stopped` is set."""
    bootstrap = kafka_of(settings)
    async with AsyncExitStack() as stack:
        parts = await stack.enter_async_context(open_parts(settings))
        owners = await stack.enter_async_context(_owners(settings, bootstrap))
        cache = await stack.enter_async_context(opened_cache(parts, "query"))
        fresh = RemoteFreshReader(owners)
        stack.push_async_callback(fresh.close)
        queries = make_queries(parts, cache, fresh)
        await queries.start()
        stack.push_async_callback(queries.stop)
        writer = LogWriter(parts.wal, parts.clock)
        stack.push_async_callback(writer.close)
        show_store(parts)
        show_cache(parts, cache)
        embedders = Embedders.open(settings.embedders, parts.metrics)
        stack.push_async_callback(embedders.close)
        key = await ensure_key(parts)
        jobs = await stack.enter_async_context(running_backups(parts, cache, writer))
        gateway = Gateway(
            GatewayParts(
                settings=settings,
                catalog=parts.catalog,
                callers=parts.callers,
                directory=parts.directory,
                writes=make_writes(parts, writer, fresh),
                reads=queries,
                metrics=parts.metrics,
                not_ready=_Found(owners, parts.partitions).not_ready,
                sole=False,
                embedders=embedders,
                wake_jobs=jobs.wake,
            )
        )
        port = await gateway.start()
        stack.push_async_callback(gateway.stop)
        print(first_words(settings.url_at(port), key, settings.data), flush=True)
        await stopped.wait()


class _Found:
    """Ready once every partition's freshness worker was known; from then on the gateway answers
    without one as well, and says so.
    """

    def __init__(self, owners: LogOwners, partitions: int) -> None:
        self._owners = owners
        self._missing = set(range(partitions))

    def not_ready(self) -> str | None:
        self._missing = {p for p in self._missing if self._owners.owner_of(p) is None}
        if not self._missing:
            return None
        return f"no freshness worker serves {len(self._missing)} of the partitions yet"


async def serve_builder(settings: Settings, stopped: Stopped) -> None:
    """The index builder, until `stopped` is set; raises what ended it."""
    bootstrap = kafka_of(settings)
    async with AsyncExitStack() as stack:
        parts = await stack.enter_async_context(open_parts(settings))
        cache = await stack.enter_async_context(opened_cache(parts, "builder"))
        builder = make_builder(parts, cache)
        await builder.start()
        stack.push_async_callback(builder.stop)
        writer = LogWriter(parts.wal, parts.clock)
        stack.push_async_callback(writer.close)
        await stack.enter_async_context(importing(parts, cache, writer))
        show_store(parts)
        show_amplification(parts)
        show_cache(parts, cache)
        await stack.enter_async_context(
            _http(parts, settings.builder_host, settings.builder_port, lambda: None)
        )
        await _consume(settings, bootstrap, "builder", builder, stopped)


async def serve_freshness(settings: Settings, stopped: Stopped) -> None:
    """A freshness worker, until `stopped` is set; raises what ended it."""
    bootstrap = kafka_of(settings)
    async with AsyncExitStack() as stack:
        parts = await stack.enter_async_context(open_parts(settings))
        layer = make_freshness(parts)
        await layer.start()
        stack.push_async_callback(layer.stop)
        show_store(parts)
        show_freshness(parts, layer)
        port = await stack.enter_async_context(
            _http(
                parts,
                settings.freshness_host,
                settings.freshness_port,
                lambda: None if layer.ready else "recent writes are being read from the log",
                [freshness_router(layer)],
            )
        )
        url = settings.freshness_url or f"http://{settings.freshness_host}:{port}"
        owners = await stack.enter_async_context(_owners(settings, bootstrap))
        announcing = asyncio.create_task(_announce(layer, owners, url), name="announce")
        stack.push_async_callback(_cancelled, announcing)
        await _consume(settings, bootstrap, "freshness", layer, stopped, announcing)


async def _consume(
    settings: Settings,
    bootstrap: str,
    role: str,
    consumer: LogConsumer,
    stopped: Stopped,
    *beside: asyncio.Task[None],
) -> None:
    """Feed the consumer until `stopped`; raises what ends it, or a task beside it."""
    with claimed(settings.data / "faust", role) as folder:
        faust = FaustSettings(
            bootstrap=bootstrap,
            topic=settings.wal_topic,
            group=f"{settings.kafka_prefix}.{role}",
            data_dir=folder,
            client_id=f"firndb-{role}-{socket.gethostname()}",
            handle_signals=False,
        )
        consuming = asyncio.create_task(run_faust_consumer(consumer, faust), name=role)
        waiting = asyncio.create_task(stopped.wait())
        try:
            await asyncio.wait((consuming, waiting, *beside), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            for ended in (consuming, *beside):
                if ended.done() and not ended.cancelled():
                    ended.result()
            await _cancelled(consuming)


async def _announce(layer: FreshnessLayer, owners: LogOwners, url: str) -> None:
    """Tell the others which partitions are served here, as they come and go.

    A predecessor that announces or withdraws late can hide us: while the board does not name us for
    a partition, it is announced again.
    """
    announced: set[int] = set()
    while True:
        held = set(layer.partitions)
        announced = {p for p in announced if owners.owner_of(p) == url}
        try:
            for partition in held - announced:
                await owners.announce(partition, url)
            for partition in announced - held:
                await owners.withdraw(partition, url)
            announced = held
        except Unavailable as error:
            log.warning("cannot announce partitions, trying again: %s", error)
        await asyncio.sleep(ANNOUNCE_S)


@asynccontextmanager
async def _owners(settings: Settings, bootstrap: str) -> AsyncIterator[LogOwners]:
    owners = LogOwners(KafkaLog(bootstrap, settings.owners_topic))
    try:
        await owners.start()
        yield owners
    finally:
        await owners.close()


@asynccontextmanager
async def _http(
    parts: Parts,
    host: str,
    port: int,
    not_ready: Callable[[], str | None],
    routers: Sequence[APIRouter] = (),
) -> AsyncIterator[int]:
    """Health, metrics and the given routes on a port of the role's own, which it gives."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    for router in (health_router(parts.metrics, not_ready), *routers):
        app.include_router(router)
    try:
        listener = bind(host, port)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error.strerror}); set another port, "
            "`firndb settings` names them"
        ) from error
    server = HttpServer(app)
    await server.start(listener)
    try:
        yield listener.getsockname()[1]
    finally:
        await server.stop()


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
