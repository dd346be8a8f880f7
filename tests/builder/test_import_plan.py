"""The plan of an import: what goes where, in an order that is the same for whoever goes on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.importing.plan import decode_plan, encode_plan, namespaces_of, place_of, position
from core.errors import InvalidRequest
from core.limits import IMPORT_FILES_MAX, IMPORT_NAMESPACES_MAX
from core.log import NO_LSN
from infra.imports.source import SourceFile


def files(*paths: str) -> list[SourceFile]:
    return [SourceFile(path, 10 + n, n) for n, path in enumerate(paths)]


def test_the_first_folder_names_the_namespace() -> None:
    made = namespaces_of(
        files("__default__/0.parquet", "a/0.parquet", "a/x/1.parquet", "b/2.parquet")
    )
    assert [(one.name, one.first, len(one.files)) for one in made] == [
        ("__default__", 0, 1),
        ("a", 1, 2),
        ("b", 3, 1),
    ]


def test_a_plan_is_kept_as_bytes() -> None:
    made = files("a/0.parquet", "b/1.parquet")
    assert decode_plan(encode_plan(made)) == made


@pytest.mark.parametrize("name", ["é", "x" * 513, "a\0b"])
def test_a_folder_that_cannot_be_a_namespace_is_named(name: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot be a namespace"):
        namespaces_of(files(f"{name}/0.parquet"))


def test_namespaces_are_bounded_in_number() -> None:
    many = files(*(f"n{number:05d}/0.parquet" for number in range(IMPORT_NAMESPACES_MAX + 1)))
    assert len(namespaces_of(many[:-1])) == IMPORT_NAMESPACES_MAX
    with pytest.raises(InvalidRequest, match="10000 namespaces at most, the folder holds 10001"):
        namespaces_of(many)


PLACES = st.tuples(st.integers(0, IMPORT_FILES_MAX), st.integers(0, (1 << 40) - 1))


@given(PLACES, PLACES)
def test_positions_are_in_order_and_below_every_log(
    one: tuple[int, int], other: tuple[int, int]
) -> None:
    assert place_of(position(*one)) == one
    assert (position(*one) < position(*other)) == (one < other)
    assert -(1 << 63) < position(*one) < NO_LSN
