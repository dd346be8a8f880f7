"""Where things lie in the object store: the one place that spells keys.

Namespace names are hashed, so that any name (512 bytes, `..`, unicode) is one harmless path part;
the canonical name is kept and checked inside the objects. Numbers in keys are zero-padded, so
listing gives them in order.
"""

import hashlib
from dataclasses import dataclass

from core.metric import Metric

FIRST_VERSION = 1
# 20 digits hold every unsigned 64 bit number.
VERSION_DIGITS = 20
PARTITION_DIGITS = 6
# What lies at the top beside the folders of indexes.
TOP_FOLDERS = ("registry", "backups")


@dataclass(frozen=True, slots=True)
class NamespaceSchema:
    """Which namespace a file belongs to and what its vectors are; `dimension` None for a sparse
    index.
    """

    index_id: str
    namespace: str
    metric: Metric
    dimension: int | None

    @property
    def prefix(self) -> str:
        return namespace_prefix(self.index_id, self.namespace)


def namespace_prefix(index_id: str, namespace: str) -> str:
    """`{index_id}/{sha256 of the canonical namespace}/`: all of a namespace lies below it."""
    assert "/" not in index_id, index_id
    assert index_id not in ("", ".", "..", *TOP_FOLDERS), index_id
    return f"{index_id}/{hashlib.sha256(namespace.encode()).hexdigest()}/"


def manifests_prefix(prefix: str) -> str:
    return f"{prefix}manifests/"


def manifest_key(prefix: str, version: int) -> str:
    return f"{prefix}manifests/{version:0{VERSION_DIGITS}d}"


def hint_key(prefix: str) -> str:
    """The copy of the newest manifest; may lag, never trusted by a writer."""
    return f"{prefix}manifest"


def boundaries_prefix(prefix: str) -> str:
    """Rounds of garbage collection."""
    return f"{prefix}boundary/"


def boundary_key(prefix: str, number: int) -> str:
    return f"{prefix}boundary/{number:0{VERSION_DIGITS}d}"


def snapshots_prefix(prefix: str) -> str:
    return f"{prefix}snapshots/"


def snapshot_key(prefix: str, snapshot_id: str) -> str:
    return f"{prefix}snapshots/{snapshot_id}"


# What lies in folders of these names below a namespace's prefix, or at the top.
OBJECT_KINDS = (
    *("clusters", "deltas", "ids", "manifests", "sections", "boundary", "snapshots"),
    *TOP_FOLDERS,
    "manifest",
    "other",
)


def kind_of(key: str) -> str:
    """One of `OBJECT_KINDS`: `manifest` is the hint; packs count as sections."""
    parts = key.split("/")
    name = parts[0] if parts[0] in TOP_FOLDERS or len(parts) < 3 else parts[2].partition(".")[0]
    return name if name in OBJECT_KINDS else "other"


def backup_prefix(backup_id: str) -> str:
    """The list of a backup's snapshots lies below it."""
    return f"backups/{backup_id}/"


def backup_begun_key(backup_id: str) -> str:
    return f"{backup_prefix(backup_id)}begun"


def backup_again_key(backup_id: str) -> str:
    return f"{backup_prefix(backup_id)}again"


def backup_part_key(backup_id: str, number: int) -> str:
    return f"{backup_prefix(backup_id)}parts/{number:0{VERSION_DIGITS}d}"


def backup_list_key(backup_id: str) -> str:
    return f"{backup_prefix(backup_id)}list"


def registry_prefix(partition: int) -> str:
    return f"registry/{partition:0{PARTITION_DIGITS}d}/"


def registry_key(partition: int, version: int) -> str:
    return f"{registry_prefix(partition)}{version:0{VERSION_DIGITS}d}"


def registry_roots_prefix(partition: int) -> str:
    """What the keys of all versions begin with, and no section's: none has 10^19 predecessors."""
    return f"{registry_prefix(partition)}0"


def registry_sections_prefix(partition: int) -> str:
    return f"{registry_prefix(partition)}sections/"


def registry_section_name(uuid: str) -> str:
    """Below the registry's prefix."""
    return f"sections/{uuid}"


def version_of(key: str) -> int | None:
    """The number at the end of a manifest's, boundary's or registry's key; None for a key that has
    none.
    """
    name = key.rpartition("/")[2]
    return int(name) if len(name) == VERSION_DIGITS and name.isdecimal() else None


def cluster_columns_name(uuid: str) -> str:
    """Names are below the namespace's prefix."""
    return f"clusters/{uuid}.arrow"


def cluster_vectors_name(uuid: str) -> str:
    return f"clusters/{uuid}.ann"


def delta_name(uuid: str) -> str:
    return f"deltas/{uuid}.arrow"


def id_run_name(uuid: str) -> str:
    return f"ids/{uuid}"


def section_name(uuid: str) -> str:
    return f"sections/{uuid}"


def base_pack_key(prefix: str) -> str:
    """A copy of the newest manifest's base sections in one object: a hint as well."""
    return f"{prefix}sections.base"


def edits_pack_key(prefix: str) -> str:
    """The same of its sections of edits."""
    return f"{prefix}sections.edits"


def pack_keys(prefix: str) -> frozenset[str]:
    """Both packs: no manifest names them, and they are no garbage."""
    return frozenset((base_pack_key(prefix), edits_pack_key(prefix)))
