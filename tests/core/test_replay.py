"""One operation's effect on one record: so that every consumer comes to the same state."""

import numpy as np
import pytest

from core.filters.parse import parse_filter
from core.operations import (
    CreateNamespace,
    DeleteAll,
    DeleteByFilter,
    DeleteIds,
    DeleteNamespace,
    Operation,
    UpdateByFilter,
    UpdateById,
    Upsert,
)
from core.records import Metadata, Record, SparseValues
from core.replay import apply_to

SPARSE = SparseValues(np.array([1], dtype=np.uint32), np.array([1.0], dtype=np.float32))


def record(record_id: str, *values: float, **metadata: str | float) -> Record:
    return Record(record_id, np.array(values, dtype=np.float32), None, dict(metadata))


OLD = record("a", 1, 2, genre="drama", year=2000.0)


def test_an_upsert_overwrites_the_whole_record() -> None:
    new = record("a", 3, 4, genre="comedy")
    assert apply_to(OLD, Upsert((record("b", 0), new))) is new
    assert apply_to(None, Upsert((new,))) is new


def test_the_last_of_two_records_with_one_id_wins() -> None:
    first, last = record("a", 1), record("a", 2)
    assert apply_to(OLD, Upsert((first, record("b", 0), last))) is last
    assert apply_to(None, Upsert((first, last)), "a") is last


def test_an_upsert_of_others_changes_nothing() -> None:
    assert apply_to(OLD, Upsert((record("b", 0),))) is OLD
    assert apply_to(None, Upsert((record("b", 0),)), "a") is None


def test_an_upsert_of_several_over_nothing_needs_to_know_the_id() -> None:
    with pytest.raises(ValueError, match="id"):
        apply_to(None, Upsert((record("a", 0), record("b", 0))))


def test_an_update_replaces_values_and_merges_metadata() -> None:
    changes: Metadata = {"year": 2001.0, "new": True}
    new = apply_to(OLD, UpdateById("a", np.array([9, 9], dtype=np.float32), SPARSE, changes))
    assert new is not None
    assert new.values is not None
    assert new.values.tolist() == [9.0, 9.0]
    assert new.sparse is SPARSE
    assert new.metadata == {"genre": "drama", "year": 2001.0, "new": True}
    assert OLD.metadata == {"genre": "drama", "year": 2000.0}, "the older version is untouched"


def test_an_update_keeps_what_it_does_not_name() -> None:
    new = apply_to(OLD, UpdateById("a", set_metadata={"year": 1.0}))
    assert new is not None
    assert new.values is OLD.values


def test_an_update_of_a_missing_or_another_record_does_nothing() -> None:
    assert apply_to(None, UpdateById("a", set_metadata={"year": 1.0})) is None
    assert apply_to(OLD, UpdateById("b", set_metadata={"year": 1.0})) is OLD


def test_an_update_by_filter_touches_only_what_matches() -> None:
    hit = UpdateByFilter(parse_filter({"genre": "drama"}), {"seen": True})
    new = apply_to(OLD, hit)
    assert new is not None
    assert new.metadata == {**OLD.metadata, "seen": True}
    assert apply_to(OLD, UpdateByFilter(parse_filter({"genre": "x"}), {"seen": True})) is OLD
    assert apply_to(None, hit) is None


@pytest.mark.parametrize(
    ("operation", "survives"),
    [
        (DeleteIds(("b", "a")), False),
        (DeleteIds(("b",)), True),
        (DeleteByFilter(parse_filter({"year": {"$lt": 2001}})), False),
        (DeleteByFilter(parse_filter({"year": {"$gt": 2001}})), True),
        (DeleteAll(), False),
        (DeleteNamespace(), False),
        (CreateNamespace(), True),
    ],
)
def test_deletions(operation: Operation, survives: bool) -> None:
    assert apply_to(OLD, operation) is (OLD if survives else None)
    assert apply_to(None, operation) is None
