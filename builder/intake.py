"""From log records to what is applied: admission, with dead letters durable before progress."""

import logging

from builder.metrics import BuilderMetrics
from core.clock import Clock
from core.errors import Unavailable
from core.indexes import IndexDirectory
from core.log import LogRecord
from core.operations import NamespaceWrite
from ingest.admit import Admitted, Rejected, Skipped, Verdict, admit
from ingest.dead_letters import DeadLetters
from ingest.rejection import Rejection

logger = logging.getLogger(__name__)


class Intake:
    """Waits for as long as it takes: nothing of a partition may pass what is not decided."""

    def __init__(
        self,
        directory: IndexDirectory,
        dead_letters: DeadLetters | None,
        clock: Clock,
        partitions: int,
        metrics: BuilderMetrics,
        retry_s: float,
    ) -> None:
        """Without `dead_letters` rejections are only counted: a replay has put them already."""
        self._directory = directory
        self._dead_letters = dead_letters
        self._clock = clock
        self._partitions = partitions
        self._metrics = metrics
        self._retry_s = retry_s

    async def take(self, record: LogRecord) -> NamespaceWrite | None:
        """What is to be applied, None if nothing is; its dead letters are durable."""
        match await self._verdict(record):
            case Admitted(write=write, rejected=rejected):
                await self._bury(rejected)
                return write
            case Rejected(rejections=rejections):
                await self._bury(rejections)
            case Skipped():
                self._metrics.skipped.inc()
        return None

    async def _verdict(self, record: LogRecord) -> Verdict:
        while True:
            try:
                return await admit(record, self._directory, self._partitions)
            except Unavailable as error:
                logger.warning(
                    "LSN %d of partition %d waits for the catalog: %s",
                    *(record.offset, record.partition, error),
                )
            await self._clock.sleep(self._retry_s)

    async def _bury(self, rejections: tuple[Rejection, ...]) -> None:
        while self._dead_letters is not None and rejections:
            try:
                await self._dead_letters.put_all(rejections)
            except Unavailable as error:
                logger.warning("dead letters wait for the log: %s", error)
            else:
                self._metrics.dead_letters.inc(len(rejections))
                return
            await self._clock.sleep(self._retry_s)
