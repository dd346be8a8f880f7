"""Records over HTTP: Pinecone's bodies and headers in both directions."""

from typing import Any

import httpx
import pytest

from api.vectors import plane
from core.errors import CorruptData, DeadlineExceeded, Overloaded, Unavailable
from query.model import Consistency
from tests.api.gateway import CLASSIC, OTHER_KEY, READ_ONLY_KEY, READ_WRITE_KEY, SERVERLESS, Running

A = {"id": "a", "values": [1.0, 0.0, 0.0], "metadata": {"kind": "x", "n": 1}}
B = {"id": "b", "values": [0.0, 1.0, 0.0]}


class Index:
    """The data plane of one index."""

    def __init__(self, gateway: Running, host: str) -> None:
        self.gateway = gateway
        self.host = host

    async def post(self, path: str, body: object, **options: Any) -> httpx.Response:
        return await self.gateway.ask("POST", path, host=self.host, json=body, **options)

    async def get(self, path: str, **options: Any) -> httpx.Response:
        return await self.gateway.ask("GET", path, host=self.host, **options)

    async def delete(self, path: str, **options: Any) -> httpx.Response:
        return await self.gateway.ask("DELETE", path, host=self.host, **options)


@pytest.fixture
async def index(gateway: Running) -> Index:
    return Index(gateway, (await gateway.create())["host"])


def refused(answer: httpx.Response) -> tuple[int, int, str]:
    """Status, code and message; the body must have the data plane's shape."""
    body = answer.json()
    assert set(body) == {"code", "message", "details"}
    assert body["details"] == []
    return answer.status_code, body["code"], body["message"]


async def test_what_is_upserted_is_found(index: Index) -> None:
    written = await index.post("/vectors/upsert", {"vectors": [A, B]})
    assert written.json() == {"upsertedCount": 2}
    assert written.headers["x-pinecone-request-lsn"] == "0"
    assert written.headers["x-pinecone-lsn-committed"] == "0"
    found = await index.post(
        "/query",
        {"vector": [1, 0, 0], "topK": 2, "includeValues": True, "includeMetadata": True},
    )
    assert found.json() == {
        "matches": [{**A, "score": 1.0}, {**B, "score": 0.0}],
        "namespace": "__default__",
        "usage": {"readUnits": 1},
    }
    assert found.headers["x-pinecone-max-indexed-lsn"] == "0"
    assert found.headers["x-pinecone-lsn-reconciled"] == "0"
    assert "x-firndb-stale" not in found.headers


async def test_only_what_is_asked_for_is_sent(index: Index) -> None:
    await index.post("/vectors/upsert", {"vectors": [A]})
    found = await index.post("/query", {"id": "a", "topK": 1, "namespace": ""})
    assert found.json()["matches"] == [{"id": "a", "score": 1.0, "values": []}]


async def test_numbers_come_back_as_they_were_sent(index: Index) -> None:
    """Values are float32; their shortest decimal form must read back as the same float32."""
    values = [0.1, -1e-30, 16777216.0]
    await index.post("/vectors/upsert", {"vectors": [{"id": "v", "values": values}]})
    fetched = await index.get("/vectors/fetch", params={"ids": "v"})
    assert fetched.json()["vectors"]["v"]["values"] == values


async def test_fetch_tells_only_of_what_is_there(index: Index) -> None:
    await index.post("/vectors/upsert", {"vectors": [A, B], "namespace": "ns"})
    parameters = {"ids": ["a", "b", "c d"], "namespace": "ns"}
    fetched = await index.get("/vectors/fetch", params=parameters)
    assert fetched.json() == {
        "vectors": {"a": A, "b": B},
        "namespace": "ns",
        "usage": {"readUnits": 1},
    }
    assert refused(await index.get("/vectors/fetch"))[:2] == (400, 3)


async def test_update_by_id_and_by_filter(index: Index) -> None:
    await index.post("/vectors/upsert", {"vectors": [A, B]})
    changed = await index.post("/vectors/update", {"id": "b", "setMetadata": {"kind": "y"}})
    assert (changed.status_code, changed.json()) == (200, {})
    assert changed.headers["x-pinecone-request-lsn"] == "1"
    by_filter = {"filter": {"kind": {"$eq": "x"}}, "setMetadata": {"seen": True}}
    counted = await index.post("/vectors/update", {**by_filter, "dryRun": True})
    assert (counted.status_code, counted.json()) == (200, {"matchedRecords": 1})
    assert "x-pinecone-request-lsn" not in counted.headers, "nothing is written"
    written = await index.post("/vectors/update", by_filter)
    assert written.json() == {"matchedRecords": 1}
    assert written.headers["x-pinecone-request-lsn"] == "2"
    assert "x-firndb-outcome" not in written.headers
    fetched = (await index.get("/vectors/fetch", params={"ids": ["a", "b"]})).json()["vectors"]
    assert fetched["a"]["metadata"] == {"kind": "x", "n": 1, "seen": True}
    assert fetched["b"]["metadata"] == {"kind": "y"}
    unknown = {"id": "nobody", "setMetadata": {"z": 1}, "dryRun": True}
    by_id = await index.post("/vectors/update", unknown)
    assert (by_id.status_code, by_id.json()) == (200, {})
    assert by_id.headers["x-pinecone-request-lsn"] == "3", "an update by id knows no dry run"


async def test_an_update_by_filter_that_cannot_be_counted_is_written_all_the_same(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    await index.post("/vectors/upsert", {"vectors": [A]})
    by_filter = {"filter": {"kind": "x"}, "setMetadata": {"seen": True}}
    for error in (Unavailable("freshness is away"), CorruptData("a file is damaged")):
        index.gateway.memory.fail_count_with = error
        answer = await index.post("/vectors/update", by_filter)
        assert (answer.status_code, answer.json()) == (200, {})
        assert answer.headers["x-firndb-outcome"] == "unknown"
    index.gateway.memory.fail_count_with = None
    index.gateway.memory.count_hangs = True
    monkeypatch.setattr(plane, "COUNT_S", 0.01)
    slow = await index.post("/vectors/update", by_filter)
    assert (slow.status_code, slow.headers["x-firndb-outcome"]) == (200, "unknown")
    index.gateway.memory.count_hangs = False
    assert index.gateway.memory.lsn == 3
    fetched = (await index.get("/vectors/fetch", params={"ids": "a"})).json()["vectors"]
    assert fetched["a"]["metadata"]["seen"] is True
    index.gateway.memory.fail_count_with = DeadlineExceeded("freshness lags")
    dry = await index.post("/vectors/update", {**by_filter, "dryRun": True})
    assert refused(dry)[0] == 504, "a dry run has nothing else to tell"


async def test_an_update_by_filter_counts_what_was_acknowledged_before(index: Index) -> None:
    await index.post("/vectors/update", {"filter": {"kind": "x"}, "setMetadata": {"a": 1}})
    assert index.gateway.memory.last_options.consistency is Consistency.STRONG


async def test_records_are_fetched_by_their_metadata(index: Index) -> None:
    vectors = [{**A, "id": f"r{n}", "metadata": {"even": n % 2 == 0}} for n in range(7)]
    await index.post("/vectors/upsert", {"vectors": vectors, "namespace": "ns"})
    asked = {"filter": {"even": True}, "namespace": "ns", "limit": 3}
    first = await index.post("/vectors/fetch_by_metadata", asked)
    assert first.headers["x-pinecone-max-indexed-lsn"] == "0"
    body = first.json()
    token = body.pop("pagination")["next"]
    assert body == {
        "vectors": {f"r{n}": vectors[n] for n in (0, 2, 4)},
        "namespace": "ns",
        "usage": {"readUnits": 1},
    }
    rest = await index.post("/vectors/fetch_by_metadata", {**asked, "paginationToken": token})
    assert list(rest.json()["vectors"]) == ["r6"]
    assert "pagination" not in rest.json()
    nothing = await index.post("/vectors/fetch_by_metadata", {"filter": {"even": True}})
    assert nothing.json()["vectors"] == {}


async def test_delete_by_ids_filter_and_all(index: Index) -> None:
    await index.post("/vectors/upsert", {"vectors": [A, B]})
    assert (await index.post("/vectors/delete", {"ids": ["b", "unknown"]})).json() == {}
    await index.post("/vectors/delete", {"filter": {"kind": "x"}, "namespace": ""})
    assert (await index.get("/vectors/list")).json()["vectors"] == []
    assert (await index.post("/vectors/delete", {"deleteAll": True})).status_code == 200
    assert (await index.get("/namespaces/__default__")).json()["record_count"] == 0


async def test_deleting_in_a_namespace_that_is_not_there_is_not_found(index: Index) -> None:
    answer = await index.post("/vectors/delete", {"ids": ["a"], "namespace": "never"})
    assert refused(answer) == (404, 5, "Namespace not found")


async def test_list_pages_through_a_prefix(index: Index) -> None:
    vectors = [{"id": f"doc{n:02}", "values": [1, n, 0]} for n in range(7)]
    await index.post("/vectors/upsert", {"vectors": [*vectors, A]})
    seen: list[str] = []
    token = None
    for _ in range(3):
        parameters = {"prefix": "doc", "limit": "3"} | ({"paginationToken": token} if token else {})
        page = (await index.get("/vectors/list", params=parameters)).json()
        seen += [v["id"] for v in page["vectors"]]
        token = page.get("pagination", {}).get("next")
    assert seen == [f"doc{n:02}" for n in range(7)]
    assert token is None
    for limit in ("0", "101", "-1", "many", "9" * 40):
        assert refused(await index.get("/vectors/list", params={"limit": limit}))[0] == 400


async def test_stats_count_every_namespace(index: Index) -> None:
    await index.post("/vectors/upsert", {"vectors": [A, B]})
    await index.post("/vectors/upsert", {"vectors": [A], "namespace": "second"})
    for answer in (
        await index.post("/describe_index_stats", {}),
        await index.get("/describe_index_stats"),
    ):
        stats = answer.json()
        assert stats["namespaces"] == {
            "__default__": {"vectorCount": 2},
            "second": {"vectorCount": 1},
        }
        assert (stats["totalVectorCount"], stats["dimension"]) == (3, 3)
        assert (stats["metric"], stats["vectorType"]) == ("cosine", "dense")
        assert stats["memoryFullness"] == stats["memory_fullness"] == 0
    filtered = await index.post("/describe_index_stats", {"filter": {"kind": "x"}})
    assert refused(filtered)[0] == 400


async def test_an_index_on_pods_counts_what_a_filter_matches(gateway: Running) -> None:
    spec = {"pod": {"environment": "here", "pod_type": "p1.x1"}}
    index = Index(gateway, (await gateway.create("pods", spec=spec))["host"])
    await index.post("/vectors/upsert", {"vectors": [A, B]})
    counted = await index.post("/describe_index_stats", {"filter": {"kind": "x"}})
    assert counted.json()["totalVectorCount"] == 1
    wrong = await index.post("/describe_index_stats", {"filter": {"kind": {"$bogus": 1}}})
    assert refused(wrong)[0] == 400
    everything = await index.post("/describe_index_stats", {"filter": {}})
    assert everything.json()["totalVectorCount"] == 2


async def test_old_clients_know_the_default_namespace_as_empty(index: Index) -> None:
    await index.post("/vectors/upsert", {"vectors": [A]})
    old = {"x-pinecone-api-version": "2025-01"}
    stats = (await index.post("/describe_index_stats", {}, headers=old)).json()
    assert set(stats["namespaces"]) == {""}
    found = await index.post("/query", {"id": "a", "topK": 1}, headers=old)
    assert found.json()["namespace"] == ""


async def test_the_life_of_a_namespace(index: Index) -> None:
    made = await index.post("/namespaces", {"name": "tenant"})
    assert made.json() == {"name": "tenant", "record_count": 0, "size_bytes": 0}
    assert refused(await index.post("/namespaces", {"name": "tenant"}))[:2] == (409, 6)
    assert refused(await index.post("/namespaces", {"name": "__default__"}))[0] == 400
    await index.post("/vectors/upsert", {"vectors": [A], "namespace": "tenant"})
    described = await index.get("/namespaces/tenant")
    assert described.json()["record_count"] == 1
    assert (await index.delete("/namespaces/tenant")).json() == {}
    assert refused(await index.delete("/namespaces/tenant")) == (404, 5, "Namespace not found")
    assert refused(await index.get("/namespaces/tenant"))[:2] == (404, 5)


async def test_a_namespace_shows_the_schema_that_it_was_created_with(index: Index) -> None:
    schema = {"fields": {"year": {"filterable": True}, "genre": {"filterable": True}}}
    shown = {
        "name": "t",
        "record_count": 0,
        "size_bytes": 0,
        "schema": schema,
        "indexed_fields": {"fields": ["year", "genre"]},
    }
    assert (await index.post("/namespaces", {"name": "t", "schema": schema})).json() == shown
    assert (await index.get("/namespaces/t")).json() == shown
    assert (await index.get("/namespaces")).json()["namespaces"] == [shown]
    wrong = {"name": "u", "schema": {"fields": {"year": {"filterable": False}}}}
    status, _, message = refused(await index.post("/namespaces", wrong))
    assert (status, "To avoid indexing the field, omit it" in message) == (400, True)


async def test_namespaces_are_listed_in_pages(index: Index) -> None:
    for name in ("t1", "t2", "t3", "other"):
        await index.post("/namespaces", {"name": name})
    first = (await index.get("/namespaces", params={"prefix": "t", "limit": "2"})).json()
    assert [n["name"] for n in first["namespaces"]] == ["t1", "t2"]
    assert first["total_count"] == 3
    token = first["pagination"]["next"]
    rest = (await index.get("/namespaces", params={"prefix": "t", "paginationToken": token})).json()
    assert [n["name"] for n in rest["namespaces"]] == ["t3"]
    assert "pagination" not in rest


@pytest.mark.parametrize("name", ["a/b", "..", ".", "a b", "50%", "%2F", "ns?x=1", "#"])
async def test_any_name_of_a_namespace_can_be_put_into_a_path(index: Index, name: str) -> None:
    await index.post("/vectors/upsert", {"vectors": [A], "namespace": name})
    path = "/namespaces/" + "".join(f"%{byte:02X}" for byte in name.encode())
    described = await index.get(path)
    assert described.json()["name"] == name
    assert (await index.delete(path)).status_code == 200


async def test_a_namespace_without_a_name_is_not_the_default_one(index: Index) -> None:
    await index.post("/vectors/upsert", {"vectors": [A]})
    assert refused(await index.delete("/namespaces/"))[0] == 404
    assert refused(await index.get("/namespaces/a/b"))[0] == 404
    assert refused(await index.post("/namespaces", {"name": ""}))[0] == 400
    assert (await index.get("/namespaces/__default__")).json()["record_count"] == 1


MISTAKES = [
    ("/vectors/upsert", {"vectors": []}, "between 1 and 1000"),
    ("/vectors/upsert", {"vectors": [{"id": "x", "values": [1, 2]}]}, "dimension 2"),
    ("/vectors/upsert", {"vectors": [{"id": "", "values": [1, 2, 3]}]}, "ID"),
    ("/vectors/upsert", {"vectors": [{**B, "metadata": {"a": {"b": 1}}}]}, "Metadata value"),
    ("/vectors/upsert", {"vectors": "none"}, "vectors"),
    ("/query", {"vector": [1, 2], "topK": 1}, "dimension 2"),
    ("/query", {"vector": [1, 2, 3], "topK": 10001}, "topK"),
    ("/query", {"vector": [1, 2, 3]}, "topK"),
    ("/query", {"vector": [1, 2, 3], "topK": 1, "filter": {"a": {"$bogus": 1}}}, "$bogus"),
    ("/query", {"vector": [1, 2, 3], "id": "a", "topK": 1}, "both 'ID' and 'vector'"),
    ("/vectors/delete", {}, "ids, filter or deleteAll"),
    ("/vectors/delete", {"filter": {}}, "empty"),
    ("/vectors/fetch_by_metadata", {}, "Empty filter"),
    ("/vectors/fetch_by_metadata", {"filter": {}}, "Empty filter"),
    ("/vectors/fetch_by_metadata", {"filter": {"a": {"$bogus": 1}}}, "$bogus"),
    ("/vectors/fetch_by_metadata", {"filter": {"a": 1}, "limit": 0}, "between 1 and 10000"),
    ("/vectors/fetch_by_metadata", {"filter": {"a": 1}, "limit": 10001}, "between 1 and 10000"),
    ("/vectors/update", {"id": "a"}, "must give"),
]


@pytest.mark.parametrize(("path", "body", "text"), MISTAKES)
async def test_a_mistake_is_named_and_nothing_is_written(
    index: Index, path: str, body: dict[str, Any], text: str
) -> None:
    status, code, message = refused(await index.post(path, body))
    assert (status, code) == (400, 3)
    assert text in message
    assert index.gateway.memory.lsn == -1


async def test_a_reader_may_say_what_it_must_see(index: Index) -> None:
    asked = {"x-firndb-consistency": "strong", "x-firndb-min-lsn": "17"}
    query = {"vector": [1, 2, 3], "topK": 1}
    await index.post("/query", query, headers=asked)
    options = index.gateway.memory.last_options
    assert (options.consistency, options.min_lsn) == (Consistency.STRONG, 17)
    for wrong in ({"x-firndb-consistency": "perhaps"}, {"x-firndb-min-lsn": "-1"}):
        assert refused(await index.post("/query", query, headers=wrong))[0] == 400


async def test_an_answer_that_broke_its_promise_says_so(index: Index) -> None:
    index.gateway.memory.freshness_flags = {"stale": True, "overflowed": True}
    found = await index.post("/query", {"vector": [1, 2, 3], "topK": 1})
    assert found.status_code == 200
    assert found.headers["x-firndb-stale"] == "true"
    assert found.headers["x-firndb-overflowed"] == "true"


async def test_a_deletion_whose_outcome_is_not_known_in_time_still_stands(index: Index) -> None:
    """The entry is in the log: to answer 503 would make the client delete again."""
    await index.post("/vectors/upsert", {"vectors": [A]})
    index.gateway.memory.fail_outcome_with = DeadlineExceeded("freshness lags")
    answer = await index.post("/vectors/delete", {"ids": ["a"]})
    assert (answer.status_code, answer.json()) == (200, {})
    assert answer.headers["x-firndb-outcome"] == "unknown"
    assert answer.headers["x-pinecone-request-lsn"] == "1"


async def test_an_explanation_comes_when_asked_for(index: Index) -> None:
    query = {"vector": [1, 2, 3], "topK": 1}
    told = await index.post("/query", query, headers={"x-firndb-explain": "true"})
    assert told.json()["firndb"]["cost"]["clusters_probed"] == 0
    assert "firndb" not in (await index.post("/query", query)).json()


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (Unavailable("the log is away", retry_after_s=2.5), 503, "3"),
        (Overloaded("too many writes"), 429, "1"),
        (DeadlineExceeded("no answer in time"), 504, "1"),
    ],
)
async def test_what_may_succeed_later_says_when_to_try_again(
    index: Index, error: Exception, status: int, retry_after: str
) -> None:
    index.gateway.memory.fail_with = error
    answer = await index.post("/vectors/upsert", {"vectors": [A]})
    assert refused(answer)[0] == status
    assert answer.headers["retry-after"] == retry_after


async def test_a_damaged_object_is_named_to_who_asks_and_no_other_failure_is(index: Index) -> None:
    query = {"vector": [1, 2, 3], "topK": 1}
    for error, told in (
        (CorruptData("object i/n/clusters/c.ann does not match"), "object i/n/clusters/c.ann"),
        (RuntimeError("a secret of the server"), "The server's log has more"),
    ):
        index.gateway.memory.fail_with = error
        status, code, message = refused(await index.post("/query", query))
        assert (status, code) == (500, 15 if isinstance(error, CorruptData) else 13)
        assert told in message
        assert "secret" not in message


async def test_a_read_only_key_reads_but_does_not_write(index: Index) -> None:
    query = {"vector": [1, 2, 3], "topK": 1}
    assert (await index.post("/query", query, key=READ_ONLY_KEY)).status_code == 200
    for path, body in [("/vectors/upsert", {"vectors": [A]}), ("/namespaces", {"name": "n"})]:
        assert refused(await index.post(path, body, key=READ_ONLY_KEY))[:2] == (403, 7)
        assert (await index.post(path, body, key=READ_WRITE_KEY)).status_code == 200


async def test_another_projects_key_finds_no_index_and_a_wrong_key_nothing(index: Index) -> None:
    query = {"vector": [1, 2, 3], "topK": 1}
    assert refused(await index.post("/query", query, key=OTHER_KEY))[:2] == (404, 5)
    for key in (None, "wrong"):
        assert refused(await index.post("/query", query, key=key))[:2] == (401, 16)


async def test_the_control_host_sends_data_requests_to_the_index_host(gateway: Running) -> None:
    await gateway.create()
    answer = await gateway.ask("POST", "/query", json={"vector": [1, 2, 3], "topK": 1})
    status, code, message = refused(answer)
    assert (status, code) == (404, 5)
    assert "host" in message


async def test_hybrid_values_come_back_as_sent(gateway: Running) -> None:
    index = Index(gateway, (await gateway.create("hybrid", metric="dotproduct"))["host"])
    sparse = {"indices": [3, 9], "values": [0.5, 2.0]}
    await index.post("/vectors/upsert", {"vectors": [{**B, "sparseValues": sparse}]})
    found = await index.post(
        "/query",
        {"vector": [0, 2, 0], "sparseVector": sparse, "topK": 1, "includeValues": True},
    )
    assert found.json()["matches"] == [{**B, "sparseValues": sparse, "score": 6.25}]


async def test_a_sparse_index_needs_no_dense_values(gateway: Running) -> None:
    body = {"name": "words", "vector_type": "sparse", "metric": "dotproduct", "spec": SERVERLESS}
    made = await gateway.ask("POST", "/indexes", json=body, headers=CLASSIC)
    index = Index(gateway, made.json()["host"])
    vector = {"id": "s", "values": [], "sparseValues": {"indices": [1], "values": [2.0]}}
    assert (await index.post("/vectors/upsert", {"vectors": [vector]})).status_code == 200
    fetched = await index.get("/vectors/fetch", params={"ids": "s"})
    assert fetched.json()["vectors"]["s"] == vector
    assert "dimension" not in (await index.post("/describe_index_stats", {})).json()
