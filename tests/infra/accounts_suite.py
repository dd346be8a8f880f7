"""What the catalog must do for projects on every database: keys, quotas, audit.

A test class inherits this and gives `url`.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from core.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    Unauthenticated,
)
from infra.catalog import accounts, keys
from infra.catalog.audit import BEGUN, DONE, PRUNE_EVERY, TEXT_CHARS_MAX, AuditLog
from infra.catalog.callers import LIFETIMES, Callers
from infra.catalog.catalog import Catalog
from infra.catalog.model import Caller, CatalogIndex, KeyChange, KeyRole
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

    # Projects

    async def test_a_project_goes_with_its_keys_once_nothing_is_left_in_it(
        self, catalog: Catalog
    ) -> None:
        project = await catalog.create_project("tenant")
        with pytest.raises(AlreadyExists):
            await catalog.create_project("tenant")
        await catalog.add_key(project.project_id, "tenants-key")
        await catalog.create_index(project.project_id, NEW, None)
        with pytest.raises(FailedPrecondition, match="tenant still has indexes"):
            await catalog.delete_project(project.project_id)
        await catalog.delete_index(project.project_id, "movies")
        await catalog.delete_project(project.project_id)
        assert await catalog.caller_of(keys.hash_of("tenants-key")) is None
        assert await catalog.projects() == []
        with pytest.raises(NotFound):
            await catalog.delete_project(project.project_id)
        with pytest.raises(NotFound):
            await catalog.add_key(project.project_id, "a-late-key")
        again = await catalog.create_project("tenant")
        assert again.project_id != project.project_id

    async def test_an_index_and_the_deletion_of_its_project_do_not_cross(
        self, catalog: Catalog
    ) -> None:
        """Else an index would live in a project that nobody can enter."""
        for n in range(8):
            project = (await catalog.create_project(f"p{n}")).project_id
            made, deleted = await asyncio.gather(
                catalog.create_index(project, NEW, None),
                catalog.delete_project(project),
                return_exceptions=True,
            )
            assert isinstance(made, NotFound) != isinstance(deleted, FailedPrecondition)

    @pytest.mark.parametrize("name", ["", "x" * 81, "two\nlines", "nul\0"])
    async def test_a_name_can_be_shown_on_one_line(
        self, catalog: Catalog, project: str, name: str
    ) -> None:
        with pytest.raises(InvalidRequest, match="printable"):
            await catalog.create_project(name)
        if name:
            with pytest.raises(InvalidRequest, match="printable"):
                await catalog.add_key(project, "some-secret", name=name)

    # Keys

    async def test_a_key_ends_when_it_expires(
        self, catalog: Catalog, project: str, clock: HeldClock
    ) -> None:
        ends_ms = clock.now_ms() + 60_000
        await catalog.add_key(project, "for-a-minute", expires_ms=ends_ms)
        caller = await catalog.caller_of(keys.hash_of("for-a-minute"))
        assert caller is not None
        assert caller.until_ms == ends_ms
        clock.now_s += 60
        assert await catalog.caller_of(keys.hash_of("for-a-minute")) is None
        with pytest.raises(InvalidRequest, match="passed already"):
            await catalog.add_key(project, "too-late", expires_ms=clock.now_ms())

    async def test_a_rotated_key_keeps_its_id_and_the_old_secret_ends(
        self, catalog: Catalog, project: str, clock: HeldClock
    ) -> None:
        key = await catalog.add_key(project, "secret-1", role=KeyRole.READ_WRITE)
        await catalog.rotate_key(key.key_id, "secret-2", keep_old_s=100)
        rotated = await catalog.rotate_key(key.key_id, "secret-3", keep_old_s=10)
        assert (rotated.key_id, rotated.role) == (key.key_id, KeyRole.READ_WRITE)
        until = clock.now_ms() + 10_000
        for secret, ends_ms in [("secret-1", until), ("secret-2", until), ("secret-3", None)]:
            caller = await catalog.caller_of(keys.hash_of(secret))
            assert caller == Caller(key.key_id, project, KeyRole.READ_WRITE, ends_ms)
        clock.now_s += 10
        assert await catalog.caller_of(keys.hash_of("secret-2")) is None
        await catalog.rotate_key(key.key_id, "secret-4")
        assert await catalog.caller_of(keys.hash_of("secret-3")) is None
        for secret in ("secret-1", "secret-4"):
            with pytest.raises(AlreadyExists):
                await catalog.add_key(project, secret)
        await catalog.revoke_key(key.key_id)
        assert await catalog.caller_of(keys.hash_of("secret-4")) is None
        with pytest.raises(NotFound):
            await catalog.rotate_key(key.key_id, "secret-5")
        with pytest.raises(NotFound):
            await catalog.change_key(key.key_id, KeyChange(name="other"))

    async def test_an_old_secret_within_its_overlap_ends_with_its_key(
        self, catalog: Catalog, project: str
    ) -> None:
        key = await catalog.add_key(project, "secret-1")
        await catalog.rotate_key(key.key_id, "secret-2", keep_old_s=1000)
        await catalog.revoke_key(key.key_id)
        assert await catalog.caller_of(keys.hash_of("secret-1")) is None
        with pytest.raises(InvalidRequest, match="seconds"):
            await catalog.rotate_key(key.key_id, "secret-3", keep_old_s=31 * 86_400)

    async def test_a_key_changes_its_role_and_keeps_its_secret(
        self, catalog: Catalog, project: str
    ) -> None:
        key = await catalog.add_key(project, "my-secret", name="one")
        await catalog.change_key(key.key_id, KeyChange(role=KeyRole.READ_ONLY))
        changed = await catalog.change_key(key.key_id, KeyChange(name="two"))
        assert (changed.name, changed.role) == ("two", KeyRole.READ_ONLY)
        caller = await catalog.caller_of(keys.hash_of("my-secret"))
        assert caller is not None
        assert caller.role is KeyRole.READ_ONLY

    async def test_two_admins_who_revoke_each_other_leave_one(
        self, catalog: Catalog, project: str
    ) -> None:
        ids = [(await catalog.add_key(project, f"admin-{n}")).key_id for n in range(2)]
        results = await asyncio.gather(
            *[catalog.revoke_key(key_id, spare_last_admin=True) for key_id in ids],
            return_exceptions=True,
        )
        assert sum(isinstance(r, FailedPrecondition) for r in results) == 1
        assert sum(key.revoked_ms is None for key in await catalog.keys(project)) == 1
        (left,) = [key for key in await catalog.keys(project) if key.revoked_ms is None]
        with pytest.raises(FailedPrecondition, match="last valid admin key"):
            await catalog.change_key(
                left.key_id, KeyChange(role=KeyRole.READ_WRITE), spare_last_admin=True
            )
        await catalog.revoke_key(left.key_id)

    async def test_what_ended_is_kept_in_bounded_numbers(
        self, catalog: Catalog, project: str, monkeypatch: pytest.MonkeyPatch, clock: HeldClock
    ) -> None:
        """A client that makes and revokes keys all day does not fill the database."""
        monkeypatch.setattr(accounts, "ENDED_KEPT", 3)
        monkeypatch.setattr(accounts, "FORMER_KEPT", 2)
        for n in range(8):
            key = await catalog.add_key(project, f"secret-{n}")
            for again in range(4):
                clock.now_s += 1
                await catalog.rotate_key(key.key_id, f"secret-{n}-{again}")
            await catalog.revoke_key(key.key_id)
        left = await catalog.keys(project)
        assert len(left) == 4
        for secret in ("secret-7-3", "secret-7-2", "secret-7-1"):
            with pytest.raises(AlreadyExists):
                await catalog.add_key(project, secret)
        await catalog.add_key(project, "secret-7-0")

    async def test_another_process_knows_of_a_change_within_seconds(
        self, url: str, catalog: Catalog, project: str, clock: HeldClock
    ) -> None:
        there = Catalog.open(url, clock)
        callers = Callers(there, clock)
        key = await catalog.add_key(project, "my-secret")
        assert (await callers.prove("my-secret")).role is KeyRole.ADMIN
        await catalog.change_key(key.key_id, KeyChange(role=KeyRole.READ_ONLY))
        clock.now_s += LIFETIMES.fresh_s
        assert (await callers.prove("my-secret")).role is KeyRole.READ_ONLY
        await catalog.rotate_key(key.key_id, "my-new-secret")
        assert (await callers.prove("my-new-secret")).key_id == key.key_id
        clock.now_s += LIFETIMES.fresh_s
        with pytest.raises(Unauthenticated):
            await callers.prove("my-secret")
        await catalog.revoke_key(key.key_id)
        clock.now_s += LIFETIMES.fresh_s
        with pytest.raises(Unauthenticated):
            await callers.prove("my-new-secret")
        await there.close()

    async def test_only_so_many_keys_are_valid_at_a_time(
        self, catalog: Catalog, project: str
    ) -> None:
        ids = [(await catalog.add_key(project, f"secret-{n}")).key_id for n in range(2)]
        with pytest.raises(QuotaExceeded, match="max API keys"):
            await catalog.add_key(project, "secret-2")
        await catalog.revoke_key(ids[0])
        await catalog.add_key(project, "secret-2")

    async def test_what_cannot_be_stored_is_the_requests_fault(
        self, catalog: Catalog, project: str
    ) -> None:
        """A URL can hold a NUL, a text in PostgreSQL cannot."""
        with pytest.raises((InvalidRequest, NotFound)):
            await catalog.index(project, "a\0b")
        with pytest.raises((InvalidRequest, NotFound)):
            await catalog.key("a\0b")

    # The audit log

    async def test_a_change_is_written_down_before_it_begins_and_completed_after_it(
        self, audit: AuditLog, clock: HeldClock
    ) -> None:
        entry = await audit.begin("p", "key", "request", "index.create", "index")
        (begun,) = await audit.entries("p", 10)
        assert (begun.outcome, begun.resource) == (BEGUN, "index")
        await audit.end(entry, "p", "index/movies", DONE)
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

    async def test_changes_that_always_come_two_at_a_time_are_bounded_as_well(
        self, audit: AuditLog
    ) -> None:
        for n in range(2 * PRUNE_EVERY):
            both = [await audit.begin("p", "k", "r", "a", f"index/{n}") for _ in range(2)]
            for entry in both:
                await audit.end(entry, "p", f"index/{n}", DONE)
        assert len(await audit.entries("p", 999)) <= 5 + PRUNE_EVERY + 1

    async def test_a_text_of_any_length_is_cut_to_what_names_need(self, audit: AuditLog) -> None:
        await audit.record("p", "k", "r", "index.delete", "index/\0" + "x" * 100_000)
        (entry,) = await audit.entries("p", 1)
        assert len(entry.resource) == TEXT_CHARS_MAX
        assert entry.resource.startswith("index/\ufffdxx")
