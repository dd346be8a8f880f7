"""Keys: whatever a namespace is called, its objects stay below its own prefix, in order."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.layout import (
    hint_key,
    manifest_key,
    manifests_prefix,
    namespace_prefix,
    registry_key,
    registry_prefix,
    version_of,
)

NAMES = st.text(st.characters(exclude_categories=["Cs"]))  # no lone surrogates
HOSTILE = ["..", "../../etc/passwd", "/", "a/b", "", "日本語", "\x00", "manifest", "x" * 512, "."]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_a_harmless_part(name: str) -> None:
    assert re.fullmatch(r"index-1/[0-9a-f]{64}/", namespace_prefix("index-1", name))


@given(NAMES, NAMES)
def test_different_names_have_different_prefixes(one: str, other: str) -> None:
    same = namespace_prefix("i", one) == namespace_prefix("i", other)
    assert same == (one == other)


@pytest.mark.parametrize("index_id", ["", "a/b", "..", ".", "registry"])
def test_an_index_id_that_would_leave_its_place_is_a_bug(index_id: str) -> None:
    with pytest.raises(AssertionError):
        namespace_prefix(index_id, "n")


@given(st.integers(0, 2**63), st.integers(0, 2**63))
def test_keys_order_as_versions_do(one: int, other: int) -> None:
    assert (manifest_key("p/", one) < manifest_key("p/", other)) == (one < other)
    assert (registry_key(7, one) < registry_key(7, other)) == (one < other)
    assert version_of(manifest_key("p/", one)) == version_of(registry_key(7, one)) == one


def test_prefixes_hold_their_keys_and_no_others() -> None:
    prefix = namespace_prefix("index-1", "n")
    assert manifest_key(prefix, 1).startswith(manifests_prefix(prefix))
    assert not hint_key(prefix).startswith(manifests_prefix(prefix))
    assert not registry_key(12, 1).startswith(registry_prefix(1))


@pytest.mark.parametrize("key", ["p/manifests/12", "p/manifests/", "p/manifests/" + "x" * 20, ""])
def test_what_is_no_version_is_none(key: str) -> None:
    assert version_of(key) is None
