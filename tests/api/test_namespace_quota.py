"""An index has only so many namespaces; whoever writes to those that it has does not notice."""

from pathlib import Path

import pytest

from api.vectors.namespace_quota import FULL_S, PERIODS_S, NamespaceQuota
from core.errors import QuotaExceeded, Unavailable
from core.indexes import IndexInfo, IndexState, VectorType
from core.metric import Metric
from core.operations import CreateNamespace
from infra.catalog.quotas import Quota
from query.model import NamespaceResult, NamespacesResult, ReadOptions
from tests.api.gateway import Running, running_gateway
from tests.api.memory_index import MemoryIndex
from tests.api.test_records import Texts, for_model, lines, write_models
from tests.infra.held_clock import HeldClock

INDEX = IndexInfo(
    "i" * 32, "p" * 32, "movies", 3, Metric.COSINE, VectorType.DENSE, IndexState.READY
)
QUOTA = Quota("namespaces", 10, "FIRNDB_MAX_NAMESPACES")


class Counting(MemoryIndex):
    """Says that there are `count` namespaces, and counts how often it is asked."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.counts = 0
        self.looks = 0
        self.away = False

    async def namespaces(
        self, index: IndexInfo, prefix: str, limit: int, token: str | None, options: ReadOptions
    ) -> NamespacesResult:
        self.counts += 1
        if self.away:
            raise Unavailable("away")
        found = await super().namespaces(index, prefix, limit, token, options)
        return NamespacesResult(found.namespaces, found.next_token, self.count, found.freshness)

    async def describe_namespace(
        self, index: IndexInfo, namespace: str, options: ReadOptions
    ) -> NamespaceResult:
        self.looks += 1
        if self.away:
            raise Unavailable("away")
        return await super().describe_namespace(index, namespace, options)


async def upsert(gateway: Running, host: str, namespace: str) -> int:
    body = {"vectors": [{"id": "a", "values": [1, 2, 3]}], "namespace": namespace}
    answer = await gateway.ask("POST", "/vectors/upsert", host=host, json=body)
    if answer.status_code != 200:
        assert answer.json() == {
            "code": 7,
            "message": "You've reached the max namespaces allowed in index movies (2). Delete what "
            "is not needed any more, or raise FIRNDB_MAX_NAMESPACES.",
            "details": [],
        }
    return answer.status_code


async def test_an_index_has_only_so_many_namespaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.vectors.namespace_quota.PERIODS_S", ())
    monkeypatch.setattr("api.vectors.namespace_quota.FULL_S", 0.0)
    async with running_gateway(tmp_path, max_namespaces=2) as gateway:
        host = (await gateway.create())["host"]
        assert [await upsert(gateway, host, name) for name in ("a", "b")] == [200, 200]
        await upsert(gateway, host, "a")  # beside it, they are counted
        assert [await upsert(gateway, host, name) for name in ("c", "a", "b")] == [403, 200, 200]
        create = await gateway.ask("POST", "/namespaces", host=host, json={"name": "c"})
        assert create.status_code == 403
        await gateway.ask("DELETE", "/namespaces/b", host=host)
        await upsert(gateway, host, "a")
        assert await upsert(gateway, host, "c") == 200


async def test_texts_begin_no_namespace_in_a_full_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused before they are embedded, which costs."""
    monkeypatch.setattr("api.vectors.namespace_quota.PERIODS_S", ())
    monkeypatch.setattr("api.vectors.namespace_quota.FULL_S", 0.0)
    models = write_models(tmp_path)
    async with running_gateway(tmp_path, max_namespaces=2, embedders=models) as gateway:
        made = await gateway.ask("POST", "/indexes/create-for-model", json=for_model())
        texts = Texts(gateway, made.json()["host"])
        told = []
        for name in ("a", "b", "a", "c", "a"):
            record = lines({"_id": "x", "body": "unspeakable" if name == "c" else "snow"})
            told.append((await texts.upsert(record, name)).status_code)
            await gateway.gateway._namespaces.counted()
        assert told == [201, 201, 201, 403, 201]


@pytest.fixture
def clock() -> HeldClock:
    return HeldClock()


async def test_far_from_the_limit_a_write_costs_no_read(clock: HeldClock) -> None:
    reads = Counting(0)
    quota = NamespaceQuota(reads, QUOTA, clock)
    for n in range(1000):
        await quota.admit(INDEX, f"n{n}")
    await quota.counted()
    assert (reads.counts, reads.looks) == (1, 0)
    clock.now_s += PERIODS_S[0][1]
    await quota.admit(INDEX, "n")
    await quota.counted()
    assert (reads.counts, reads.looks) == (2, 0)


async def test_a_full_index_looks_once_at_each_namespace_between_two_counts(
    clock: HeldClock,
) -> None:
    reads = Counting(10)
    await reads.write(INDEX, "known", (CreateNamespace(),), request_id="r")
    quota = NamespaceQuota(reads, QUOTA, clock)
    await quota.admit(INDEX, "known")
    await quota.counted()
    for _ in range(100):
        await quota.admit(INDEX, "known")
    assert (reads.counts, reads.looks) == (1, 1)
    with pytest.raises(QuotaExceeded, match=r"max namespaces allowed in index movies \(10\)"):
        await quota.admit(INDEX, "new")
    reads.count = 9
    clock.now_s += FULL_S
    with pytest.raises(QuotaExceeded):
        await quota.admit(INDEX, "new")
    await quota.counted()
    await quota.admit(INDEX, "new")


async def test_a_write_needs_nothing_that_reads(clock: HeldClock) -> None:
    reads = Counting(10)
    quota = NamespaceQuota(reads, QUOTA, clock)
    await quota.admit(INDEX, "a")
    await quota.counted()
    reads.away = True
    await quota.admit(INDEX, "new")
    clock.now_s += FULL_S
    await quota.admit(INDEX, "new")
    await quota.counted()
    await quota.close()
