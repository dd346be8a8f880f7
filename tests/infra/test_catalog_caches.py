"""What is remembered of the catalog, for how long, and what happens while the database is away."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.errors import Unauthenticated, Unavailable
from core.indexes import IndexState, VectorType
from core.metric import Metric
from infra.catalog.callers import Callers
from infra.catalog.catalog import Catalog
from infra.catalog.directory import CatalogDirectory
from infra.catalog.model import NewIndex
from infra.catalog.read_through import Lifetimes, ReadThrough
from tests.infra.held_clock import HeldClock

NEW = NewIndex("movies", 3, Metric.COSINE, VectorType.DENSE, {}, False, {})
LIFETIMES = Lifetimes(fresh_s=5, absent_s=1, stale_s=60)


class Source:
    """A database of one table. `answering` can be cleared to hold questions up."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.asked: list[str] = []
        self.away = False
        self.answering = asyncio.Event()
        self.answering.set()

    async def read(self, key: str) -> str | None:
        self.asked.append(key)
        value = self.values.get(key)
        await self.answering.wait()
        if self.away:
            raise Unavailable("the database is away")
        return value


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def cache(source: Source, clock: HeldClock) -> ReadThrough[str]:
    return ReadThrough(source.read, LIFETIMES, 3, clock)


async def test_a_fresh_answer_is_not_asked_for_again(
    cache: ReadThrough[str], source: Source, clock: HeldClock
) -> None:
    source.values["a"] = "1"
    assert await cache.get("a") == "1"
    source.values["a"] = "2"
    clock.now_s += 4.9
    assert await cache.get("a") == "1"
    clock.now_s += 0.2
    assert await cache.get("a") == "2"
    assert source.asked == ["a", "a"]


async def test_that_something_is_absent_is_believed_for_a_second_only(
    cache: ReadThrough[str], source: Source, clock: HeldClock
) -> None:
    assert await cache.get("a") is None
    source.values["a"] = "1"
    assert await cache.get("a") is None
    clock.now_s += 1.1
    assert await cache.get("a") == "1"


async def test_a_hundred_who_ask_at_once_cost_one_question(
    cache: ReadThrough[str], source: Source
) -> None:
    source.values["a"] = "1"
    source.answering.clear()
    waiting = [asyncio.create_task(cache.get("a")) for _ in range(100)]
    await asyncio.sleep(0)
    waiting[0].cancel()  # the one that asked first gives up: the others still get their answer
    source.answering.set()
    assert await asyncio.gather(*waiting[1:]) == ["1"] * 99
    assert source.asked == ["a"]


async def test_known_things_go_on_while_the_database_is_away_but_not_for_ever(
    cache: ReadThrough[str], source: Source, clock: HeldClock
) -> None:
    source.values["a"] = "1"
    await cache.get("a")
    source.away = True
    clock.now_s += 59
    assert await cache.get("a") == "1"
    with pytest.raises(Unavailable):
        await cache.get("unknown")
    clock.now_s += 6
    with pytest.raises(Unavailable):
        await cache.get("a")
    source.away = False
    assert await cache.get("a") == "1"


async def test_absence_is_not_claimed_while_the_database_is_away(
    cache: ReadThrough[str], source: Source, clock: HeldClock
) -> None:
    """Else an index created a minute ago would have its log entries thrown away as unknown."""
    assert await cache.get("a") is None
    source.away = True
    clock.now_s += 2
    with pytest.raises(Unavailable):
        await cache.get("a")


async def test_a_silent_database_holds_nobody_up_who_has_an_old_answer(
    cache: ReadThrough[str], source: Source, clock: HeldClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.catalog.read_through.PATIENCE_S", 0.01)
    source.values["a"] = "1"
    await cache.get("a")
    clock.now_s += 6
    source.answering.clear()
    assert await cache.get("a") == "1"
    assert await cache.get("a") == "1"  # not asked again at once: the first question still waits
    assert source.asked == ["a", "a"]
    source.answering.set()


async def test_what_is_told_during_a_question_outdoes_its_answer(
    cache: ReadThrough[str], source: Source
) -> None:
    """A question for an index that is not there yet must not hide its creation afterwards."""
    source.answering.clear()
    asking = asyncio.create_task(cache.get("a"))
    await asyncio.sleep(0)
    source.values["a"] = "created"
    cache.put("a", "created")
    source.answering.set()
    assert await asking == "created"
    assert await cache.get("a") == "created"


@pytest.mark.parametrize("told", ["forgotten", "gone"])
async def test_an_old_answer_that_was_taken_back_meanwhile_is_not_kept_for_longer(
    cache: ReadThrough[str],
    source: Source,
    clock: HeldClock,
    monkeypatch: pytest.MonkeyPatch,
    told: str,
) -> None:
    """Else a key that is revoked while the database is slow works on in this very process."""
    monkeypatch.setattr("infra.catalog.read_through.PATIENCE_S", 0.01)
    source.values["a"] = "1"
    await cache.get("a")
    clock.now_s += 6
    source.answering.clear()
    asking = asyncio.create_task(cache.get("a"))
    await asyncio.sleep(0)
    del source.values["a"]
    if told == "gone":
        cache.put("a", None)
    else:
        cache.forget(lambda _: True)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(asking), 0.05)
    source.answering.set()
    await asking
    assert await cache.get("a") is None


async def test_the_number_of_answers_is_bounded(cache: ReadThrough[str], source: Source) -> None:
    for key in "abcd":
        await cache.get(key)
    await cache.get("d")
    assert source.asked == list("abcd")
    await cache.get("a")
    assert source.asked == list("abcda")


@pytest.fixture
async def catalog(tmp_path: Path) -> AsyncIterator[Catalog]:
    catalog = Catalog.open(f"sqlite:///{tmp_path / 'catalog.db'}")
    yield catalog
    await catalog.close()


async def test_the_directory_learns_of_a_deletion_within_seconds(
    catalog: Catalog, clock: HeldClock
) -> None:
    project = (await catalog.ensure_project()).project_id
    index = await catalog.create_index(project, NEW, None)
    directory = CatalogDirectory(catalog, clock)
    found = await directory.find(index.info.index_id)
    assert found == index.info
    await catalog.delete_index(project, "movies")
    clock.now_s += 5.1
    deleted = await directory.find(index.info.index_id)
    assert deleted is not None
    assert deleted.state is IndexState.DELETED
    assert await directory.find("never-existed") is None


async def test_a_revoked_key_is_refused_within_seconds(catalog: Catalog, clock: HeldClock) -> None:
    project = (await catalog.ensure_project()).project_id
    key = await catalog.add_key(project, "my-own-key")
    callers = Callers(catalog, clock)
    assert (await callers.prove("my-own-key")).project_id == project
    await catalog.revoke_key(key.key_id)
    clock.now_s += 3.1
    with pytest.raises(Unauthenticated):
        await callers.prove("my-own-key")


async def test_a_key_made_in_this_process_is_valid_at_once(
    catalog: Catalog, clock: HeldClock
) -> None:
    callers = Callers(catalog, clock)
    with pytest.raises(Unauthenticated):
        await callers.prove("my-own-key")
    await catalog.add_key((await catalog.ensure_project()).project_id, "my-own-key")
    callers.forget()
    await callers.prove("my-own-key")


@pytest.mark.parametrize("key", ["", "x" * 513, "nobody's"])
async def test_what_is_no_key_is_refused(catalog: Catalog, clock: HeldClock, key: str) -> None:
    with pytest.raises(Unauthenticated):
        await Callers(catalog, clock).prove(key)
