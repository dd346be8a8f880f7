"""At stake: what pruning, bitmaps, decoded columns and shadows leave of a filtered query is what
looking at every record gives.
"""

import asyncio
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.clock import new_uuid
from core.filters.model import Filter
from core.filters.parse import parse_filter
from core.filters.row import matches
from core.indexes import IndexInfo, IndexState, VectorType
from core.metric import Metric
from core.operations import Upsert
from core.records import Metadata, Record
from query.model import MetadataRequest, QueryRequest
from storage.cluster_file import write_cluster
from storage.delta_file import write_delta
from storage.encoded_file import put_objects
from storage.layout import NamespaceSchema
from storage.manifest import DataFile, Manifest
from storage.rows import Rows
from tests.core.filter_strategies import FIELDS, metadata, wire_filters
from tests.freshness.operations import State
from tests.query.world import World
from tests.storage.memory_store import MemoryStore

DIMENSION = 24
INFO = IndexInfo("i", "p", "n", DIMENSION, Metric.EUCLIDEAN, VectorType.DENSE, IndexState.READY)
OF = NamespaceSchema("i", "n", Metric.EUCLIDEAN, DIMENSION)
CLUSTERS = 24
Drawn = list[list[Metadata]]


async def committed(world: World, per_file: Drawn, random: np.random.Generator) -> State:
    """A file for each list; in every fourth it is a delta. What a cluster's rows have in common is
    pruned by, what most have is inverted.
    """
    state: State = {}
    files: list[DataFile] = []
    for number, drawn in enumerate(per_file):
        rows = _rows(number, drawn, random)
        state |= {rows.ids[row]: rows.stored(row) for row in range(len(rows))}
        encoded = write_delta(rows, OF) if number % 4 == 3 else write_cluster(rows, OF)
        await put_objects(world.store, OF.prefix, encoded.objects)
        files.append(encoded.file)
    await world.manifests.commit(
        Manifest(
            index_id="i",
            namespace="n",
            log_id="log",
            log_epoch=0,
            version=1,
            generation=0,
            owner_epoch=1,
            commit_uuid=new_uuid(),
            record_count=len(state),
            dimension=DIMENSION,
            metric="euclidean",
            files=tuple(files),
        )
    )
    return state


def _rows(number: int, drawn: list[Metadata], random: np.random.Generator) -> Rows:
    """Each of the drawn metadata five times, some with a field of their own."""
    many: list[Metadata] = []
    for copy in range(5):
        for at, one in enumerate(drawn):
            many.append({**one, "user": f"u{number}-{at}"} if copy % 2 else dict(one))
    return Rows(
        ids=[f"f{number}r{row}" for row in range(len(many))],
        lsns=np.zeros(len(many), dtype=np.int64),
        vectors=random.standard_normal((len(many), DIMENSION), dtype=np.float32),
        sparse=[None] * len(many),
        metadata=many,
    )


async def compare(folder: Path, per_file: Drawn, wires: list[dict[str, object]]) -> int:
    """How many files were pruned in all."""
    random = np.random.default_rng(len(wires))
    world = await World(INFO, MemoryStore(), folder).start()
    state = await committed(world, per_file, random)
    pruned = 0
    fresh = Record("f0r0", random.standard_normal(DIMENSION).astype(np.float32), None, {"ok": True})
    for at, wire in enumerate([*wires, {"user": {"$in": ["u0-0", "u3-1", "nobody"]}}]):
        condition = parse_filter(wire)
        query = random.standard_normal(DIMENSION).astype(np.float32)
        for k in (3, 10_000):
            result = await world.service.query(INFO, "n", QueryRequest(k, query, filter=condition))
            expected = world.ranked(state, k, query, None, condition)
            assert [match.id for match in result.matches] == [i for i, _ in expected], wire
            pruned += result.cost.clusters_pruned
        await _compare_by_filter(world, state, condition)
        if at == len(wires) // 2:  # from here on, one row of the files is shadowed
            lsn = await world.write(Upsert((fresh,)))
            state |= {"f0r0": world.truth("n").at(lsn)[0]["f0r0"]}
    await world.stop()
    return pruned


async def _compare_by_filter(world: World, state: State, condition: Filter) -> None:
    wanted = sorted(i for i, s in state.items() if matches(condition, s.record.metadata))
    counted = await world.service.count_matching(INFO, "n", condition)
    assert counted.count == len(wanted)
    page = await world.service.fetch_by_metadata(INFO, "n", MetadataRequest(condition, 7))
    assert list(page.records) == wanted[:7]
    assert (page.next_token is None) == (len(wanted) <= 7)


LONG = pytest.param(200, marks=[pytest.mark.long, pytest.mark.timeout(1800)])


@pytest.mark.parametrize("examples", [3, LONG])
def test_filtered_queries_find_what_brute_force_finds(
    examples: int, record_property: object
) -> None:
    pruned = 0
    rows = st.lists(metadata, min_size=1, max_size=6)
    # a file whose rows are alike in one field, as clusters are in practice
    alike = st.tuples(
        st.sampled_from(FIELDS), st.sampled_from(["drama", 2.0, True, ["1", ""]]), rows
    )
    one_file = st.one_of(rows, alike.map(lambda a: [{**m, a[0]: a[1]} for m in a[2]]))

    @settings(max_examples=examples, deadline=None, database=None)
    @given(
        st.lists(one_file, min_size=CLUSTERS, max_size=CLUSTERS),
        st.lists(wire_filters, min_size=20, max_size=20),
    )
    def check(per_file: Drawn, wires: list[dict[str, object]]) -> None:
        nonlocal pruned
        with tempfile.TemporaryDirectory() as folder:
            pruned += asyncio.run(compare(Path(folder), per_file, wires))

    check()
    assert pruned > 10 * examples, "filters that never prune prove nothing"
    if callable(record_property):
        record_property("queries", examples * 42)
        record_property("pruned_files", pruned)
