"""A namespace's partition is the one that Java producers choose, or direct producers' writes go
astray.
"""

import pytest

from core.partition import murmur2, partition_of, wal_key


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        # the vectors of Kafka's own UtilsTest.testMurmur2
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(key: bytes, expected: int) -> None:
    assert murmur2(key) == expected


def test_partitions_are_in_range_and_all_used() -> None:
    used = {partition_of(wal_key("i", f"n{i}"), 8) for i in range(500)}
    assert used == set(range(8))


def test_a_negative_hash_loses_its_sign_bit_as_in_kafka() -> None:
    assert partition_of(b"21", 7) == (-973932308 & 0x7FFFFFFF) % 7


def test_the_key_is_index_slash_namespace() -> None:
    assert wal_key("idx", "a/b") == b"idx/a/b"
