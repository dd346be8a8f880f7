"""Who a key belongs to is known without the database, whoever else sends what.

At stake: every request asks. One that costs a database call makes the control plane's database the
bottleneck of the data plane, and wrong keys a way to take it down.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from core.errors import Overloaded, Unauthenticated, Unavailable
from infra.catalog.callers import KEPT_MAX, LIFETIMES, STRANGERS_MAX, Callers
from infra.catalog.catalog import Catalog
from infra.catalog.model import KeyRole
from tests.infra.held_clock import HeldClock


class Statements:
    """Every statement that any engine of this process sends."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def note(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        if not statement.startswith(("BEGIN", "PRAGMA")):
            self.sent.append(statement)


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture
async def catalog(tmp_path: Path, clock: HeldClock) -> AsyncIterator[Catalog]:
    catalog = Catalog.open(f"sqlite:///{tmp_path / 'catalog.db'}", clock)
    yield catalog
    await catalog.close()


@pytest.fixture
def callers(catalog: Catalog, clock: HeldClock) -> Callers:
    return Callers(catalog, clock)


@pytest.fixture
def statements() -> Iterator[Statements]:
    statements = Statements()
    event.listen(sa.Engine, "before_cursor_execute", statements.note)
    yield statements
    event.remove(sa.Engine, "before_cursor_execute", statements.note)


async def refused(callers: Callers, key: str) -> None:
    with pytest.raises(Unauthenticated, match="Invalid API Key"):
        await callers.prove(key)


async def test_a_thousand_requests_of_a_key_are_one_database_call(
    catalog: Catalog, callers: Callers, statements: Statements, clock: HeldClock
) -> None:
    await catalog.add_key((await catalog.ensure_project()).project_id, "my-own-key")
    statements.sent.clear()
    await asyncio.gather(*[callers.prove("my-own-key") for _ in range(1000)])
    assert len(statements.sent) == 1
    clock.now_s += LIFETIMES.fresh_s - 0.1
    await callers.prove("my-own-key")
    assert len(statements.sent) == 1
    clock.now_s += 0.2
    await callers.prove("my-own-key")
    assert len(statements.sent) == 2


async def test_every_kind_of_wrong_key_costs_the_same_one_statement(
    catalog: Catalog, callers: Callers, statements: Statements, clock: HeldClock
) -> None:
    """So nobody learns from the time of a refusal that a key was valid once."""
    project = (await catalog.ensure_project()).project_id
    revoked = await catalog.add_key(project, "revoked-key")
    await catalog.revoke_key(revoked.key_id)
    await catalog.add_key(project, "expired-key", expires_ms=clock.now_ms() + 1)
    rotated = await catalog.add_key(project, "rotated-key")
    await catalog.rotate_key(rotated.key_id, "rotated-key-2")
    clock.now_s += 1
    sent = []
    for key in ("unknown", "revoked-key", "expired-key", "rotated-key", "x" * 10_000, "ü", "\0"):
        statements.sent.clear()
        await refused(callers, key)
        sent.append(tuple(statements.sent))
        await refused(callers, key)
        assert len(statements.sent) == 1
    assert len(set(sent)) == 1


async def test_a_rain_of_wrong_keys_is_bounded_and_costs_a_known_key_nothing(
    catalog: Catalog, callers: Callers, statements: Statements
) -> None:
    await catalog.add_key((await catalog.ensure_project()).project_id, "my-own-key")
    await callers.prove("my-own-key")
    statements.sent.clear()
    rain = [asyncio.create_task(callers.prove(f"wrong-{n}")) for n in range(2 * STRANGERS_MAX)]
    await asyncio.sleep(0)
    await callers.prove("my-own-key")  # does not wait in the line of those
    results = await asyncio.gather(*rain, return_exceptions=True)
    assert sum(isinstance(r, Overloaded) for r in results) == STRANGERS_MAX
    assert sum(isinstance(r, Unauthenticated) for r in results) == STRANGERS_MAX
    assert len(statements.sent) == STRANGERS_MAX
    await callers.prove("my-own-key")
    assert len(statements.sent) == STRANGERS_MAX


async def test_ever_new_wrong_keys_push_no_known_one_out(
    catalog: Catalog, callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    await catalog.add_key((await catalog.ensure_project()).project_id, "my-own-key")
    known = await callers.prove("my-own-key")
    asked = 0

    async def nobody(key_hash: str) -> None:
        nonlocal asked
        asked += 1

    monkeypatch.setattr(catalog, "caller_of", nobody)
    for n in range(KEPT_MAX + 10):
        await refused(callers, f"wrong-{n}")
    assert asked == KEPT_MAX + 10
    assert await callers.prove("my-own-key") == known
    assert asked == KEPT_MAX + 10


async def test_a_key_that_expires_does_so_in_time_also_without_the_database(
    catalog: Catalog, callers: Callers, clock: HeldClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = (await catalog.ensure_project()).project_id
    await catalog.add_key(project, "for-a-minute", expires_ms=clock.now_ms() + 60_000)
    await catalog.add_key(project, "for-ever")
    for key in ("for-a-minute", "for-ever"):
        await callers.prove(key)

    async def away(key_hash: str) -> None:
        raise Unavailable("the database is away")

    monkeypatch.setattr(catalog, "caller_of", away)
    clock.now_s += 59
    for key in ("for-a-minute", "for-ever"):
        await callers.prove(key)
    clock.now_s += 1
    await refused(callers, "for-a-minute")
    await callers.prove("for-ever")
    clock.now_s += LIFETIMES.stale_s
    with pytest.raises(Unavailable):
        await callers.prove("for-ever")


async def test_what_this_process_changed_holds_at_once_and_other_keys_stay_known(
    catalog: Catalog, callers: Callers, statements: Statements
) -> None:
    project = (await catalog.ensure_project()).project_id
    key = await catalog.add_key(project, "secret-1", role=KeyRole.READ_ONLY)
    await catalog.add_key(project, "another")
    await refused(callers, "secret-2")
    for secret in ("secret-1", "another"):
        await callers.prove(secret)
    await catalog.rotate_key(key.key_id, "secret-2")
    callers.forget(key.key_id)
    await refused(callers, "secret-1")
    assert (await callers.prove("secret-2")).key_id == key.key_id
    statements.sent.clear()
    await callers.prove("another")
    assert statements.sent == []
