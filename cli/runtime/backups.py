"""The jobs of backups and restores, beside a gateway."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from builder.backups.jobs import JobStores
from builder.backups.runner import BackupRunner
from cli.runtime.consumers import builder_parts
from cli.runtime.parts import Parts
from infra.catalog.backups import Backups
from infra.catalog.leases import Leases
from infra.catalog.restores import Restores
from infra.catalog.schedules import Schedules
from ingest.writer import LogWriter
from storage.file_cache import FileCache


@asynccontextmanager
async def running_backups(
    parts: Parts, cache: FileCache, writer: LogWriter
) -> AsyncIterator[BackupRunner]:
    """Until the block ends."""
    database, quotas, clock = parts.catalog.database, parts.catalog.quotas, parts.clock
    stores = JobStores(
        backups=Backups(database, quotas, clock),
        restores=Restores(database, clock),
        schedules=Schedules(database, quotas, clock),
        leases=Leases(database, clock),
    )
    runner = BackupRunner(builder_parts(parts, cache), writer, stores)
    await runner.start()
    try:
        yield runner
    finally:
        await runner.stop()
