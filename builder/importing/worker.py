"""Looks for imports that nobody works on, and does them: a few at a time, each under its lease."""

import asyncio
import logging
from collections.abc import Sequence

from builder.importing.importer import Importer, ImportParts
from core.clock import new_uuid
from core.errors import Unavailable
from infra.catalog.imports import Import, ImportState
from infra.catalog.leases import Leases
from infra.telemetry import Metrics

logger = logging.getLogger(__name__)

POLL_S = 1.0
# Of what could not be done now: another one has it, the store is away, files are not free yet.
AGAIN_S = 5.0
COUNT_S = 10.0


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
        self._parts = parts
        self._leases = leases
        self._at_once = at_once
        self._poll_s = poll_s
        self._again_s = again_s
        self._owner = new_uuid()
        self._clock = parts.builder.clock
        self._metrics = ImportMetrics(parts.builder.metrics)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._not_before: dict[str, float] = {}
        # By project, the number of the look in which one was last begun here.
        self._begun: dict[str, int] = {}
        self._looks = 0
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
        waiting = await self._parts.imports.work()
        known = {work.import_id for work in waiting}
        self._not_before = {i: at for i, at in self._not_before.items() if i in known}
        self._looks += 1
        for project, work in await self._in_turns(waiting):
            if len(self._running) >= self._at_once:
                break
            wait_until = self._not_before.get(work.import_id, 0.0)
            if work.import_id not in self._running and now >= wait_until:
                task = asyncio.create_task(self._do(work), name=work.lease)
                self._running[work.import_id] = task
                self._begun[project] = self._looks
        if now >= self._count_at:
            self._count_at = now + COUNT_S
            for state, count in (await self._parts.imports.counts()).items():
                self._metrics.imports.labels(state.value).set(count)

    async def _in_turns(self, waiting: Sequence[Import]) -> list[tuple[str, Import]]:
        """With their projects, first of those for which one was begun longest ago: who has many
        imports holds the others up by one.
        """
        owned: list[tuple[str, Import]] = []
        for work in waiting:
            info = await self._parts.builder.directory.find(work.index_id)
            assert info is not None, "an import is of an index"
            owned.append((info.project_id, work))
        self._begun = {p: self._begun.get(p, 0) for p, _ in owned}
        return sorted(owned, key=lambda one: self._begun[one[0]])

    async def _do(self, work: Import) -> None:
        try:
            if not await self._leases.run(work.lease, self._owner, lambda: self._done(work)):
                self._later(work)
        except Unavailable as error:
            logger.warning("import %s waits: %s", work.import_id, error)
            self._later(work)
        except Exception:
            logger.exception("import %s, or what it left behind, waits", work.import_id)
            self._later(work)
        finally:
            self._running.pop(work.import_id, None)

    def _later(self, work: Import) -> None:
        self._not_before[work.import_id] = self._clock.monotonic() + self._again_s

    async def _done(self, work: Import) -> None:
        """Under the lease. As it is now: what was read before it may be what another one did."""
        work = await self._parts.imports.get(work.index_id, work.import_id)
        importer = Importer(self._parts, work)
        if not work.finished:
            await self._import(importer, work)
        if not await importer.clean():
            self._later(work)

    async def _import(self, importer: Importer, work: Import) -> None:
        logger.info("import %s from %s begins, or goes on", work.import_id, work.uri)
        try:
            ended = await importer.run()
        except Unavailable:
            raise
        except Exception as error:
            logger.exception("import %s failed", work.import_id)
            ended = await importer.fail(f"{type(error).__name__}: {error}")
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
