"""`Rows`: records in columns, the currency between readers, the builder and the writers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.records import Metadata, Record, SparseValues, StoredRecord


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """n records in columns, row for row.

    ids: n strings; lsns: int64 (n,); vectors: float32 (n, d) or None in a sparse index; sparse: n
    entries, None where a record has no sparse values; metadata: n dicts, empty where there is none.
    """

    ids: Sequence[str]
    lsns: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32] | None
    sparse: Sequence[SparseValues | None]
    metadata: Sequence[Metadata]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: npt.NDArray[np.int64]) -> "Rows":
        """Those rows, in that order; vectors are copied."""
        picked = rows.tolist()
        return Rows(
            ids=[self.ids[i] for i in picked],
            lsns=self.lsns[rows],
            vectors=None if self.vectors is None else np.ascontiguousarray(self.vectors[rows]),
            sparse=[self.sparse[i] for i in picked],
            metadata=[self.metadata[i] for i in picked],
        )

    def stored(self, row: int) -> StoredRecord:
        values = None if self.vectors is None else np.array(self.vectors[row])
        record = Record(self.ids[row], values, self.sparse[row], self.metadata[row])
        return StoredRecord(record, int(self.lsns[row]))

    @classmethod
    def of(cls, records: Sequence[StoredRecord], dimension: int | None) -> "Rows":
        """Columns of the records; `dimension` None for a sparse index."""
        vectors = None
        if dimension is not None:
            vectors = np.empty((len(records), dimension), dtype=np.float32)
            for row, stored in enumerate(records):
                assert stored.record.values is not None
                vectors[row] = stored.record.values
        return cls(
            ids=[s.record.id for s in records],
            lsns=np.array([s.lsn for s in records], dtype=np.int64),
            vectors=vectors,
            sparse=[s.record.sparse for s in records],
            metadata=[s.record.metadata for s in records],
        )

    @classmethod
    def concat(cls, parts: "Sequence[Rows]") -> "Rows":
        """All rows of all parts, which are at least one and of one index."""
        vectors = None
        if parts[0].vectors is not None:
            vectors = np.concatenate([p.vectors for p in parts if p.vectors is not None])
        return cls(
            ids=[i for p in parts for i in p.ids],
            lsns=np.concatenate([p.lsns for p in parts]),
            vectors=vectors,
            sparse=[s for p in parts for s in p.sparse],
            metadata=[m for p in parts for m in p.metadata],
        )
