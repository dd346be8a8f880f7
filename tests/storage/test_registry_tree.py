"""The registry as a tree: any number of namespaces, of which a commit writes those that changed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import CorruptData, Fenced, ObjectNotFound, Unavailable
from storage import registry_tree
from storage.layout import registry_prefix, registry_sections_prefix
from storage.registry import RegistryState, RegistryStore
from storage.registry_tree import (
    MERGE_ROWS,
    SECTION_ROWS,
    SPLIT_ROWS,
    IndexTotals,
    NamespaceSummary,
    RegistryKey,
)
from tests.storage.memory_store import MemoryStore

Changes = dict[RegistryKey, NamespaceSummary | None]


def blank(owner_epoch: int = 1) -> RegistryState:
    return RegistryState(
        partition=3,
        log_id="log",
        log_epoch=1,
        owner_epoch=owner_epoch,
        version=0,
        commit_uuid="",
    )


def summary(number: int = 1, **changes: Any) -> NamespaceSummary:
    return NamespaceSummary(generation=1, version=number, record_count=number, **changes)


def many(count: int, first: int = 0, index: str = "i") -> Changes:
    return {(index, f"n{n:06d}"): summary(n + 1) for n in range(first, first + count)}


@dataclass
class Owner:
    """A partition's owner, and a dict as the truth."""

    store: MemoryStore = field(default_factory=MemoryStore)
    state: RegistryState = field(default_factory=blank)
    truth: dict[RegistryKey, NamespaceSummary] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.registry = RegistryStore(self.store)

    async def commit(self, changes: Changes, checkpoint: int | None = None) -> None:
        wanted = self.state.checkpoint + 1 if checkpoint is None else checkpoint
        following = await self.registry.changed(self.state, changes, wanted)
        if following is not self.state:
            await self.registry.commit(following)
        self.state = following
        for key, one in changes.items():
            self.truth.pop(key, None)
            if one is not None:
                self.truth[key] = one

    async def take_over(self) -> None:
        self.state = msgspec.structs.replace(
            self.state,
            owner_epoch=self.state.owner_epoch + 1,
            version=self.state.version + 1,
            commit_uuid="taken over",
        )
        await self.registry.commit(self.state)

    @property
    def section_keys(self) -> set[str]:
        return {k for k in self.store.objects if k.startswith(registry_sections_prefix(3))}

    @property
    def named_keys(self) -> set[str]:
        refs = [ref.object for ref in self.state.sections]
        return {registry_prefix(3) + ref.name for ref in refs if ref is not None}

    async def check(self) -> None:
        """As a process sees it that has nothing in memory."""
        reader = RegistryStore(self.store)
        state = await reader.newest(3)
        assert state == self.state
        assert [row async for row in reader.walk(state)] == sorted(self.truth.items())
        assert state.count == len(self.truth)
        assert state.indexed_lsn == max((s.indexed_lsn for s in self.truth.values()), default=-1)
        left = [key async for key, _ in reader.unfinished(state)]
        wanted = {k for k, s in self.truth.items() if s.unfinished and not s.deleted}
        assert set(left) == wanted | {k for k, s in self.truth.items() if s.held_from >= 0}
        for index in {index for index, _ in self.truth}:
            alive = [s for (i, _), s in self.truth.items() if i == index and not s.deleted]
            totals = IndexTotals(len(alive), sum(s.record_count for s in alive), 0)
            assert state.totals(index) == totals
        for ref in state.sections:
            assert ref.count <= registry_tree.SPLIT_ROWS
            assert (ref.object is None) == (len(state.sections) == 1 and ref.inline != b"")


names = st.text("abé/", max_size=3)
keys = st.tuples(st.sampled_from(["i", "j"]), st.text("abé/", min_size=1, max_size=3))
rows = st.builds(
    summary,
    st.integers(1, 5),
    indexed_lsn=st.integers(-1, 9),
    deleted=st.booleans(),
    unfinished=st.booleans(),
    held_from=st.integers(-1, 9),
)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.dictionaries(keys, st.none() | rows, max_size=40), max_size=8),
    index=st.sampled_from(["i", "j", "k"]),
    prefix=names,
    after=names,
)
async def test_it_says_what_a_dict_says(
    steps: list[Changes], index: str, prefix: str, after: str
) -> None:
    owner = Owner()
    with sections_of_a_handful():
        for changes in steps:
            await owner.commit(changes)
            await owner.check()
            matching = sorted(n for i, n in owner.truth if i == index and n.startswith(prefix))
            found = owner.registry.walk(owner.state, index, prefix, after)
            expected = [n for n in matching if n > after]
            assert [name async for (_, name), _ in found] == expected
            alive = [n for n in matching if not owner.truth[index, n].deleted]
            assert await owner.registry.count(owner.state, index, prefix) == len(alive)
            one = (index, after)
            assert await owner.registry.get(owner.state, one) == owner.truth.get(one)


@contextmanager
def sections_of_a_handful() -> Iterator[None]:
    """So that hypothesis finds splits and merges."""
    with pytest.MonkeyPatch.context() as patch:
        for name, size in (("SECTION_ROWS", 4), ("SPLIT_ROWS", 7), ("MERGE_ROWS", 2)):
            patch.setattr(registry_tree, name, size)
        yield


async def test_a_few_namespaces_are_one_object() -> None:
    owner = Owner()
    await owner.commit(many(SPLIT_ROWS))
    assert len(owner.store.objects) == 1
    await owner.check()


async def test_a_commit_writes_only_the_sections_it_changes() -> None:
    owner = Owner()
    await owner.commit(many(20_000))
    assert len(owner.state.sections) == 20_000 // SECTION_ROWS
    await owner.check()
    before = owner.section_keys
    owner.store.calls.clear()
    await owner.commit({("i", "n012345"): summary(7), ("i", "n000000"): summary(8)})
    assert len(owner.section_keys - before) == 2
    assert owner.store.calls == {"put": 2, "put_if_absent": 1, "list": 1}
    owner.store.calls.clear()
    await owner.commit({}, checkpoint=1000)
    assert owner.store.calls["put"] == 0, "a checkpoint alone writes the root"
    await owner.check()


async def test_what_says_nothing_new_is_not_written() -> None:
    owner = Owner()
    await owner.commit(many(3))
    same = await owner.registry.changed(owner.state, many(3), owner.state.checkpoint)
    assert same is owner.state


async def test_small_sections_are_joined_again() -> None:
    owner = Owner()
    await owner.commit(many(3_000))
    gone = dict.fromkeys([key for key in owner.truth if not key[1].endswith("0")])
    await owner.commit(gone)
    await owner.check()
    assert len(owner.state.sections) <= 300 // MERGE_ROWS + 1
    await owner.commit(dict.fromkeys(list(owner.truth)))
    assert owner.state.sections == ()


async def test_a_page_reads_the_sections_it_needs() -> None:
    owner = Owner()
    await owner.commit(many(20_000))
    reader = RegistryStore(owner.store)
    owner.store.calls.clear()
    found = []
    async for (_, name), _ in reader.walk(owner.state, "i", "n01", "n012"):
        found.append(name)
        if len(found) == 10:
            break
    assert found == [f"n01{n:04d}" for n in range(2000, 2010)]
    assert owner.store.calls["get"] <= 2
    assert await reader.count(owner.state, "i", "n01") == 10_000
    assert owner.store.calls["get"] <= 4, "whole sections are counted by their reference"


async def test_the_sections_held_in_memory_are_bounded() -> None:
    owner = Owner()
    await owner.commit(many(20_000))
    reader = RegistryStore(owner.store, cache_bytes=100_000)
    for _ in range(2):
        assert len([row async for row in reader.walk(owner.state)]) == 20_000
    held = sum(len(body) for body in reader._cached.values())
    assert 0 < held == reader._cached_bytes <= 100_000


async def test_a_reader_of_an_old_root_goes_on_with_the_newest() -> None:
    owner = Owner()
    await owner.commit(many(3_000))
    old, reader = owner.state, RegistryStore(owner.store)
    walk = reader.walk(old)
    first = [await anext(walk) for _ in range(700)]
    await owner.commit(dict.fromkeys(many(600)) | {("i", "n002999"): summary(1)})
    for key in owner.section_keys - owner.named_keys:
        del owner.store.objects[key]
    reader._cached.clear()
    rest = [row async for row in walk]
    seen = [name for (_, name), _ in first + rest]
    assert seen == sorted(set(seen))
    assert set(seen) >= {name for _, name in owner.truth}
    assert rest[-1][1] == summary(1)


async def test_sections_that_no_root_names_are_deleted_after_a_round() -> None:
    owner = Owner()
    await owner.commit(many(3_000))
    for number in range(5):
        await owner.commit({("i", "n000000"): summary(number + 10)})
    replaced = owner.section_keys - owner.named_keys
    assert len(replaced) == 5
    unnamed = await owner.registry.sweep(owner.state, frozenset())
    assert unnamed == replaced
    assert owner.section_keys >= replaced, "readers may still look"
    await owner.commit({("i", "n000000"): summary(99)})
    unnamed = await owner.registry.sweep(owner.state, unnamed)
    assert len(unnamed) == 1
    assert len(owner.section_keys - owner.named_keys) == 1
    await owner.registry.sweep(owner.state, unnamed)
    assert owner.section_keys == owner.named_keys
    await owner.check()


async def test_a_zombie_deletes_no_section_of_the_new_owner() -> None:
    owner = Owner()
    await owner.commit(many(3_000))
    zombie, unnamed = owner.registry, owner.section_keys  # it takes all for unnamed: the worst
    old = owner.state
    owner.registry = RegistryStore(owner.store)
    await owner.take_over()
    await owner.commit({("i", "n000001"): summary(50)})
    every = frozenset(unnamed | owner.section_keys)
    assert await zombie.sweep(old, every) == frozenset()
    await owner.check()


async def test_a_zombie_whose_sections_are_gone_is_fenced() -> None:
    owner = Owner()
    await owner.commit(many(3_000))
    old = owner.state
    await owner.take_over()
    await owner.commit({("i", "n000001"): summary(50)})
    for key in owner.section_keys - owner.named_keys:
        del owner.store.objects[key]
    with pytest.raises(Fenced, match="owner epoch 2"):
        await RegistryStore(owner.store).changed(old, {("i", "n000000"): summary(1)}, 5)


async def test_a_section_that_is_missing_or_damaged_is_named() -> None:
    owner = Owner()
    await owner.commit(many(3_000))
    key = sorted(owner.named_keys)[0]
    good = owner.store.objects[key]
    for bad in (good[:-1], good[:50] + bytes([good[50] ^ 1]) + good[51:]):
        owner.store.objects[key] = bad
        with pytest.raises(CorruptData, match=key.rpartition("/")[2]):
            await owner.check()
    del owner.store.objects[key]
    with pytest.raises(CorruptData, match="missing"):
        await owner.check()


@pytest.mark.parametrize("how", ["failing", "lost_answers"])
@pytest.mark.parametrize("verb", ["put", "put_if_absent", "list", "get", "delete"])
async def test_any_call_may_fail_and_the_commit_is_repeated(verb: str, how: str) -> None:
    owner = Owner()
    await owner.commit(many(3_000))
    changes: Changes = {("i", f"n{n:06d}"): summary(n + 7) for n in range(0, 3_000, 700)}
    before = owner.state
    for _ in range(3):
        owner.registry = RegistryStore(owner.store)
        getattr(owner.store, how)[verb] = 1
        try:
            await owner.commit(changes)
        except (Unavailable, ObjectNotFound):
            owner.state = await RegistryStore(owner.store).newest(3) or before
            await owner.commit(changes)
        getattr(owner.store, how)[verb] = 0
        await owner.check()
