"""The simulation of commits, at a quarter of life's size: what a commit writes hardly grows."""

from bench.manifest_cost import simulate


async def test_ten_times_the_records_are_not_twice_the_bytes_of_a_commit() -> None:
    small = await simulate(1_000_000, 600, scale=4)
    large = await simulate(10_000_000, 600, scale=4)
    assert large.merges >= 1
    assert small.merges >= 1
    assert large.mean_bytes < 2 * small.mean_bytes
    assert large.cold_gets == small.cold_gets == 3
