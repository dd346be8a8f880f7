"""`firndb doctor`: the probes of `infra.doctor` on the parts of this deployment."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cli.runtime.parts import Parts
from core.errors import FirnError
from core.log import Log
from infra.doctor import Check, check_log, check_store
from infra.logs.sqlite import SqliteLog


async def examine(parts: Parts) -> list[Check]:
    """Writes only under names of its own, and removes what it wrote."""
    # below the retries: one that met its own success would count as a lost race
    checks = await check_store(parts.counts)
    async with _scratch_log(parts) as scratch:
        checks += await check_log(scratch)
    return [*checks, await _check_catalog(parts)]


@asynccontextmanager
async def _scratch_log(parts: Parts) -> AsyncIterator[Log]:
    """A topic that nobody else uses, on the same broker or the same disk as the log."""
    settings = parts.settings
    topic = f"{settings.kafka_prefix}.doctor"
    if settings.kafka is None:
        path = settings.data / "doctor.db"
        scratch: Log = await SqliteLog.open(path, topic, 1)
    else:
        from infra.logs.kafka import KafkaLog
        from infra.logs.kafka_topics import TopicSpec, create_topics

        spec = TopicSpec(topic, 1, replication=settings.kafka_replication)
        await create_topics(settings.kafka, [spec])
        scratch = KafkaLog(settings.kafka, topic)
    try:
        yield scratch
    finally:
        await scratch.close()
        if settings.kafka is None:
            for left in settings.data.glob("doctor.db*"):
                left.unlink()


async def _check_catalog(parts: Parts) -> Check:
    try:
        known = await parts.catalog.log()
    except FirnError as error:
        return Check("catalog", False, str(error))
    epoch = "no log yet" if known is None else f"log epoch {known.epoch}"
    return Check("catalog: reads", True, epoch)
