"""Running imports in the process that has the index builder."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from builder.importing.importer import ImportParts
from builder.importing.worker import ImportWorker
from cli.runtime.consumers import USUAL, Bounds, builder_parts, builder_settings
from cli.runtime.parts import Parts
from infra.catalog.imports import ImportStore
from infra.catalog.leases import Leases
from infra.imports.locations import locations_of
from ingest.writer import LogWriter
from storage.file_cache import FileCache


@asynccontextmanager
async def importing(
    parts: Parts, cache: FileCache, writer: LogWriter, bounds: Bounds = USUAL
) -> AsyncIterator[None]:
    """Until the block ends. `ConfigError`: the locations are set wrongly."""
    settings, database = parts.settings, parts.catalog.database
    worker = ImportWorker(
        ImportParts(
            builder=builder_parts(parts, cache),
            settings=bounds.building or builder_settings(settings),
            writer=writer,
            imports=ImportStore(database, parts.clock),
            locations=locations_of(settings),
            namespaces=parts.catalog.quotas.namespaces,
            scratch=settings.cache_folder,
        ),
        Leases(database, parts.clock),
        at_once=settings.imports_at_once,
    )
    task = asyncio.create_task(worker.run(), name="imports")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
