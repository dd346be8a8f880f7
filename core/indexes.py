"""What every part of the data plane must know of an index, and where it asks for it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from core.metric import Metric

DEFAULT_NAMESPACE = "__default__"
# What an import builds before it is attached; no client can name such a namespace.
_STAGING = "\0import/"


class VectorType(StrEnum):
    DENSE = "dense"
    SPARSE = "sparse"


class IndexState(StrEnum):
    """`DELETED` indexes stay known: their late log entries are skipped, not dead-lettered. Until a
    restore has filled an index it is `INITIALIZING` and answers no client.
    """

    INITIALIZING = "Initializing"
    INITIALIZATION_FAILED = "InitializationFailed"
    READY = "Ready"
    TERMINATING = "Terminating"
    DELETED = "Deleted"

    @property
    def living(self) -> bool:
        """Whether what is written for it counts."""
        return self not in (IndexState.TERMINATING, IndexState.DELETED)


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """`dimension` is None exactly for sparse indexes, whose metric is always dotproduct.

    `index_id` is unique for ever: a re-created index has a new one. It holds no `/`.
    """

    index_id: str
    project_id: str
    name: str
    dimension: int | None
    metric: Metric
    vector_type: VectorType
    state: IndexState


class IndexDirectory(Protocol):
    """The catalog as the data plane sees it: cached, reading through for what it does not know."""

    async def find(self, index_id: str) -> IndexInfo | None:
        """None: no such index ever existed. `Unavailable` while the catalog is away and the cache
        does not know.
        """


def canonical_namespace(name: str | None) -> str:
    """`""` and None are the default namespace, which is always `__default__` here."""
    return name or DEFAULT_NAMESPACE


def staging_namespace(import_id: str, number: int) -> str:
    """Where the `number`-th namespace of an import is built."""
    return f"{_STAGING}{import_id}/{number}"


def shown_name(namespace: str) -> str:
    """For people: of what an import builds, not the name that nobody can type."""
    return f"({namespace[1:]})" if is_staging(namespace) else namespace


def is_staging(namespace: str) -> bool:
    return namespace.startswith(_STAGING)
