"""The worker of imports stays, whatever happens around it.

At stake: imports that wait until somebody restarts the process.
"""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from builder.importing.importer import Importer
from builder.importing.worker import ImportWorker
from core.errors import CorruptData
from infra.catalog.imports import ErrorMode, Import, ImportState, ImportStore, Progress
from infra.catalog.leases import Leases
from tests.builder.test_importing import Place, running
from tests.infra.catalog_suite import NEW


async def ended_by(worker: ImportWorker, place: Place, work: Import) -> Import:
    """The import once the worker has ended it, or has stopped itself."""
    task = asyncio.create_task(worker.run())
    for _ in range(500):
        ended = await place.imports.get(work.index_id, work.import_id)
        if task.done() or ended.finished:
            break
        await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return await place.imports.get(work.index_id, work.import_id)


async def test_a_worker_outlives_what_a_database_says_while_it_changes_places(
    tmp_path: Path,
) -> None:
    """Such as that it only reads for now, which is no sign of being away."""
    async with running(tmp_path) as place:
        place.put("a/0.parquet", 0, 30)
        looks: list[int] = []

        class Moving(ImportStore):
            async def work(self, limit: int = 100) -> list[Import]:
                looks.append(limit)
                if len(looks) == 1:
                    raise sa.exc.InternalError("select", {}, Exception("it only reads"))
                return await super().work(limit)

        parts = replace(place.parts, imports=Moving(place.imports._database))
        worker = ImportWorker(parts, Leases(place.imports._database), poll_s=0.02)
        work = await place.asked()
        ended = await ended_by(worker, place, work)
        assert ended.state is ImportState.COMPLETED


async def test_who_has_many_imports_holds_the_others_up_by_one(tmp_path: Path) -> None:
    async with running(tmp_path) as place:
        ended: list[str] = []

        class Noting(ImportStore):
            async def finish(
                self, import_id: str, state: ImportState, progress: Progress, error: str = ""
            ) -> bool:
                ended.append(import_id)
                return await super().finish(import_id, state, progress, error)

        catalog = place.engine.parts.catalog
        other = (await catalog.ensure_project("another")).project_id
        index = (await catalog.create_index(other, NEW, None)).info.index_id
        mine = [(await place.asked()).import_id for _ in range(4)]
        uri = f"file://{place.root}/set/"  # has no files: each ends at once
        theirs = (await place.imports.create(index, uri, ErrorMode.ABORT)).import_id
        parts = replace(place.parts, imports=Noting(place.imports._database))
        worker = ImportWorker(parts, Leases(place.imports._database), poll_s=0.01)
        task = asyncio.create_task(worker.run())
        for _ in range(500):
            if task.done() or len(ended) == 5:
                break
            await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert sorted(ended) == sorted([*mine, theirs])
        assert ended.index(theirs) <= 1


@pytest.mark.parametrize("own", [True, False])
async def test_whoever_asked_is_told_our_own_texts_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, own: bool
) -> None:
    """Of other errors the text may hold paths and addresses of the machine."""
    error = CorruptData("object x is damaged") if own else OSError(5, "no", "/home/secret/path")

    async def run(self: Importer) -> ImportState | None:
        raise error

    monkeypatch.setattr(Importer, "run", run)
    async with running(tmp_path) as place:
        work = await place.asked()
        worker = ImportWorker(place.parts, Leases(place.imports._database), poll_s=0.01)
        ended = await ended_by(worker, place, work)
        assert ended.state is ImportState.FAILED
        if own:
            assert ended.error == "object x is damaged"
        else:
            said = f"Internal error. The server's log has more under import {work.import_id}."
            assert ended.error == said
    (logged,) = [one for one in caplog.records if one.message == f"import {work.import_id} failed"]
    assert logged.exc_info is not None
    assert logged.exc_info[1] is error
