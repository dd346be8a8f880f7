"""Which ids were written above an LSN: the shadow that a query lays over the files."""

import numpy as np
import numpy.typing as npt

from freshness.protocol import Hashes

_FIRST_CAPACITY = 64


class TouchLog:
    """(LSN, id hash) of every individual write, in log order. Appends only; older views stay
    valid.
    """

    def __init__(self) -> None:
        self._lsns: npt.NDArray[np.int64] = np.empty(_FIRST_CAPACITY, dtype=np.int64)
        self._hashes: Hashes = np.empty(_FIRST_CAPACITY, dtype=np.uint64)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def size_bytes(self) -> int:
        return self._lsns.nbytes + self._hashes.nbytes

    def add(self, lsn: int, hashes: Hashes) -> None:
        """`lsn` is at or above every one before."""
        end = self._count + len(hashes)
        if end > len(self._lsns):
            self._move(0, max(end, 2 * len(self._lsns)))
        self._lsns[self._count : end] = lsn
        self._hashes[self._count : end] = hashes
        self._count = end

    def above(self, lsn: int) -> Hashes:
        """A view, in log order and with repetitions: `np.unique` it in a thread."""
        start = int(np.searchsorted(self._lsns[: self._count], lsn, side="right"))
        return self._hashes[start : self._count]

    def forget(self, upto_lsn: int) -> None:
        """Drops what is at or below; copies the rest only when at least half of it goes."""
        start = int(np.searchsorted(self._lsns[: self._count], upto_lsn, side="right"))
        if 2 * start >= self._count:
            self._move(start, max(_FIRST_CAPACITY, 2 * (self._count - start)))

    def _move(self, start: int, capacity: int) -> None:
        kept = self._count - start
        lsns = np.empty(capacity, dtype=np.int64)
        hashes = np.empty(capacity, dtype=np.uint64)
        lsns[:kept] = self._lsns[start : self._count]
        hashes[:kept] = self._hashes[start : self._count]
        self._lsns, self._hashes, self._count = lsns, hashes, kept
