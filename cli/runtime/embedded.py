"""The embedded deployment: log, builder, freshness, queries and gateway in one process."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from api.app import Gateway, GatewayParts
from api.limits.turns import Turns
from api.writes import LogWrites
from builder.builder import IndexBuilder
from cli.runtime.admin import admin_routes
from cli.runtime.backups import running_backups
from cli.runtime.consumers import (
    USUAL,
    Bounds,
    make_builder,
    make_freshness,
    make_queries,
    make_writes,
    opened_cache,
)
from cli.runtime.consuming import consuming
from cli.runtime.folder import new_address, publish_address
from cli.runtime.gauges import show_amplification, show_cache, show_freshness, show_store
from cli.runtime.importing import importing
from cli.runtime.keys import ensure_key, first_words
from cli.runtime.parts import Parts, open_parts
from core.turns import working_as
from freshness.layer import FreshnessLayer
from infra.catalog.leases import Leases
from infra.embedding.embedders import Embedders
from infra.settings import Settings
from ingest.writer import LogWriter
from query.service import QueryService
from storage.file_cache import FileCache

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Engine:
    """Everything but HTTP. `consuming` ends only when a consumer cannot go on; it then raises."""

    parts: Parts
    builder: IndexBuilder
    freshness: FreshnessLayer
    queries: QueryService
    writes: LogWrites
    consuming: asyncio.Task[None]
    writer: LogWriter
    cache: FileCache
    turns: Turns

    def not_ready(self) -> str | None:
        if self.consuming.done():
            return "the log is not consumed any more"
        served = len(self.freshness.partitions) == self.parts.partitions
        if not (served and self.freshness.ready):
            return "recent writes are being read from the log"
        return None


@asynccontextmanager
async def open_engine(settings: Settings, bounds: Bounds = USUAL) -> AsyncIterator[Engine]:
    """Consume the log and answer queries until the block ends; then a last flush, and all closed.

    The data folder must be owned by the caller.
    """
    async with AsyncExitStack() as stack:
        parts = await stack.enter_async_context(open_parts(settings))
        turns = Turns(settings.requests_at_once, parts.clock, parts.metrics)
        with working_as(turns.background):
            # The folder is ours alone: whoever had a job is dead.
            await Leases(parts.catalog.database, parts.clock).clear()
            cache = await stack.enter_async_context(opened_cache(parts, "embedded"))
            builder, freshness = make_builder(parts, cache, bounds), make_freshness(parts, bounds)
            await builder.start()
            stack.push_async_callback(builder.stop)
            await freshness.start()
            stack.push_async_callback(freshness.stop)
            task = await stack.enter_async_context(consuming(parts, builder, freshness))
            queries = make_queries(parts, cache, freshness, bounds)
            await queries.start()
            stack.push_async_callback(queries.stop)
            writer = LogWriter(parts.wal, parts.clock)
            stack.push_async_callback(writer.close)
            await stack.enter_async_context(importing(parts, cache, writer, bounds))
            writes = make_writes(parts, writer, freshness)
            show_store(parts)
            show_amplification(parts)
            show_cache(parts, cache)
            show_freshness(parts, freshness)
        yield Engine(parts, builder, freshness, queries, writes, task, writer, cache, turns)


async def serve_embedded(settings: Settings, stopped: asyncio.Event) -> None:
    """Serve until `stopped` is set, or raise what ended the consumers."""
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(open_engine(settings))
        parts = engine.parts
        embedders = Embedders.open(settings.embedders, parts.metrics)
        jobs = await stack.enter_async_context(running_backups(parts, engine.cache, engine.writer))
        key = await ensure_key(parts)
        address = new_address(settings.url_at(settings.port), settings.tls_cert)
        gateway = Gateway(
            GatewayParts(
                settings=settings,
                catalog=parts.catalog,
                callers=parts.callers,
                directory=parts.directory,
                writes=engine.writes,
                reads=engine.queries,
                metrics=parts.metrics,
                not_ready=engine.not_ready,
                sole=True,
                embedders=embedders,
                routers=[admin_routes(parts, address.token)],
                wake_jobs=jobs.wake,
                turns=engine.turns,
            )
        )
        port = await gateway.start()
        address = address.at(settings.url_at(port))
        try:
            publish_address(settings.data, address)
            print(first_words(address.url, key, settings.data), flush=True)
            waiting = asyncio.create_task(stopped.wait())
            await asyncio.wait((waiting, engine.consuming), return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if engine.consuming.done():
                engine.consuming.result()
        finally:
            await gateway.stop()
            await embedders.close()
