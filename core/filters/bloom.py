"""A Bloom filter of one field's strings and numbers: it says "absent" only of what is absent.

Bit j of the filter is bit j % 8 of byte j // 8. A value has `PROBES` bits: for i = 0, 1, ... the
bit `(low + i * step) % bits` (Kirsch and Mitzenmacher, "Less Hashing, Same Performance"). `low` is
the lower half of its XXH3-64, `step` the upper half with its last bit set. The hash is that of a
string's UTF-8 bytes with seed 0, of a number's float64 (little-endian) with seed 1.
"""

import struct
from collections.abc import Collection
from functools import lru_cache

import numpy as np
import xxhash

PROBES = 4
BYTES_MAX = 512
# Beyond 4,096 bits for 1,024 values one absent value in six would pass: not worth its bytes.
VALUES_MAX = 1_024
# 12 bits a value: one absent value in 150 passes.
_BITS_PER_VALUE = 12

_NUMBER = struct.Struct("<d")


def build(values: Collection[str | float]) -> bytes:
    """8 to `BYTES_MAX` bytes, a power of two; no bytes for no values, or for too many."""
    if not 0 < len(values) <= VALUES_MAX:
        return b""
    size = 8
    while size < BYTES_MAX and 8 * size < _BITS_PER_VALUE * len(values):
        size *= 2
    hashes = np.fromiter(map(_hash, values), dtype=np.uint64, count=len(values))
    low, step = hashes & np.uint64(0xFFFFFFFF), hashes >> np.uint64(32) | np.uint64(1)
    bits = np.zeros(8 * size, dtype=np.bool_)
    for i in range(PROBES):
        # a power of two divides 2**64, so that overflowing sums have the right rest
        bits[(low + np.uint64(i) * step) % np.uint64(8 * size)] = True
    return np.packbits(bits, bitorder="little").tobytes()


def may_hold(bloom: bytes, value: str | float) -> bool:
    """False only if `value` was not among those that the filter was built from."""
    low, step = _hashed(value)
    bits = 8 * len(bloom)
    for i in range(PROBES):
        bit = (low + i * step) % bits
        if not bloom[bit >> 3] >> (bit & 7) & 1:
            return False
    return True


# One filter asks thousands of files for the same few values.
@lru_cache(maxsize=4_096)
def _hashed(value: str | float) -> tuple[int, int]:
    hashed = _hash(value)
    return hashed & 0xFFFFFFFF, hashed >> 32 | 1


def _hash(value: str | float) -> int:
    if isinstance(value, str):
        return xxhash.xxh3_64_intdigest(value.encode())
    # -0.0 equals 0.0, so it must have the same bits: the sum is 0.0
    return xxhash.xxh3_64_intdigest(_NUMBER.pack(value + 0.0), seed=1)
