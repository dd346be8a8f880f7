"""Random metadata and random filters over the same few fields and values, so that they meet."""

from hypothesis import strategies as st

from core.records import Metadata, MetadataValue

FIELDS = ["genre", "year", "ok", "größe", "a.b"]
STRINGS = ["", "drama", "comedy", "Drama", "日本", "1", "true", "x" * 80]
NUMBERS = [-1.5, -0.0, 0.0, 1.0, 2.0, 2020.0, 9007199254740993.0, 1e300, 5e-324]
INTEGERS = [0, 1, 2020, 9007199254740993, 10**30]

_strings = st.sampled_from(STRINGS)
_operands = st.one_of(_strings, st.sampled_from(NUMBERS), st.sampled_from(INTEGERS), st.booleans())

values: st.SearchStrategy[MetadataValue] = st.one_of(
    _strings, st.sampled_from(NUMBERS), st.booleans(), st.lists(_strings, max_size=3)
)
metadata: st.SearchStrategy[Metadata] = st.dictionaries(st.sampled_from(FIELDS), values, max_size=4)

_comparison = st.one_of(
    st.tuples(st.sampled_from(["$eq", "$ne"]), _operands),
    st.tuples(
        st.sampled_from(["$gt", "$gte", "$lt", "$lte"]), st.sampled_from([*NUMBERS, *INTEGERS])
    ),
    st.tuples(st.sampled_from(["$in", "$nin"]), st.lists(_operands, max_size=4)),
    st.tuples(st.just("$exists"), st.booleans()),
)
_operators = st.lists(_comparison, min_size=1, max_size=2).map(dict)
_leaf = st.one_of(
    st.dictionaries(
        st.sampled_from(FIELDS), st.one_of(_operators, _operands), min_size=1, max_size=2
    ),
    st.builds(lambda field, ops: {field: {"$not": ops}}, st.sampled_from(FIELDS), _operators),
)


def _combined(inner: st.SearchStrategy[dict[str, object]]) -> st.SearchStrategy[dict[str, object]]:
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        several.map(lambda parts: {"$and": parts}),
        several.map(lambda parts: {"$or": parts}),
        inner.map(lambda part: {"$not": part}),
    )


wire_filters: st.SearchStrategy[dict[str, object]] = st.one_of(
    st.just({}), st.recursive(_leaf.map(dict), _combined, max_leaves=6)
)
