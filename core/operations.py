"""Write operations of one namespace: what a WAL entry says, already validated and typed.

An entry is one operation, atomic. A log record holds one or more entries of one namespace (group
commit); writes are ordered by (LSN of the record, position in the record). `request_id` names the
client request that caused the entry, so that its outcome can be asked for.
"""

from dataclasses import dataclass

from core.filters.model import Filter
from core.records import Metadata, Record, SparseValues, Vector


@dataclass(frozen=True, slots=True)
class Upsert:
    """Full overwrite of 1..n records; an id that occurs twice: the last one wins."""

    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True, eq=False)
class UpdateById:
    """Replaces what is given, merges `set_metadata` keys; does nothing if the id is not there."""

    id: str
    values: Vector | None = None
    sparse: SparseValues | None = None
    set_metadata: Metadata | None = None


@dataclass(frozen=True, slots=True)
class UpdateByFilter:
    """Merges `set_metadata` into every record that matches as of this write."""

    filter: Filter
    set_metadata: Metadata


@dataclass(frozen=True, slots=True)
class DeleteIds:
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeleteByFilter:
    """Deletes every record that matches as of this write."""

    filter: Filter


@dataclass(frozen=True, slots=True)
class DeleteAll:
    """Empties the namespace, which goes on to exist."""


@dataclass(frozen=True, slots=True)
class CreateNamespace:
    """Makes an empty namespace; nothing happens if it exists.

    declared: names of the metadata fields that its schema calls filterable, for people to see: all
    fields can be filtered by. None: no schema.
    """

    declared: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class DeleteNamespace:
    """Ends this life of the namespace; a later write begins a new one."""


@dataclass(frozen=True, slots=True)
class Attach:
    """Begins the content of a namespace with the records of a snapshot, whose files it shares.

    snapshot_id, checksum: of the snapshot object under the source namespace's prefix; it must be a
    branch held by the namespace that this is an entry of. Nothing happens, besides an error in the
    builder's log, unless the namespace is empty at this point of the log, was never attached to in
    this life, and the object is there.

    last_begun: nothing happens either where a life of the namespace began after this LSN, so that
    whoever repeats the entry late brings nothing deleted back; `NO_LSN`: where it ever had a life.
    None: its lives do not matter.
    """

    source_index: str
    source_namespace: str
    snapshot_id: str
    checksum: str
    last_begun: int | None = None


Operation = (
    Upsert
    | UpdateById
    | UpdateByFilter
    | DeleteIds
    | DeleteByFilter
    | DeleteAll
    | CreateNamespace
    | DeleteNamespace
    | Attach
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One operation and the request that asked for it ("" from producers that do not say)."""

    operation: Operation
    request_id: str = ""


@dataclass(frozen=True, slots=True)
class NamespaceWrite:
    """An applicable log record: entries of one namespace at one LSN.

    `value_bytes` is the size of the record's value, for flush and memory bounds.
    """

    partition: int
    lsn: int
    index_id: str
    namespace: str
    entries: tuple[Entry, ...]
    timestamp_ms: int
    value_bytes: int
