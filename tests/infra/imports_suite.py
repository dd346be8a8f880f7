"""What the catalog's imports must do on every database. A test class gives `url`."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from core.errors import FailedPrecondition, NotFound
from core.limits import IMPORTS_KEPT_MAX, IMPORTS_UNFINISHED_MAX
from infra.catalog.catalog import Catalog
from infra.catalog.imports import ErrorMode, Import, ImportState, ImportStore, Progress
from infra.catalog.leases import Leases
from tests.infra.catalog_suite import NEW

PROGRESS = Progress(100, 50, 7, 3, ("row 1: wrong",), ((-(1 << 62) + 5, 7, 3),))
# Turns go by milliseconds.
_TICK_S = 0.002


async def _created(imports: ImportStore, index_id: str) -> Import:
    """Later than the one before."""
    await asyncio.sleep(_TICK_S)
    return await imports.create(index_id, "s3://b/x/", ErrorMode.CONTINUE)


class ImportsSuite:
    """Fixture `url`: of an empty database."""

    @pytest.fixture
    async def catalog(self, url: str) -> AsyncIterator[Catalog]:
        catalog = Catalog.open(url)
        yield catalog
        await catalog.close()

    @pytest.fixture
    def imports(self, catalog: Catalog) -> ImportStore:
        return ImportStore(catalog.database)

    @pytest.fixture
    async def index(self, catalog: Catalog) -> str:
        project = await catalog.ensure_project()
        made = await catalog.create_index(project.project_id, NEW, None)
        return made.info.index_id

    async def test_what_is_noted_is_read_again(self, imports: ImportStore, index: str) -> None:
        made = await imports.create(index, "s3://b/x/", ErrorMode.ABORT, "partner")
        assert made.state is ImportState.PENDING
        assert await imports.plan(made.import_id) is None
        asked = (b"\0plan", Progress(bytes_total=100))
        assert await imports.begin(made.import_id, *asked) == asked
        assert await imports.note(made.import_id, PROGRESS)
        found = await imports.get(index, made.import_id)
        assert (found.state, found.progress) == (ImportState.IN_PROGRESS, PROGRESS)
        assert (found.error_mode, found.integration) == (ErrorMode.ABORT, "partner")
        late = await imports.begin(made.import_id, b"another", Progress(bytes_total=7))
        assert late == (b"\0plan", PROGRESS), "the first one counts"
        assert await imports.get(index, made.import_id) == found
        assert await imports.plan(made.import_id) == b"\0plan"
        assert await imports.finish(made.import_id, ImportState.FAILED, PROGRESS, "why")
        ended = await imports.get(index, made.import_id)
        assert (ended.state, ended.error, ended.finished) == (ImportState.FAILED, "why", True)
        assert ended.finished_ms is not None
        assert [one.import_id for one in await imports.work()] == [made.import_id]
        await imports.cleaned(made.import_id)
        assert await imports.work() == []
        assert (await imports.counts())[ImportState.FAILED] == 1

    async def test_who_has_many_imports_does_not_hide_those_of_others(
        self, imports: ImportStore, index: str, catalog: Catalog
    ) -> None:
        """A hundred that cannot go on, say of a store that is away, would be all that is seen."""
        mine = [await _created(imports, index) for _ in range(5)]
        other = await catalog.ensure_project("another")
        theirs = (await catalog.create_index(other.project_id, NEW, None)).info.index_id
        made = await _created(imports, theirs)

        async def found(limit: int) -> list[str]:
            return [one.import_id for one in await imports.work(limit)]

        assert await found(2) == [mine[0].import_id, made.import_id]
        await imports.put_off(mine[0].import_id, 60.0, tried=True)
        await asyncio.sleep(_TICK_S)
        assert await found(2) == [made.import_id, mine[1].import_id], "its project had its turn"
        await imports.put_off(made.import_id, 0.0, tried=True)
        assert await found(2) == [mine[1].import_id, made.import_id]
        assert await found(10) == [
            *(mine[1].import_id, made.import_id),
            *(one.import_id for one in mine[2:]),
        ]

    async def test_nothing_changes_an_import_that_is_cancelled(
        self, imports: ImportStore, index: str
    ) -> None:
        made = await imports.create(index, "s3://b/x/", ErrorMode.CONTINUE)
        assert (await imports.cancel(index, made.import_id)).state is ImportState.CANCELLED
        assert await imports.begin(made.import_id, b"", PROGRESS) is None
        assert not await imports.note(made.import_id, PROGRESS)
        assert await imports.attach(made.import_id, [7]) is None
        assert not await imports.finish(made.import_id, ImportState.COMPLETED, PROGRESS)
        assert (await imports.get(index, made.import_id)).state is ImportState.CANCELLED

    async def test_what_is_being_attached_or_has_ended_is_not_cancelled(
        self, imports: ImportStore, index: str
    ) -> None:
        made = await imports.create(index, "s3://b/x/", ErrorMode.CONTINUE)
        assert await imports.attach(made.import_id, [-1, 7]) == (-1, 7)
        assert (await imports.cancel(index, made.import_id)).state is ImportState.PENDING
        assert await imports.attach(made.import_id, [8, 9]) == (-1, 7), "the first one counts"
        assert await imports.finish(made.import_id, ImportState.COMPLETED, PROGRESS)
        assert (await imports.cancel(index, made.import_id)).state is ImportState.COMPLETED

    async def test_who_was_put_off_comes_after_all_that_wait_and_not_too_soon(
        self, catalog: Catalog, imports: ImportStore, index: str
    ) -> None:
        made = [await _created(imports, index) for _ in range(4)]
        first, second, third, fourth = (one.import_id for one in made)

        async def found(limit: int = 100) -> list[str]:
            return [one.import_id for one in await imports.work(limit)]

        assert await found() == [first, second, third, fourth]
        await imports.put_off(second, 0.0, tried=True)
        await asyncio.sleep(_TICK_S)
        await imports.put_off(first, 0.0, tried=True)
        await imports.put_off(first, 0.0)
        assert await found() == [third, fourth, second, first]
        assert await found(limit=1) == [third]
        await imports.put_off(third, 60.0)
        assert await found() == [fourth, second, first]
        leases = Leases(catalog.database)
        await leases.claim(made[3].lease, "somebody")
        await leases.claim(made[1].lease, "somebody who died", for_s=0.0)
        assert await found() == [second, first]
        await leases.release(made[3].lease, "somebody")
        assert await found() == [fourth, second, first]
        assert (await imports.get(index, first)).tries == 1
        assert await imports.note(first, PROGRESS)
        assert (await imports.get(index, first)).tries == 0, "it got further"

    async def test_what_was_erased_is_looked_at_once_more(
        self, imports: ImportStore, index: str
    ) -> None:
        made = await imports.create(index, "s3://b/x/", ErrorMode.CONTINUE)
        await imports.cancel(index, made.import_id)
        await imports.erased(made.import_id, 60.0)
        assert await imports.work() == []
        await imports.erased(made.import_id, 0.0)
        (again,) = await imports.work()
        assert (again.erased, again.cleaned) == (True, False)

    async def test_pages_come_newest_first_and_only_of_the_index(
        self, imports: ImportStore, index: str
    ) -> None:
        made = [await imports.create(index, "s3://b/x/", ErrorMode.CONTINUE) for _ in range(5)]
        seen: list[str] = []
        while page := await imports.page(index, 2, seen[-1] if seen else ""):
            seen += [one.import_id for one in page]
        assert sorted(seen) == sorted(one.import_id for one in made)
        assert await imports.page("other", 2) == []
        for ask in (imports.get, imports.cancel):
            with pytest.raises(NotFound):
                await ask("other", made[0].import_id)

    async def test_an_index_has_so_many_unfinished_ones_and_keeps_so_many_finished(
        self, imports: ImportStore, index: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert (IMPORTS_UNFINISHED_MAX, IMPORTS_KEPT_MAX) == (100, 1000)
        monkeypatch.setattr("infra.catalog.imports.IMPORTS_UNFINISHED_MAX", 2)
        monkeypatch.setattr("infra.catalog.imports.IMPORTS_KEPT_MAX", 3)
        for _ in range(6):
            made = await imports.create(index, "s3://b/x/", ErrorMode.CONTINUE)
            await imports.cancel(index, made.import_id)
            await imports.cleaned(made.import_id)
        assert len(await imports.page(index, 100)) == 3
        for _ in range(2):
            await imports.create(index, "s3://b/x/", ErrorMode.CONTINUE)
        with pytest.raises(FailedPrecondition, match="2 imports that are not finished"):
            await imports.create(index, "s3://b/x/", ErrorMode.CONTINUE)
