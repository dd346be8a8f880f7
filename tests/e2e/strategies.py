"""What the model-based test draws from: few ids, few values, many collisions."""

import numpy as np
from hypothesis import strategies as st

from core.filters.parse import parse_filter
from core.records import SparseValues
from tests.core.filter_strategies import wire_filters

DIMENSION = 4
NAMESPACES = ["__default__", "sea", "ice/berg"]
IDS = [f"{letter}{number}" for letter in "abc" for number in range(20)]

ids = st.sampled_from(IDS)
namespaces = st.sampled_from(NAMESPACES)
# Most of what empties a namespace hits the same one, so that the others grow.
emptied = st.sampled_from(["sea", "sea", "sea", "sea", *NAMESPACES])
# Few different values, so that scores tie and cancel out.
vectors = (
    st.lists(st.integers(-3, 3), min_size=DIMENSION, max_size=DIMENSION)
    .filter(any)
    .map(lambda numbers: np.array(numbers, dtype=np.float32))
)
sparse_vectors = st.dictionaries(
    st.integers(0, 9), st.sampled_from([-2.0, -1.0, 0.5, 1.0, 2.0]), min_size=1, max_size=4
).map(
    lambda pairs: SparseValues(
        np.array(sorted(pairs), dtype=np.uint32),
        np.array([pairs[index] for index in sorted(pairs)], dtype=np.float32),
    )
)
filters = wire_filters.filter(bool).map(parse_filter)
# Many records match one of these, because many are made like that.
common_filters = st.one_of(
    st.sampled_from([{"year": {"$lt": 20}}, {"genre": "comedy"}, {"ok": {"$exists": False}}]).map(
        parse_filter
    ),
    filters,
)
# Places in a list, taken modulo its length.
numbers = st.integers(0, 1 << 16)
