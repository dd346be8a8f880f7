"""What the catalog must do for projects and their changes on every database: quotas, audit.

A test class inherits this and gives `url`.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from core.errors import AlreadyExists, NotFound, QuotaExceeded
from infra.catalog.audit import BEGUN, DONE, PRUNE_EVERY, TEXT_CHARS_MAX, AuditLog
from infra.catalog.catalog import Catalog
from infra.catalog.model import CatalogIndex
from infra.catalog.quotas import Quotas
from infra.settings import Settings
from tests.infra.catalog_suite import NEW
from tests.infra.held_clock import HeldClock

QUOTAS = Quotas.of(Settings.load({"max_indexes": 3, "max_api_keys": 2}))
PORTS = range(9001, 9101)


class AccountsSuite:
    """Fixture `url`: of an empty database."""

    @pytest.fixture
    def clock(self) -> HeldClock:
        return HeldClock()

    @pytest.fixture
    async def catalog(self, url: str, clock: HeldClock) -> AsyncIterator[Catalog]:
        catalog = Catalog.open(url, clock, QUOTAS)
        yield catalog
        await catalog.close()

    @pytest.fixture
    async def project(self, catalog: Catalog) -> str:
        return (await catalog.ensure_project()).project_id

    @pytest.fixture
    def audit(self, catalog: Catalog, clock: HeldClock) -> AuditLog:
        return AuditLog(catalog.database, clock, rows_max=5, age_s=3600)

    # Quotas

    async def test_makers_at_once_do_not_pass_the_quota_together(
        self, catalog: Catalog, project: str
    ) -> None:
        other = (await catalog.ensure_project("another")).project_id
        makers = [
            catalog.create_index(of, replace(NEW, name=f"i{n}"), PORTS)
            for n in range(8)
            for of in (project, other)
        ]
        results = await asyncio.gather(*makers, return_exceptions=True)
        made = [r for r in results if isinstance(r, CatalogIndex)]
        assert sorted(index.info.project_id for index in made) == sorted([project, other] * 3)
        assert sum(isinstance(r, QuotaExceeded) for r in results) == 10

    async def test_a_deleted_index_makes_room_and_a_taken_name_is_told_first(
        self, catalog: Catalog, project: str
    ) -> None:
        for name in "abc":
            await catalog.create_index(project, replace(NEW, name=name), PORTS)
        with pytest.raises(AlreadyExists):
            await catalog.create_index(project, replace(NEW, name="a"), PORTS)
        with pytest.raises(QuotaExceeded, match=r"max indexes allowed in project default \(3\)"):
            await catalog.create_index(project, replace(NEW, name="d"), PORTS)
        await catalog.delete_index(project, "b")
        await catalog.create_index(project, replace(NEW, name="d"), PORTS)
        with pytest.raises(NotFound):
            await catalog.create_index("0" * 32, replace(NEW, name="d"), PORTS)

    # The audit log

    async def test_a_change_is_written_down_before_it_begins_and_completed_after_it(
        self, audit: AuditLog, clock: HeldClock
    ) -> None:
        entry = await audit.begin("p", "key", "request", "index.create", "index")
        (begun,) = await audit.entries("p", 10)
        assert (begun.outcome, begun.resource) == (BEGUN, "index")
        await audit.end(entry, "index/movies", DONE)
        await audit.record("q", "key", "request", "index.delete", "index/movies", "refused: X")
        (done,) = await audit.entries("p", 10)
        assert (done.outcome, done.resource) == (DONE, "index/movies")
        assert (done.key_id, done.request_id, done.action) == ("key", "request", "index.create")
        assert done.at_ms == clock.now_ms()
        assert [e.project_id for e in await audit.entries(None, 10)] == ["q", "p"]

    async def test_entries_come_in_pages_and_since_a_time(
        self, audit: AuditLog, clock: HeldClock
    ) -> None:
        for n in range(5):
            await audit.record("p", "k", "r", "a", f"index/{n}")
            clock.now_s += 10
        first = await audit.entries("p", 2)
        second = await audit.entries("p", 2, before=first[-1].audit_id)
        assert [e.resource for e in (*first, *second)] == [f"index/{n}" for n in (4, 3, 2, 1)]
        since = second[0].at_ms
        assert [e.resource[-1] for e in await audit.entries("p", 9, since_ms=since)] == [*"432"]

    async def test_old_entries_go_by_number_in_each_project_and_by_age(
        self, audit: AuditLog, clock: HeldClock
    ) -> None:
        await audit.record("quiet", "k", "r", "a", "index/kept")
        for n in range(PRUNE_EVERY):
            await audit.record("busy", "k", "r", "a", f"index/{n}")
        assert [e.resource for e in await audit.entries("quiet", 99)] == ["index/kept"]
        numbers = [e.resource for e in await audit.entries("busy", 99)]
        assert numbers == [f"index/{n}" for n in range(PRUNE_EVERY - 1, PRUNE_EVERY - 6, -1)]
        clock.now_s += 3601
        assert await audit.entries(None, 99) == []

    async def test_a_text_of_any_length_is_cut_to_what_names_need(self, audit: AuditLog) -> None:
        await audit.record("p", "k", "r", "index.delete", "index/" + "x" * 100_000)
        (entry,) = await audit.entries("p", 1)
        assert len(entry.resource) == TEXT_CHARS_MAX
