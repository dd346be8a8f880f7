"""Records and the write operations on them: the domain's own types, free of any wire format.

Dense vectors are float32 (d,), C-contiguous, finite, never all zero, kept exactly as they were sent
(lossless). Metadata is a flat dict of str -> str | float | bool | list[str]; numbers are float64,
an absent dict is an empty one.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
MetadataValue = str | float | bool | list[str]
Metadata = dict[str, MetadataValue]


@dataclass(frozen=True, slots=True, eq=False)
class SparseValues:
    """`indices` uint32 (nnz,), strictly ascending; `values` float32 (nnz,), finite."""

    indices: npt.NDArray[np.uint32]
    values: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One record. At least one of `values` and `sparse` is there."""

    id: str
    values: Vector | None
    sparse: SparseValues | None
    metadata: Metadata


@dataclass(frozen=True, slots=True, eq=False)
class StoredRecord:
    """A record's newest version and the LSN of the write that made it (an update makes a new
    version).
    """

    record: Record
    lsn: int


def record_bytes(record: Record) -> int:
    """About how many bytes its parts take: values, sparse values, metadata, id."""
    size = len(record.id)
    if record.values is not None:
        size += record.values.nbytes
    if record.sparse is not None:
        size += record.sparse.indices.nbytes + record.sparse.values.nbytes
    return size + _metadata_bytes(record.metadata)


def _metadata_bytes(metadata: Metadata) -> int:
    size = 0
    for key, value in metadata.items():
        size += len(key) + 4
        if isinstance(value, str):
            size += len(value)
        elif isinstance(value, list):
            size += sum(len(element) + 3 for element in value)
        else:
            size += 8
    return size
