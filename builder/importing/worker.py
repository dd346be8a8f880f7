"""Looks for imports that nobody works on, and does them: a few at a time, each under its lease."""

import asyncio
import logging
from contextlib import suppress

from builder.importing.importer import Importer, ImportParts
from core.clock import new_uuid
from core.errors import FirnError, Unavailable
from infra.catalog.imports import Import, ImportState
from infra.catalog.leases import Leases
from infra.telemetry import Metrics

logger = logging.getLogger(__name__)

POLL_S = 1.0
# Of what could not be done now: the store is away, files are not free yet. Twice as long each time
# in a row, so that many that cannot go on leave time for those that can.
AGAIN_S = 5.0
AGAIN_MAX_S = 300.0
COUNT_S = 10.0
_DOUBLINGS_MAX = 30
_INTERNAL = "Internal error. The server's log has more under import {}."


class ImportMetrics:
    def __init__(self, metrics: Metrics) -> None:
        self.imports = metrics.gauge("firndb_imports", "Imports by state", ("state",))
        self.rows = metrics.counter(
            "firndb_import_rows_total", "Rows of imports that have ended", ("outcome",)
        )


class ImportWorker:
    """For one event loop; `at_once`: imports that run here at the same time."""

    def __init__(
        self,
        parts: ImportParts,
        leases: Leases,
        at_once: int = 1,
        poll_s: float = POLL_S,
        again_s: float = AGAIN_S,
    ) -> None:
        """again_s: at first, `AGAIN_MAX_S` at last."""
        self._parts = parts
        self._leases = leases
        self._at_once = at_once
        self._poll_s = poll_s
        self._again_s = again_s
        self._owner = new_uuid()
        self._clock = parts.builder.clock
        self._metrics = ImportMetrics(parts.builder.metrics)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._count_at = 0.0

    async def run(self) -> None:
        """Until it is cancelled; then nothing of it runs any more."""
        try:
            while True:
                try:
                    await self._look()
                except Unavailable:
                    pass  # the catalog is away; the imports wait
                except Exception:  # one bad look must not be the last one
                    logger.exception("imports wait after an error")
                await asyncio.sleep(self._poll_s)
        finally:
            for task in self._running.values():
                task.cancel()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _look(self) -> None:
        now = self._clock.monotonic()
        free = self._at_once - len(self._running)
        for work in await self._parts.imports.work() if free else ():
            if len(self._running) >= self._at_once:
                break
            if work.import_id not in self._running:
                task = asyncio.create_task(self._do(work), name=work.lease)
                self._running[work.import_id] = task
        if now >= self._count_at:
            self._count_at = now + COUNT_S
            for state, count in (await self._parts.imports.counts()).items():
                self._metrics.imports.labels(state.value).set(count)

    async def _do(self, work: Import) -> None:
        try:
            # Without: another one was faster, and has it.
            await self._leases.run(work.lease, self._owner, lambda: self._done(work))
        except Unavailable as error:
            logger.warning("import %s waits: %s", work.import_id, error)
        except Exception:
            logger.exception("import %s, or what it left behind, waits", work.import_id)
        finally:
            self._running.pop(work.import_id, None)

    async def _done(self, work: Import) -> None:
        """Under the lease. As it is now: what was read before it may be what another one did."""
        imports = self._parts.imports
        work = await imports.get(work.index_id, work.import_id)
        if work.cleaned:
            return
        # Before anything else: one that ends the process, again and again, waits like any other.
        again_s = min(AGAIN_MAX_S, self._again_s * 2.0 ** min(work.tries, _DOUBLINGS_MAX))
        await imports.put_off(work.import_id, again_s, tried=True)
        try:
            done = await self._worked(work)
        except Exception:
            with suppress(Unavailable):  # then it waits since it began
                await imports.put_off(work.import_id, again_s)
            raise
        if not done:
            await imports.put_off(work.import_id, again_s)

    async def _worked(self, work: Import) -> bool:
        """False: not to its end."""
        importer = Importer(self._parts, work)
        if not work.finished:
            await self._import(importer, work)
        return await importer.clean()

    async def _import(self, importer: Importer, work: Import) -> None:
        logger.info("import %s from %s begins, or goes on", work.import_id, work.uri)
        try:
            ended = await importer.run()
        except Unavailable:
            raise
        except Exception as error:
            logger.exception("import %s failed", work.import_id)
            # Our own texts are for whoever asked; others may tell about this machine.
            told = isinstance(error, FirnError)
            ended = await importer.fail(str(error) if told else _INTERNAL.format(work.import_id))
        now = await self._parts.imports.get(work.index_id, work.import_id)
        if ended is not None:
            self._metrics.rows.labels("skipped").inc(now.progress.skipped)
        if ended is ImportState.COMPLETED:
            self._metrics.rows.labels("imported").inc(now.progress.records)
        logger.info(
            "import %s: %s, %d records, %d rows left out %s%s",
            *(now.import_id, now.state.value, now.progress.records, now.progress.skipped),
            *("; ".join(now.progress.reasons), now.error),
        )
