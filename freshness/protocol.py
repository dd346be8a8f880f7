"""What a query asks of the freshness layer and what it gets: the shadow of everything above its
manifest.

A reader has a manifest that is complete up to `manifest_lsn` (m). The freshness layer ignores
whatever it holds at or below m *before* anything else, and describes what the log says above m, as
of one LSN, `applied_lsn`. Together they are the namespace as of max(m, applied_lsn). LSNs are
inclusive; `NO_LSN` is "nothing".

Why no write can fall into a hole between the two: freshness forgets an entry only when a published
manifest and the partition's published checkpoint cover it, and then raises a floor. A reader below
the floor is sent back (`REREAD`, or `UNPROVEN` where the namespace is not held at all): it proves
its manifest newest (the next version is absent). All entries up to `floor_lsn` are in published
manifests, so the proven manifest is complete up to max(indexed_lsn, floor_lsn), and that is the m
it asks with again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from core.filters.model import Filter
from core.log import NO_LSN
from core.metric import Metric
from core.operations import DeleteByFilter, UpdateByFilter, UpdateById
from core.records import SparseValues, StoredRecord, Vector

Hashes = npt.NDArray[np.uint64]

# Shadow hashes in one answer: 100k x 8 bytes stay below a millisecond on a wire; beyond it a reader
# asks by candidate.
TOUCHED_MAX = 100_000


class FreshStatus(StrEnum):
    """What the reader may do with the answer.

    OK: as of `applied_lsn`, which may be below `want_lsn` if the deadline came first.
    BEHIND: applied less than m, so it contributes nothing; the manifest alone is the answer.
    REREAD, UNPROVEN: m is below `floor_lsn`; prove the manifest newest, then ask again.
    NOT_OWNER, NOT_READY: ask the partition's owner, or later.
    """

    OK = "ok"
    BEHIND = "behind"
    REREAD = "reread"
    UNPROVEN = "unproven"
    NOT_OWNER = "not_owner"
    NOT_READY = "not_ready"


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """Top k of the fresh records. In a dense index `vector` is there, in a sparse one `sparse`;
    both: scores are added.
    """

    k: int
    vector: Vector | None
    sparse: SparseValues | None = None
    filter: Filter | None = None
    include_values: bool = True


@dataclass(frozen=True, slots=True)
class Listing:
    """The first `limit` fresh ids that start with `prefix` and are > `after`, in code point
    order.
    """

    prefix: str
    after: str
    limit: int


@dataclass(frozen=True, slots=True)
class Selection:
    """The fresh records that match `filter`: how many, and the first `limit` of those with ids >
    `after`, in code point order, fewer once they take `bytes_max` (`core.records.record_bytes`).
    """

    filter: Filter
    after: str = ""
    limit: int = 0
    bytes_max: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Selected:
    """`count`: of all that match. `more`: some come after the last of `records`."""

    count: int = 0
    records: tuple[StoredRecord, ...] = ()
    more: bool = False


@dataclass(frozen=True, slots=True)
class OutcomeKey:
    """One entry of a record, by the request that caused it (a record may hold entries of
    several).
    """

    lsn: int
    request_id: str


@dataclass(frozen=True, slots=True, eq=False)
class FreshRequest:
    """One namespace's shadow. `want_lsn` must be applied (or covered by m) before the answer,
    within `deadline_s`.

    touched_max: how many id hashes the reader takes; 0 for none. ids: whose current version is
    asked. patches_of_all: all pending patches, not only those of `ids`. outcome_lsn: whose outcome
    is asked.
    """

    index_id: str
    namespace: str
    partition: int
    metric: Metric
    dimension: int | None
    manifest_lsn: int
    want_lsn: int = NO_LSN
    deadline_s: float = 2.0
    search: Search | None = None
    ids: tuple[str, ...] = ()
    touched_max: int = 0
    patches_of_all: bool = False
    listing: Listing | None = None
    selection: Selection | None = None
    outcome_of: OutcomeKey | None = None


@dataclass(frozen=True, slots=True)
class Pending:
    """An operation above m that the reader replays on file rows, in the order of (lsn,
    position).
    """

    lsn: int
    position: int
    operation: UpdateById | UpdateByFilter | DeleteByFilter


@dataclass(frozen=True, slots=True, eq=False)
class FreshHit:
    """A complete current version above m that matches, and its exact score. `values` may be left
    out on request.
    """

    stored: StoredRecord
    score: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether the namespace existed just before one entry of the record at `lsn`.

    existed None: nothing held said so; the newest manifest that does not cover `lsn` tells.
    """

    lsn: int
    existed: bool | None


def no_hashes() -> Hashes:
    return np.empty(0, dtype=np.uint64)


@dataclass(frozen=True, slots=True, eq=False)
class FreshAnswer:
    """Empty unless `status` is OK, but for LSNs and `outcome`.

    floor_lsn: what m must reach. overflowed_from: first LSN of this namespace that is not held for
    want of memory and not covered by m: the answer is as of the LSN before it. attaching: it is not
    held because an attach brings in files: the manifest that names them is worth waiting for.
    cleared: something above m emptied the namespace, so no file row counts. exists: what the log
    above m says, None for nothing. ended: something above m deleted the namespace. declared: fields
    of the schema of the life that began above m; counts where the manifest has no namespace, or if
    it `ended`. live: complete current versions above m. touched: sorted unique xxh3-64 of every id
    written above m (upserted, deleted, patched, or changed by a filter operation while held), None
    if more than asked for. current: of the asked ids, those written above m whose state is known;
    None for gone. patches: ids updated above m whose base is in the files. outcome: None if it is
    no longer kept.
    """

    status: FreshStatus
    applied_lsn: int = NO_LSN
    floor_lsn: int = NO_LSN
    overflowed_from: int | None = None
    attaching: bool = False
    cleared: bool = False
    exists: bool | None = None
    ended: bool = False
    declared: tuple[str, ...] | None = None
    live: int = 0
    hits: tuple[FreshHit, ...] = ()
    touched: Hashes | None = field(default_factory=no_hashes)
    current: Mapping[str, StoredRecord | None] = field(default_factory=dict)
    patches: Mapping[str, tuple[Pending, ...]] = field(default_factory=dict)
    filter_ops: tuple[Pending, ...] = ()
    listed: tuple[str, ...] = ()
    selected: Selected = field(default_factory=Selected)
    outcome: Outcome | None = None
    scanned: int = 0


@dataclass(frozen=True, slots=True)
class NamespacesRequest:
    """The namespaces of an index on one partition that freshness holds."""

    index_id: str
    partition: int
    want_lsn: int = NO_LSN
    deadline_s: float = 2.0


class HeldName(NamedTuple):
    """A namespace of which anything is held. exists: what the entries held say, None if nothing.
    overflowed: some are not held, so it has to be asked about.
    """

    name: str
    exists: bool | None
    overflowed: bool


@dataclass(frozen=True, slots=True)
class NamespacesAnswer:
    """Where `held` does not say, a namespace is, or is not, in any registry whose checkpoint is
    above `forgotten_lsn`; counts of those in `held` have to be asked for.
    """

    status: FreshStatus
    applied_lsn: int = NO_LSN
    forgotten_lsn: int = NO_LSN
    held: tuple[HeldName, ...] = ()


@dataclass(frozen=True, slots=True)
class NamespaceUsage:
    """`fraction` of the nearest bound (records or bytes); at 1.0 the namespace overflows."""

    index_id: str
    namespace: str
    records: int
    size_bytes: int
    fraction: float
    overflowed: bool


@dataclass(frozen=True, slots=True)
class FreshUsage:
    """Of one worker: `fraction` of its memory budget, and the namespaces above half of their own
    bounds.
    """

    fraction: float
    size_bytes: int
    namespaces: tuple[NamespaceUsage, ...] = ()


class FreshReader(Protocol):
    """The layer itself in one process, or a client that finds the partition's owner.

    `Unavailable` when the owner cannot be reached within the deadline.
    """

    async def read(self, request: FreshRequest) -> FreshAnswer: ...

    async def namespaces(self, request: NamespacesRequest) -> NamespacesAnswer: ...

    async def usage(self, partition: int) -> FreshUsage: ...
