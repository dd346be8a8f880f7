"""What reads and writes mean, over HTTP on a whole server: Pinecone's rules, and our decisions
where it names none. docs/compatibility.md lists them.

At stake: a program that was written for Pinecone and gets another answer here.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from tests.e2e.deployments import Deployment, embedded
from tests.e2e.processes import KEY

SPEC = {"serverless": {"cloud": "aws", "region": "us-east-1"}}


class Index:
    """The data plane of one index; every call has a namespace of its own test."""

    def __init__(self, http: httpx.Client, namespace: str) -> None:
        self.http = http
        self.namespace = namespace

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self.http.post(path, json={"namespace": self.namespace, **body})

    def get(self, path: str, **parameters: Any) -> httpx.Response:
        return self.http.get(path, params={"namespace": self.namespace, **parameters})

    def upsert(self, *vectors: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self.post("/vectors/upsert", vectors=vectors).json()
        return answer

    def found(self, **query: Any) -> list[tuple[str, Any]]:
        answer = self.post("/query", **{"topK": 100, **query})
        assert answer.status_code == 200, answer.text
        return [(m["id"], pytest.approx(m["score"])) for m in answer.json()["matches"]]

    def matching(self, condition: dict[str, Any]) -> set[str]:
        """By search and by metadata, which must agree."""
        page = self.post("/vectors/fetch_by_metadata", filter=condition).json()
        searched = {i for i, _ in self.found(vector=[1, 1], filter=condition)}
        assert set(page["vectors"]) == searched
        return searched

    def fetched(self, *ids: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.get("/vectors/fetch", ids=list(ids)).json()["vectors"]
        return answer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with embedded(tmp_path_factory.mktemp("semantics")) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def hosts(server: Deployment) -> Iterator[dict[str, httpx.Client]]:
    """A client of an index of each kind."""
    hosts = {m: server.create_index(m, 2, m) for m in ("cosine", "dotproduct", "euclidean")}
    body = {"name": "sparse", "vector_type": "sparse", "metric": "dotproduct", "spec": SPEC}
    with server.control() as control:
        hosts["sparse"] = control.post("/indexes", json=body).raise_for_status().json()["host"]
    with ExitStack() as open_ones:
        headers = {"Api-Key": KEY}
        yield {
            name: open_ones.enter_context(httpx.Client(base_url=host, headers=headers, timeout=60))
            for name, host in hosts.items()
        }


@pytest.fixture
def index(hosts: dict[str, httpx.Client], request: pytest.FixtureRequest) -> Index:
    return Index(hosts["cosine"], request.node.name)


def sparse(**weights: float) -> dict[str, Any]:
    """sparse(i5=2) has the value 2 at index 5."""
    return {"indices": [int(name[1:]) for name in weights], "values": list(weights.values())}


def test_of_duplicates_in_one_upsert_the_last_counts(index: Index) -> None:
    done = index.upsert(
        {"id": "a", "values": [1, 0], "metadata": {"old": True}}, {"id": "a", "values": [0, 1]}
    )
    assert done == {"upsertedCount": 2}
    assert index.fetched("a") == {"a": {"id": "a", "values": [0, 1]}}


def test_an_upsert_replaces_the_whole_record(index: Index) -> None:
    index.upsert({"id": "a", "values": [1, 0], "metadata": {"x": 1, "y": 2}})
    index.upsert({"id": "a", "values": [1, 0], "metadata": {"x": 3}})
    assert index.fetched("a")["a"]["metadata"] == {"x": 3}


def test_an_update_merges_metadata_and_never_creates(index: Index) -> None:
    index.upsert({"id": "a", "values": [1, 0], "metadata": {"x": 1, "y": 2}})
    assert index.post("/vectors/update", id="a", setMetadata={"y": 3, "z": "n"}).json() == {}
    assert index.fetched("a")["a"]["metadata"] == {"x": 1, "y": 3, "z": "n"}
    index.post("/vectors/update", id="a", values=[0, 1])
    assert index.fetched("a")["a"]["values"] == [0, 1]
    assert index.post("/vectors/update", id="b", setMetadata={"y": 3}).status_code == 200
    assert index.fetched("b") == {}


def test_what_is_not_there_is_an_empty_answer(index: Index) -> None:
    """In a namespace that no write has made, and for an id that is in none."""
    for _ in range(2):
        assert index.found(vector=[1, 1], filter={"x": 1}) == []
        assert index.found(id="nobody") == []
        assert index.fetched("nobody") == {}
        assert index.get("/vectors/list", prefix="no").json()["vectors"] == []
        page = index.post("/vectors/fetch_by_metadata", filter={"x": 1})
        assert (page.status_code, page.json()["vectors"]) == (200, {})
        by_filter = {"filter": {"x": 1}, "setMetadata": {"x": 2}}
        for dry in (True, False):
            answer = index.post("/vectors/update", **by_filter, dryRun=dry)
            assert answer.json() == {"matchedRecords": 0}
        assert index.post("/vectors/update", id="no", setMetadata={"x": 2}).status_code == 200
        index.upsert({"id": "a", "values": [1, 1]})


def test_deletes_of_nothing(index: Index) -> None:
    for body in ({"ids": ["a"]}, {"filter": {"x": 1}}, {"deleteAll": True}):
        answer = index.post("/vectors/delete", **body)
        assert (answer.status_code, answer.json()["message"]) == (404, "Namespace not found")
    index.upsert({"id": "a", "values": [1, 1]})
    assert index.post("/vectors/delete", ids=["nobody"]).json() == {}
    assert index.post("/vectors/delete", filter={"x": 1}).json() == {}
    for _ in range(2):  # an emptied namespace goes on to exist
        assert index.post("/vectors/delete", deleteAll=True).json() == {}
    described = index.http.get(f"/namespaces/{index.namespace}")
    assert described.json()["record_count"] == 0


def test_a_filter_wins_over_ids(index: Index) -> None:
    index.upsert({"id": "a", "values": [1, 1], "metadata": {"x": 1}}, {"id": "b", "values": [1, 1]})
    index.post("/vectors/delete", ids=["b"], filter={"x": 1})
    assert list(index.fetched("a", "b")) == ["b"]


def test_scores(hosts: dict[str, httpx.Client]) -> None:
    rows = [{"id": "x", "values": [3, 0]}, {"id": "y", "values": [3, 4]}]
    expected = {
        "cosine": [("x", 1.0), ("y", 0.6)],
        "dotproduct": [("x", 3.0), ("y", 3.0)],
        "euclidean": [("x", 4.0), ("y", 20.0)],  # squared; the lower the better
    }
    for metric, matches in expected.items():
        index = Index(hosts[metric], "scores")
        index.upsert(*rows)
        assert index.found(vector=[1, 0]) == matches
        assert index.found(vector=[1, 0], topK=1) == matches[:1]


def test_a_query_by_id_finds_the_record_itself(index: Index) -> None:
    index.upsert({"id": "a", "values": [1, 0]}, {"id": "b", "values": [1, 1]})
    assert [i for i, _ in index.found(id="b")] == ["b", "a"]


def test_a_query_of_zeros_is_answered(index: Index) -> None:
    index.upsert({"id": "a", "values": [1, 0]})
    assert index.found(vector=[0, 0]) == [("a", 0.0)]


def test_sparse_records_that_share_nothing_are_no_matches(hosts: dict[str, httpx.Client]) -> None:
    index = Index(hosts["sparse"], "zero")
    index.upsert(
        {"id": "a", "values": [], "sparseValues": sparse(i5=2, i1=1)},
        {"id": "b", "sparseValues": sparse(i5=-1)},
        {"id": "c", "sparseValues": sparse(i9=1)},
    )
    assert index.found(sparseVector=sparse(i5=1)) == [("a", 2.0), ("b", -1.0)]
    assert index.found(id="c") == [("c", 1.0)]
    assert index.fetched("a")["a"]["sparseValues"] == {"indices": [1, 5], "values": [1, 2]}


def test_hybrid_scores_are_the_sum(hosts: dict[str, httpx.Client]) -> None:
    index = Index(hosts["dotproduct"], "hybrid")
    index.upsert(
        {"id": "both", "values": [1, 0], "sparseValues": sparse(i1=1, i5=2)},
        {"id": "dense", "values": [2, 0]},
    )
    asked = sparse(i1=1, i5=1)
    assert index.found(vector=[1, 0], sparseVector=asked) == [("both", 4.0), ("dense", 2.0)]
    assert index.found(vector=[0, 0], sparseVector=asked) == [("both", 3.0), ("dense", 0.0)]
    by_id = index.found(id="both")  # compares by the dense values alone
    assert by_id == [("dense", 2.0), ("both", 1.0)]


def test_only_what_was_asked_for_is_in_a_match(index: Index) -> None:
    index.upsert({"id": "a", "values": [1, 0], "metadata": {"x": 1}})
    asked: dict[str, Any] = {"vector": [1, 0], "topK": 1}
    assert index.post("/query", **asked).json()["matches"] == [
        {"id": "a", "score": 1.0, "values": []}
    ]
    everything = index.post("/query", **asked, includeValues=True, includeMetadata=True).json()
    record = {"id": "a", "values": [1.0, 0.0], "metadata": {"x": 1.0}}
    assert everything["matches"] == [{**record, "score": 1.0}]
    tuned = index.post("/query", **asked, scanFactor=0.5, maxCandidates=100)
    assert tuned.json()["matches"] == index.post("/query", **asked).json()["matches"]


def test_usage_and_ids_of_requests(index: Index) -> None:
    index.upsert({"id": "a", "values": [1, 0], "metadata": {"x": 1}})
    answers = [
        index.post("/query", vector=[1, 0], topK=1),
        index.get("/vectors/fetch", ids="a"),
        index.get("/vectors/list"),
        index.post("/vectors/fetch_by_metadata", filter={"x": 1}),
    ]
    for answer in answers:
        assert answer.json()["usage"] == {"readUnits": 1}
        assert answer.json()["namespace"] == index.namespace
    named = {answer.headers["x-pinecone-request-id"] for answer in answers}
    assert len(named) == len(answers)


FILTERS: list[tuple[dict[str, Any], str]] = [
    ({"n": 2}, "two"),
    ({"n": {"$eq": 2}, "s": "x"}, "two"),
    ({"n": {"$ne": 2}}, "one texts truth empty bare"),
    ({"n": {"$gt": 1}}, "two"),
    ({"n": {"$gte": 1, "$lt": 2}}, "one"),
    ({"n": {"$in": [1, 2, "x"]}}, "one two"),
    ({"n": {"$nin": [1]}}, "two texts truth empty bare"),
    ({"n": "2"}, ""),
    ({"b": True}, "truth"),
    ({"b": 1}, ""),
    ({"b": {"$ne": False}}, "one two texts truth empty bare"),
    ({"tags": "red"}, "texts"),
    ({"tags": {"$in": ["blue", "green"]}}, "texts"),
    ({"tags": {"$ne": "red"}}, "one two truth empty bare"),
    ({"tags": {"$nin": ["red"]}}, "one two truth empty bare"),
    ({"tags": {"$exists": True}}, "texts empty"),
    ({"tags": {"$exists": False}}, "one two truth bare"),
    ({"$or": [{"n": 1}, {"b": True}]}, "one truth"),
    ({"$and": [{"n": {"$gt": 0}}, {"s": {"$exists": True}}]}, "two"),
    ({"n": {"$not": {"$gt": 1}}}, "one texts truth empty bare"),
    ({"$not": {"n": {"$exists": True}}}, "texts truth empty bare"),
]


def test_filters(hosts: dict[str, httpx.Client]) -> None:
    index = Index(hosts["cosine"], "filters")
    values = [1, 2]
    index.upsert(
        {"id": "one", "values": values, "metadata": {"n": 1}},
        {"id": "two", "values": values, "metadata": {"n": 2.0, "s": "x"}},
        {"id": "texts", "values": values, "metadata": {"tags": ["red", "blue"]}},
        {"id": "truth", "values": values, "metadata": {"b": True}},
        {"id": "empty", "values": values, "metadata": {"tags": []}},
        {"id": "bare", "values": values},
    )
    for condition, names in FILTERS:
        assert index.matching(condition) == set(names.split()), condition


REFUSED: list[tuple[str, str, dict[str, Any], str]] = [
    ("cosine", "/vectors/upsert", {"vectors": [{"id": "a", "values": [0, 0]}]}, "non-zero"),
    ("cosine", "/vectors/upsert", {"vectors": [{"id": "a", "values": [1]}]}, "dimension 1"),
    ("cosine", "/vectors/upsert", {"vectors": [{"id": "a"}]}, "dimension 0"),
    (
        "cosine",
        "/vectors/upsert",
        {"vectors": [{"id": "a", "values": [1, 1], "sparseValues": sparse(i1=1)}]},
        "does not support sparse values",
    ),
    (
        "cosine",
        "/vectors/upsert",
        {"vectors": [{"id": "a", "values": [1, 1], "metadata": {"x": None}}]},
        "got null",
    ),
    (
        "cosine",
        "/vectors/upsert",
        {"vectors": [{"id": "a", "values": [1, 1], "metadata": {"x": [1]}}]},
        "list of strings",
    ),
    ("sparse", "/vectors/upsert", {"vectors": [{"id": "a", "values": [1]}]}, "Sparse indexes"),
    ("cosine", "/query", {"topK": 1, "vector": [1, 1], "id": "a"}, "both 'ID' and 'vector'"),
    ("cosine", "/query", {"topK": 1}, "vector or id"),
    ("cosine", "/query", {"topK": 0, "id": "a"}, "topK"),
    ("cosine", "/query", {"topK": 10_001, "id": "a"}, "topK"),
    ("cosine", "/query", {"topK": 1, "id": "a", "filter": {"x": {"$like": "y"}}}, "$like"),
    ("cosine", "/query", {"topK": 1, "id": "a", "filter": {"x": {"$gt": "y"}}}, "$gt"),
    ("cosine", "/query", {"topK": 1, "id": "a", "filter": {"x": {"$exists": 1}}}, "$exists"),
    ("dotproduct", "/query", {"topK": 1, "sparseVector": sparse(i1=1)}, "vector or id"),
    ("cosine", "/vectors/delete", {"deleteAll": True, "ids": ["a"]}, "No explicit IDs"),
    ("cosine", "/vectors/delete", {"filter": {}}, "empty metadata filter"),
    ("cosine", "/vectors/update", {"filter": {}, "setMetadata": {"x": 1}}, "empty metadata"),
    ("cosine", "/vectors/update", {"setMetadata": {"x": 1}}, "by id, or records by filter"),
    ("cosine", "/describe_index_stats", {"filter": {"x": 1}}, "Serverless indexes"),
]


def test_what_is_refused(hosts: dict[str, httpx.Client]) -> None:
    for kind, path, body, named in REFUSED:
        answer = Index(hosts[kind], "refused").post(path, **body)
        assert answer.status_code == 400, (path, body, answer.text)
        assert named in answer.json()["message"], (path, body)
    index = Index(hosts["cosine"], "refused")
    for prefix in ("\xe4", "x" * 513):
        assert "A prefix" in index.get("/vectors/list", prefix=prefix).json()["message"]
        assert index.http.get("/namespaces", params={"prefix": prefix}).status_code == 400
    names = [one["name"] for one in index.http.get("/namespaces").json()["namespaces"]]
    assert "refused" not in names, "nothing was written"
