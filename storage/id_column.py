"""`IdColumn`: many ids as one array of bytes, sorted, taken and compared without a Python object
for each.

Ids are UTF-8, whose byte order is the order of code points. The work is pyarrow's: it lets go of
the interpreter lock while it sorts.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]
Places = npt.NDArray[np.integer]
# pyarrow's type stubs lag behind it: its arrays are handled untyped here.
_Array = Any


class IdColumn:
    """Immutable. Fewer than 2 GiB of text."""

    def __init__(self, array: _Array) -> None:
        """`array`: a pyarrow binary array without nulls."""
        self._array = array

    @classmethod
    def of(cls, ids: Sequence[str]) -> "IdColumn":
        return cls(pa.array(ids, type=pa.string()).cast(pa.binary()))

    @classmethod
    def over(cls, offsets: U32, text: U8) -> "IdColumn":
        """Views: id i is text[offsets[i]:offsets[i + 1]]."""
        views: tuple[_Array, _Array] = (offsets, text)
        buffers = [None, *(pa.py_buffer(view) for view in views)]
        return cls(pa.Array.from_buffers(pa.binary(), len(offsets) - 1, buffers))

    @classmethod
    def concat(cls, parts: "Sequence[IdColumn]") -> "IdColumn":
        """At least one part."""
        return cls(pa.concat_arrays([part._array for part in parts]))

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, place: int) -> bytes:
        value: bytes = self._array[place].as_py()
        return value

    @property
    def offsets(self) -> U32:
        """uint32 (n + 1,), from 0 on."""
        raw = np.frombuffer(self._array.buffers()[1], dtype="<i4")
        start = self._array.offset
        bounds: npt.NDArray[np.int32] = raw[start : start + len(self) + 1]
        from_zero: U32 = (bounds - bounds[0]).view(np.uint32)
        return from_zero

    @property
    def text(self) -> bytes:
        """All ids, one after the other."""
        start, count = self._array.offset, len(self)
        raw = np.frombuffer(self._array.buffers()[1], dtype="<i4")
        data = self._array.buffers()[2]
        whole = b"" if data is None else memoryview(data)
        return bytes(whole[raw[start] : raw[start + count]])

    def order(self) -> npt.NDArray[np.int64]:
        """int64 (n,): the places in ascending order of their ids."""
        return np.asarray(pc.array_sort_indices(self._array)).astype(np.int64)

    def take(self, places: Places) -> "IdColumn":
        return IdColumn(self._array.take(pa.array(places)))

    def slice(self, start: int, end: int) -> "IdColumn":
        return IdColumn(self._array.slice(start, end - start))

    def equal(self, other: "IdColumn") -> npt.NDArray[np.bool_]:
        """bool (n,): where both have the same id; of equal length."""
        return np.asarray(pc.equal(self._array, other._array), dtype=np.bool_)

    def bytes_of(self) -> list[bytes]:
        values: list[bytes] = self._array.to_pylist()
        return values

    def strings(self) -> list[str]:
        values: list[str] = self._array.cast(pa.string()).to_pylist()
        return values

    def first_from(self, key: bytes) -> int:
        """In an ascending column: the first place whose id is >= `key`."""
        return bisect_left(range(len(self)), key, key=self.__getitem__)
