"""Which partition a namespace's writes go to: the same as every Java producer of Kafka would
choose.

librdkafka's own default is another hash (CRC32): it needs `partitioner=murmur2_random` to agree.
"""

_MASK = 0xFFFF_FFFF
_SEED = 0x9747_B28C
_M = 0x5BD1_E995


def wal_key(index_id: str, namespace: str) -> bytes:
    """The log key of a canonical namespace. An index id holds no `/`, so the first one ends it."""
    return f"{index_id}/{namespace}".encode()


def partition_of(key: bytes, partitions: int) -> int:
    """In [0, partitions), as in Kafka: the sign bit is masked away, not negated."""
    return (murmur2(key) & 0x7FFF_FFFF) % partitions


def murmur2(key: bytes) -> int:
    """Kafka's `org.apache.kafka.common.utils.Utils.murmur2`: 32 bits, signed as in Java."""
    length = len(key)
    state = _SEED ^ length
    whole = length & ~3
    for start in range(0, whole, 4):
        word = int.from_bytes(key[start : start + 4], "little")
        word = (word * _M) & _MASK
        word ^= word >> 24
        word = (word * _M) & _MASK
        state = ((state * _M) & _MASK) ^ word
    if whole < length:
        state ^= int.from_bytes(key[whole:], "little")
        state = (state * _M) & _MASK
    state ^= state >> 13
    state = (state * _M) & _MASK
    state ^= state >> 15
    return state - (1 << 32) if state & 0x8000_0000 else state
