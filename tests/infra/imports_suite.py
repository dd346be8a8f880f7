"""What the catalog's imports must do on every database. A test class gives `url`."""

from collections.abc import AsyncIterator

import pytest

from core.errors import FailedPrecondition, NotFound
from core.limits import IMPORTS_KEPT_MAX, IMPORTS_UNFINISHED_MAX
from infra.catalog.catalog import Catalog
from infra.catalog.imports import ErrorMode, ImportState, ImportStore, Progress
from tests.infra.catalog_suite import NEW

PROGRESS = Progress(100, 50, 7, 3, ("row 1: wrong",), ((-(1 << 62) + 5, 7, 3),))


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
        assert await imports.begin(made.import_id, b"\0plan", Progress(bytes_total=100))
        assert await imports.note(made.import_id, PROGRESS)
        found = await imports.get(index, made.import_id)
        assert (found.state, found.progress) == (ImportState.IN_PROGRESS, PROGRESS)
        assert (found.error_mode, found.integration) == (ErrorMode.ABORT, "partner")
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
        mine = [await imports.create(index, "s3://b/x/", ErrorMode.ABORT) for _ in range(5)]
        other = await catalog.ensure_project("another")
        theirs = (await catalog.create_index(other.project_id, NEW, None)).info.index_id
        made = await imports.create(theirs, "s3://b/x/", ErrorMode.ABORT)
        assert made.import_id in [one.import_id for one in await imports.work(2)]
        assert len(await imports.work(10)) == len(mine) + 1

    async def test_nothing_changes_an_import_that_is_cancelled(
        self, imports: ImportStore, index: str
    ) -> None:
        made = await imports.create(index, "s3://b/x/", ErrorMode.CONTINUE)
        assert (await imports.cancel(index, made.import_id)).state is ImportState.CANCELLED
        assert not await imports.begin(made.import_id, b"", PROGRESS)
        assert not await imports.note(made.import_id, PROGRESS)
        assert not await imports.attach(made.import_id)
        assert not await imports.finish(made.import_id, ImportState.COMPLETED, PROGRESS)
        assert (await imports.get(index, made.import_id)).state is ImportState.CANCELLED

    async def test_what_is_being_attached_or_has_ended_is_not_cancelled(
        self, imports: ImportStore, index: str
    ) -> None:
        made = await imports.create(index, "s3://b/x/", ErrorMode.CONTINUE)
        assert await imports.attach(made.import_id)
        assert (await imports.cancel(index, made.import_id)).state is ImportState.PENDING
        assert await imports.finish(made.import_id, ImportState.COMPLETED, PROGRESS)
        assert (await imports.cancel(index, made.import_id)).state is ImportState.COMPLETED

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
