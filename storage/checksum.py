"""Checksums of objects and hashes of ids, at memory speed (xxh3).

Against decay and mix-ups, not against attackers.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xxhash

IdHashes = npt.NDArray[np.uint64]
Buffer = bytes | bytearray | memoryview


def checksum(data: Buffer) -> str:
    """xxh3-128, 32 hex digits. Some 10 GB/s: off the event loop above a few megabytes."""
    return xxhash.xxh3_128_hexdigest(data)


def id_hash(record_id: str) -> int:
    """xxh3-64 of the id's UTF-8 bytes, unsigned."""
    return xxhash.xxh3_64_intdigest(record_id.encode())


def id_hashes(ids: Sequence[str]) -> IdHashes:
    """uint64 (n,): `id_hash` of each."""
    digest = xxhash.xxh3_64_intdigest
    return np.fromiter((digest(i.encode()) for i in ids), dtype=np.uint64, count=len(ids))
