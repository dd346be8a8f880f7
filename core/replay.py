"""What one operation does to one record: the rule that freshness, builder and query share."""

from dataclasses import replace

from core.filters.row import matches
from core.operations import (
    Attach,
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
from core.records import Metadata, Record


def apply_to(current: Record | None, op: Operation, record_id: str | None = None) -> Record | None:
    """The record after the operation; None: not there. What does not change is returned as the same
    object.

    `current` is the record before, None if it is not there. `record_id` says which record is meant
    where `current` cannot (an upsert of several records over nothing); without it an upsert must
    hold exactly one record.
    """
    match op:
        case Upsert():
            return _upserted(current, op, record_id)
        case UpdateById():
            return current if current is None or op.id != current.id else patched(current, op)
        case UpdateByFilter(filter=condition, set_metadata=changes):
            if current is None or not matches(condition, current.metadata):
                return current
            return replace(current, metadata=merged(current.metadata, changes))
        case DeleteIds(ids=ids):
            return None if current is None or current.id in ids else current
        case DeleteByFilter(filter=condition):
            gone = current is None or matches(condition, current.metadata)
            return None if gone else current
        case DeleteAll() | DeleteNamespace():
            return None
        case CreateNamespace():
            return current
        case Attach():
            raise ValueError("what an attach brings in is in files, not in the log")


def _upserted(current: Record | None, op: Upsert, record_id: str | None) -> Record | None:
    if record_id is None and current is not None:
        record_id = current.id
    if record_id is None:
        if len(op.records) != 1:
            raise ValueError(
                "an upsert of several records needs the id of the record that is meant"
            )
        return op.records[0]
    # the last record of an id wins
    return next((record for record in reversed(op.records) if record.id == record_id), current)


def patched(current: Record, op: UpdateById) -> Record:
    """Given values replace, metadata keys merge; nothing is ever removed."""
    return Record(
        id=current.id,
        values=current.values if op.values is None else op.values,
        sparse=current.sparse if op.sparse is None else op.sparse,
        metadata=merged(current.metadata, op.set_metadata or {}),
    )


def merged(metadata: Metadata, changes: Metadata) -> Metadata:
    """A new dict: records may share theirs."""
    return {**metadata, **changes} if changes else metadata
