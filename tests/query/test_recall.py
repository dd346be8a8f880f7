"""At stake: above the size where everything is scanned, probing the nearest clusters still finds
the neighbours, with and without filters, and `exhaustive` finds all of them.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from core.clock import new_uuid
from core.filters.model import Comparison, Condition, Filter
from core.indexes import IndexInfo, IndexState, VectorType
from core.metric import F32, Metric
from core.records import Metadata
from core.scan import RowNumbers
from query.model import Cost, QueryRequest
from query.plan import SCAN_ALL_ROWS
from storage.cluster_file import write_cluster
from storage.delta_file import write_delta
from storage.encoded_file import put_objects
from storage.groups import UNGROUPED
from storage.layout import NamespaceSchema
from storage.manifest import DataFile, Manifest
from storage.rows import Rows
from tests.query.world import World
from tests.storage.memory_store import MemoryStore

INFO = IndexInfo("i", "p", "name", 16, Metric.COSINE, VectorType.DENSE, IndexState.READY)
ROWS = 42_000
QUERIES = 30


def points(count: int, seed: int) -> F32:
    """A cloud in 5 of 16 dimensions: neighbours spread over several clusters, as in real
    embeddings.
    """
    random = np.random.default_rng(seed)
    spread = np.random.default_rng(0).normal(size=(5, 16))
    noise = 0.05 * random.normal(size=(count, 16))
    return (random.normal(size=(count, 5)) @ spread + noise).astype(np.float32)


def metadata(row: int) -> Metadata:
    return {"tenth": float(row % 10), "rare": float(row % 1000)}


SCHEMA = NamespaceSchema("i", "n", Metric.COSINE, 16)


def columns(vectors: F32, rows: RowNumbers) -> Rows:
    return Rows(
        ids=[f"r{row}" for row in rows],
        lsns=np.zeros(len(rows), dtype=np.int64),
        vectors=vectors[rows],
        sparse=[None] * len(rows),
        metadata=[metadata(row) for row in rows.tolist()],
    )


async def clustered(world: World, vectors: F32, clusters: int, in_deltas: float = 0.0) -> None:
    """Commits the vectors as so many cluster files, each around a random point; a share of the rows
    in two deltas, of which the first says of a group that it belongs nowhere, and the second has a
    number that is vacant.
    """
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    centroids = unit[np.random.default_rng(1).choice(len(unit), clusters, replace=False)]
    nearest = np.argmax(unit @ centroids.T, axis=1)
    file_of = np.random.default_rng(2).choice(
        3, len(vectors), p=[1 - in_deltas, in_deltas / 2, in_deltas / 2]
    )
    files: list[DataFile] = []
    for cluster in range(clusters):
        rows = np.flatnonzero((nearest == cluster) & (file_of == 0))
        encoded = write_cluster(
            columns(vectors, rows), SCHEMA, cluster=cluster, centroid=centroids[cluster]
        )
        await put_objects(world.store, SCHEMA.prefix, encoded.objects)
        files.append(encoded.file)
    for number, strange in ((1, UNGROUPED), (2, clusters)):
        rows = np.flatnonzero(file_of == number)
        if len(rows):
            rows = rows[np.argsort(nearest[rows], kind="stable")]
            numbers, first = np.unique(nearest[rows], return_index=True)
            renamed = [strange if n == clusters // 2 else n for n in numbers.tolist()]
            groups = tuple(zip(renamed, first.tolist(), strict=True))
            delta = write_delta(columns(vectors, rows), SCHEMA, groups=groups)
            await put_objects(world.store, SCHEMA.prefix, delta.objects)
            files.append(delta.file)
    vacant = np.full((1, 16), np.nan, dtype=np.float32)
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
            indexed_lsn=0,
            record_count=len(vectors),
            dimension=16,
            metric="cosine",
            centroids=np.concatenate([centroids, vacant]).astype("<f4").tobytes(),
            files=tuple(files),
        )
    )


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World(INFO, MemoryStore(), tmp_path).start()
    yield made
    await made.stop()


async def recall(
    world: World, vectors: F32, condition: Filter | None, allowed: F32, exhaustive: bool = False
) -> tuple[float, Cost]:
    """Of the 10 nearest among the rows where `allowed`; and the last query's cost."""
    found = 0
    cost = Cost()
    for query in points(QUERIES, seed=99):
        scores = vectors @ query / np.linalg.norm(vectors, axis=1)
        scores[allowed == 0.0] = -np.inf
        true = {f"r{row}" for row in np.argsort(-scores)[:10].tolist()}
        request = QueryRequest(10, query, filter=condition, exhaustive=exhaustive)
        result = await world.service.query(INFO, "n", request)
        found += len(true & {m.id for m in result.matches})
        cost = result.cost
    return found / (10 * QUERIES), cost


async def test_probing_finds_the_neighbours(world: World) -> None:
    assert ROWS > SCAN_ALL_ROWS
    vectors = points(ROWS, seed=7)
    await clustered(world, vectors, clusters=60)
    everywhere = np.ones(ROWS, dtype=np.float32)
    found, cost = await recall(world, vectors, None, everywhere)
    assert found >= 0.95
    assert cost.rows_scanned < 0.7 * ROWS
    assert cost.clusters_probed < 60
    found, cost = await recall(world, vectors, None, everywhere, exhaustive=True)
    assert found == 1.0
    assert cost.rows_scanned == ROWS

    tenth = (np.arange(ROWS) % 10 == 3).astype(np.float32)
    condition = Condition("tenth", Comparison.EQ, (3.0,))
    found, _ = await recall(world, vectors, condition, tenth)
    assert found == 1.0, "few rows can match: all clusters are probed"
    rare = (np.arange(ROWS) % 1000 == 3).astype(np.float32)
    condition = Condition("rare", Comparison.EQ, (3.0,))
    found, cost = await recall(world, vectors, condition, rare)
    assert found == 1.0
    assert cost.rows_scanned <= ROWS / 1000, "only selected rows are scored"


async def test_a_quarter_of_the_work_looks_at_fewer_rows(world: World) -> None:
    vectors = points(ROWS, seed=7)
    await clustered(world, vectors, clusters=60)
    query = points(1, seed=99)[0]
    scanned = []
    for share in (1.0, 0.25):
        request = QueryRequest(10, query, scan_share=share)
        scanned.append((await world.service.query(INFO, "n", request)).cost.rows_scanned)
    assert scanned[1] < 0.5 * scanned[0]
    request = QueryRequest(10, query, scan_share=0.25, exhaustive=True)
    assert (await world.service.query(INFO, "n", request)).cost.rows_scanned == ROWS


async def test_of_deltas_only_the_groups_of_probed_clusters_are_read(world: World) -> None:
    """At stake: two fifths of all rows are in deltas. If they all counted as probed, no room would
    be left for clusters. Rows that belong to no cluster are looked at; filters and `exhaustive`
    miss nothing.
    """
    vectors = points(ROWS, seed=7)
    everywhere = np.ones(ROWS, dtype=np.float32)
    await clustered(world, vectors, clusters=60, in_deltas=0.4)
    found, cost = await recall(world, vectors, None, everywhere)
    assert cost.deltas_scanned == 2
    assert found >= 0.95
    assert 10 < cost.clusters_probed < 60
    assert cost.rows_scanned < 0.7 * ROWS
    found, cost = await recall(world, vectors, None, everywhere, exhaustive=True)
    assert (found, cost.rows_scanned) == (1.0, ROWS)
    for name, value, of in (("tenth", 3.0, 10), ("rare", 3.0, 1000)):
        allowed = (np.arange(ROWS) % of == 3).astype(np.float32)
        condition = Condition(name, Comparison.EQ, (value,))
        found, cost = await recall(world, vectors, condition, allowed)
        assert found == 1.0
        assert cost.files_opened == cost.clusters_considered - cost.clusters_pruned


async def test_trees_of_big_files_find_the_neighbours(world: World) -> None:
    vectors = points(ROWS, seed=8)
    await clustered(world, vectors, clusters=1)
    found, cost = await recall(world, vectors, None, np.ones(ROWS, dtype=np.float32))
    assert found >= 0.95
    assert cost.rows_scanned < ROWS
