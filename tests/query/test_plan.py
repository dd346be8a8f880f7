"""When a query has seen enough: a guess for many rows, never for few."""

from hypothesis import given
from hypothesis import strategies as st

from query.plan import SCAN_ALL_ROWS, has_enough


@given(st.integers(2, 10_000_000), st.data())
def test_where_few_can_match_every_cluster_is_probed(total: int, data: st.DataObject) -> None:
    """One unprobed row may be the one that matches."""
    probed = data.draw(st.integers(1, total - 1))
    most = min(probed, SCAN_ALL_ROWS * probed // total)
    selected = data.draw(st.integers(0, most))
    assert not has_enough(total, probed, selected, 10)
    assert has_enough(total, total, max(1, selected), 10)
