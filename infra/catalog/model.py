"""What the catalog holds, as plain values."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from core.indexes import IndexInfo, IndexState, VectorType
from core.metric import Metric

Spec = dict[str, Any]
"""JSON object: how the index was asked to be deployed; kept and shown, it decides nothing here."""

# In a spec: what the index was made of.
SOURCE_COLLECTION = "source_collection"
SOURCE_BACKUP = "source_backup_id"


class KeyRole(StrEnum):
    """`ADMIN` may do everything in its project, its keys and indexes included. `READ_WRITE` writes
    records and reads everything, `READ_ONLY` only reads.
    """

    ADMIN = "admin"
    READ_WRITE = "read-write"
    READ_ONLY = "read-only"


@dataclass(frozen=True, slots=True)
class Project:
    project_id: str
    name: str
    created_ms: int


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret. `prefix` is the part that people may see."""

    key_id: str
    project_id: str
    name: str
    prefix: str
    role: KeyRole
    created_ms: int
    revoked_ms: int | None
    expires_ms: int | None

    def is_valid(self, now_ms: int) -> bool:
        """Neither revoked nor expired."""
        return self.revoked_ms is None and (self.expires_ms is None or now_ms < self.expires_ms)


@dataclass(frozen=True, slots=True)
class KeyChange:
    """None: leave it as it is."""

    name: str | None = None
    role: KeyRole | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request, proved by an API key. `until_ms`: when what was proved ends by itself."""

    key_id: str
    project_id: str
    role: KeyRole
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class NewIndex:
    """An index to be created; validated by the caller. `dimension` None exactly for sparse."""

    name: str
    dimension: int | None
    metric: Metric
    vector_type: VectorType
    spec: Spec
    deletion_protection: bool
    tags: dict[str, str]
    state: IndexState = IndexState.READY


@dataclass(frozen=True, slots=True)
class CatalogIndex:
    """An index with all that the control plane knows. `port` None: it is known by its DNS name."""

    info: IndexInfo
    port: int | None
    spec: Spec
    deletion_protection: bool
    tags: dict[str, str]
    created_ms: int
    deleted_ms: int | None


@dataclass(frozen=True, slots=True)
class LogEpoch:
    """The log that LSNs of this epoch belong to."""

    log_id: str
    epoch: int
    partitions: int
