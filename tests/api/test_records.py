"""Records as texts over HTTP: written, searched by text, vector and id, and told where not."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.gateway import (
    CLASSIC,
    KEY,
    NEWEST,
    OTHER_KEY,
    READ_ONLY_KEY,
    Running,
    running_gateway,
)
from tests.fixtures.embedder import DIMENSION, embed

MODEL = "words"
TEXTS = {
    "ice": "ice and snow on the mountain",
    "sea": "warm sea and a sandy beach",
    "city": "trains and trams in the city",
}


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Running]:
    async with running_gateway(tmp_path, embedders=write_models(tmp_path)) as running:
        yield running


def write_models(folder: Path) -> Path:
    path = folder / "embedders.toml"
    path.write_text(
        f'[{MODEL}]\nlocal = "tests.fixtures.embedder:make"\ndimension = {DIMENSION}\n'
        f'["other/tiny"]\nlocal = "tests.fixtures.embedder:make"\ndimension = 3\n'
        'options = { dimension = 3 }\nmetric = "dotproduct"\n'
    )
    return path


def for_model(name: str = "texts", **embed: Any) -> dict[str, Any]:
    asked = {"model": MODEL, "field_map": {"text": "body"}, **embed}
    return {"name": name, "cloud": "aws", "region": "us-east-1", "embed": asked}


def lines(*records: dict[str, Any]) -> bytes:
    return b"\n".join(json.dumps(record).encode() for record in records)


class Texts:
    """The records API of one index."""

    def __init__(self, gateway: Running, host: str) -> None:
        self.gateway = gateway
        self.host = host

    async def upsert(self, content: bytes, namespace: str = "ns", **options: Any) -> httpx.Response:
        return await self.gateway.ask(
            "POST",
            f"/records/namespaces/{namespace}/upsert",
            host=self.host,
            content=content,
            headers={"content-type": "application/x-ndjson"},
            **options,
        )

    async def search(self, namespace: str = "ns", **body: Any) -> httpx.Response:
        path = f"/records/namespaces/{namespace}/search"
        return await self.gateway.ask("POST", path, host=self.host, json=body)

    async def fetch(self, record_id: str, namespace: str = "ns") -> dict[str, Any]:
        asked = {"ids": record_id, "namespace": namespace}
        path = "/vectors/fetch"
        answer = await self.gateway.ask("GET", path, host=self.host, params=asked)
        found: dict[str, Any] = answer.json()["vectors"].get(record_id, {})
        return found


@pytest.fixture
async def texts(gateway: Running) -> Texts:
    made = await gateway.ask("POST", "/indexes/create-for-model", json=for_model())
    assert made.status_code == 201, made.text
    return Texts(gateway, made.json()["host"])


@pytest.fixture
async def vectors(gateway: Running) -> Texts:
    return Texts(gateway, (await gateway.create())["host"])


async def filled(texts: Texts) -> Texts:
    records = [{"_id": i, "body": t, "chars": len(t)} for i, t in TEXTS.items()]
    written = await texts.upsert(lines(*records))
    assert (written.status_code, written.content) == (201, b"")
    assert written.headers["x-pinecone-request-lsn"] == "0"
    return texts


async def test_texts_are_found_by_texts(texts: Texts) -> None:
    await filled(texts)
    found = await texts.search(query={"top_k": 2, "inputs": {"text": "snow and ice"}})
    body = found.json()
    first, second = body["result"]["hits"]
    assert first["_id"] == "ice"
    assert first["fields"] == {"body": TEXTS["ice"], "chars": len(TEXTS["ice"])}
    expected = embed([TEXTS["ice"], "snow and ice"])
    assert first["_score"] == pytest.approx(float(expected[0] @ expected[1]), abs=1e-5)
    assert first["_score"] > second["_score"]
    assert body["usage"] == {"read_units": 1, "embed_total_tokens": 3}
    assert found.headers["x-pinecone-max-indexed-lsn"] == "0"


async def test_what_is_stored_is_the_models_vector_and_the_fields(texts: Texts) -> None:
    await filled(texts)
    stored = await texts.fetch("sea")
    assert stored["values"] == pytest.approx(embed([TEXTS["sea"]])[0].tolist(), abs=1e-6)
    assert stored["metadata"] == {"body": TEXTS["sea"], "chars": len(TEXTS["sea"])}


async def test_by_id_and_vector_and_with_a_filter(texts: Texts) -> None:
    await filled(texts)
    near = await texts.search(query={"top_k": 1, "id": "city"}, fields=["chars", "none"])
    assert near.json()["result"]["hits"][0]["_id"] == "city"
    assert near.json()["result"]["hits"][0]["fields"] == {"chars": len(TEXTS["city"])}
    assert near.json()["usage"] == {"read_units": 1}
    values = embed([TEXTS["sea"]])[0].tolist()
    by_vector = await texts.search(query={"top_k": 1, "vector": {"values": values}}, fields=["*"])
    assert by_vector.json()["result"]["hits"][0]["fields"]["body"] == TEXTS["sea"]
    short = {"chars": {"$lt": len(TEXTS["ice"])}}
    filtered = await texts.search(
        query={"top_k": 3, "inputs": {"text": "snow"}, "filter": short}, fields=[]
    )
    assert [hit["_id"] for hit in filtered.json()["result"]["hits"]] == ["sea"]
    assert filtered.json()["result"]["hits"][0]["fields"] == {}


async def test_vectors_and_ids_are_searched_in_every_index(vectors: Texts) -> None:
    body = {"vectors": [{"id": "a", "values": [1, 0, 0]}], "namespace": "ns"}
    await vectors.gateway.ask("POST", "/vectors/upsert", host=vectors.host, json=body)
    for query in ({"vector": {"values": [1, 0, 0]}}, {"id": "a"}):
        found = await vectors.search(query={"top_k": 5, **query})
        assert found.json()["result"]["hits"] == [{"_id": "a", "_score": 1.0, "fields": {}}]


async def test_a_sparse_index_is_searched_by_sparse_values(gateway: Running) -> None:
    made = await gateway.create("sparse", dimension=None, metric="dotproduct", vector_type="sparse")
    sparse = Texts(gateway, made["host"])
    record = {"id": "s", "sparseValues": {"indices": [5, 7], "values": [1.0, 2.0]}}
    body = {"vectors": [record], "namespace": "ns"}
    await gateway.ask("POST", "/vectors/upsert", host=sparse.host, json=body)
    vector = {"sparse_indices": [7], "sparse_values": [3.0]}
    found = await sparse.search(query={"top_k": 1, "vector": vector})
    assert found.json()["result"]["hits"] == [{"_id": "s", "_score": 6.0, "fields": {}}]


async def test_an_index_without_a_model_says_how_to_get_one(vectors: Texts) -> None:
    asked = await vectors.search(query={"top_k": 1, "inputs": {"text": "snow"}})
    written = await vectors.upsert(lines({"_id": "a", "body": "snow"}))
    for answer in (asked, written):
        assert answer.status_code == 400
        assert "has no integrated embedding" in answer.json()["message"]
        assert "words, other/tiny" in answer.json()["message"]


WRONG_SEARCHES: list[tuple[dict[str, Any], int, str]] = [
    ({"query": {"top_k": 1}}, 400, "exactly one of inputs, vector and id, not 0"),
    ({"query": {"top_k": 1, "id": "a", "inputs": {"text": "x"}}}, 400, "inputs and id"),
    ({"query": {"top_k": 0, "id": "a"}}, 400, "between 1 and 10000"),
    ({"query": {"top_k": 1, "inputs": {}}}, 400, "query.inputs"),
    ({"query": {"top_k": 1, "inputs": {"text": "an unspeakable"}}}, 400, "unspeakable"),
    ({"query": {"top_k": 1, "vector": {"values": [1]}}}, 400, "dimension 1"),
    (
        {"query": {"top_k": 1, "vector": {"sparse_values": [1]}}},
        400,
        "not support sparse values",
    ),
    ({"query": {"top_k": 1, "id": "a"}, "fields": ["f"] * 101}, 400, "at most 100 named"),
    ({"query": {"top_k": 1, "id": "a"}, "rerank": {"model": "m"}}, 501, "rerank"),
    ({"query": {"top_k": 1, "id": "a", "match_terms": {}}}, 501, "match_terms"),
    ({"top_k": 1}, 400, "query"),
]


async def test_a_wrong_search_is_refused_with_a_reason(texts: Texts) -> None:
    for body, status, part in WRONG_SEARCHES:
        answer = await texts.search(**body)
        assert (answer.status_code, part in answer.json()["message"]) == (status, True), answer.text


GOOD = {"_id": "good", "body": "snow"}


WRONG_RECORDS = [
    (b"", "between 1 and 96 records, got 0"),
    (lines(*[GOOD] * 97), "between 1 and 96 records, got 97"),
    (lines(GOOD, {"body": "snow"}), "Record 2 must have an _id that is a string"),
    (lines(GOOD, {"_id": 7, "body": "snow"}), "Record 2 must have an _id"),
    (lines(GOOD, {"_id": "x" * 513, "body": "snow"}), "between 1 and 512 characters"),
    (lines(GOOD, {"_id": "b", "text": "snow"}), "in the field 'body', which the index embeds"),
    (lines(GOOD, {"_id": "b", "body": "  "}), "record 'b' has none"),
    (lines(GOOD, {"_id": "b", "body": "x", "deep": {"a": 1}}), "an object for field 'deep'"),
    (lines(GOOD, {"_id": "b", "body": "x" * 41_000}), "exceeds the limit of 40960 bytes"),
    (lines(GOOD, {"_id": "b", "body": "an unspeakable word"}), "unspeakable"),
    (lines(GOOD) + b"\n{", "Line 2 of the request body is not a record as JSON"),
    (lines(GOOD) + b"\n[1]", "Line 2"),
    (b"\xff", "Line 1"),
]


async def test_a_wrong_record_refuses_all_of_them(texts: Texts) -> None:
    for content, part in WRONG_RECORDS:
        answer = await texts.upsert(content)
        assert (answer.status_code, part in answer.json()["message"]) == (400, True), part
        assert await texts.fetch("good") == {}


async def test_lines_may_come_as_people_write_them(texts: Texts) -> None:
    """`id` for `_id`, empty lines, carriage returns, one array, the last of the same id."""
    blank = b"\n\r\n" + lines({"id": "alias", "body": "one"}) + b"\r\n\n"
    assert (await texts.upsert(blank)).status_code == 201
    assert (await texts.fetch("alias"))["metadata"] == {"body": "one"}
    both = lines({"_id": "wins", "id": "loses", "body": "two"})
    assert (await texts.upsert(both)).status_code == 201
    assert (await texts.fetch("wins"))["metadata"] == {"body": "two"}
    array = b"[" + lines(GOOD).replace(b"\n", b",") + b"]"
    assert (await texts.upsert(lines(GOOD, {**GOOD, "body": "last"}))).status_code == 201
    assert (await texts.fetch("good"))["metadata"] == {"body": "last"}
    # Not described, so it is sent past the comparison with the description.
    url = f"{texts.host}/records/namespaces/array/upsert"
    sent = await texts.gateway.http.post(url, content=array, headers={"api-key": KEY})
    assert sent.status_code == 201
    assert (await texts.fetch("good", "array"))["metadata"] == {"body": "snow"}


async def test_namespaces_of_any_name_keep_to_themselves(texts: Texts) -> None:
    for namespace in ("a%2Fupsert", "%2e%2e", "__default__", ""):
        assert (await texts.upsert(lines(GOOD), namespace)).status_code == 201
    listed = await texts.gateway.ask("GET", "/namespaces", host=texts.host)
    names = [n["name"] for n in listed.json()["namespaces"]]
    assert names == ["..", "__default__", "a/upsert"]
    assert (await texts.upsert(lines(GOOD), "a/b")).status_code == 404


async def test_who_may_write_and_who_may_read(texts: Texts) -> None:
    assert (await texts.upsert(lines(GOOD), key=READ_ONLY_KEY)).status_code == 403
    assert (await texts.upsert(lines(GOOD), key=OTHER_KEY)).status_code == 404
    assert (await texts.upsert(lines(GOOD), key=None)).status_code == 401


async def test_a_search_beyond_its_rate_is_refused_before_its_text_is_embedded(
    tmp_path: Path,
) -> None:
    """The model is slow or costs money; a text that it cannot take shows that it was asked."""
    models = write_models(tmp_path)
    rates: dict[str, Any] = {"rate_namespace_read_requests": 0.001}
    async with running_gateway(tmp_path, embedders=models, **rates) as gateway:
        made = await gateway.ask("POST", "/indexes/create-for-model", json=for_model())
        texts = Texts(gateway, made.json()["host"])
        searched = [
            (await texts.search(query={"top_k": 1, "inputs": {"text": text}})).status_code
            for text in ("snow", "unspeakable")
        ]
        assert searched == [200, 429]


async def test_an_index_for_a_model_in_both_shapes(gateway: Running) -> None:
    asked = for_model(read_parameters={"input_type": "query"}, metric="dotproduct")
    made = (
        await gateway.ask("POST", "/indexes/create-for-model", json=asked, headers=CLASSIC)
    ).json()
    assert made["dimension"] == DIMENSION
    assert made["metric"] == "dotproduct"
    assert made["embed"] == {
        "model": MODEL,
        "field_map": {"text": "body"},
        "metric": "dotproduct",
        "dimension": DIMENSION,
        "vector_type": "dense",
        "read_parameters": {"input_type": "query"},
        "write_parameters": {},
    }
    typed = (await gateway.ask("GET", "/indexes/texts", headers=NEWEST)).json()
    assert typed["schema"]["fields"] == {
        "body": {
            "type": "semantic_text",
            "model": MODEL,
            "metric": "dotproduct",
            "read_parameters": {"input_type": "query"},
            "write_parameters": {},
        }
    }
    tiny = for_model("tiny", model="other/tiny")
    shown = await gateway.ask("POST", "/indexes/create-for-model", json=tiny, headers=CLASSIC)
    assert (shown.json()["dimension"], shown.json()["metric"]) == (3, "dotproduct")


WRONG_MODELS: list[tuple[dict[str, Any], int, str]] = [
    ({"model": "e5"}, 404, "it has words, other/tiny"),
    ({"dimension": 3}, 400, "has the dimension 64, not 3"),
    ({"metric": "near"}, 400, "Unknown metric"),
    ({"field_map": {}}, 422, "text"),
    ({"field_map": {"text": "_id"}}, 400, "must name a field of the records"),
    ({"read_parameters": {"input_type": "song"}}, 400, "input_type must be one of"),
    ({"write_parameters": {"x": "y" * 5000}}, 400, "at most 4096 bytes"),
]


async def test_a_wrong_index_for_a_model_is_refused(gateway: Running) -> None:
    for change, status, part in WRONG_MODELS:
        answer = await gateway.ask("POST", "/indexes/create-for-model", json=for_model(**change))
        assert answer.status_code == status
        assert part in answer.json()["error"]["message"]


async def test_an_index_gets_a_model_and_keeps_it(gateway: Running) -> None:
    host = (await gateway.create("late", dimension=DIMENSION))["host"]

    async def configure(embed: dict[str, Any]) -> httpx.Response:
        return await gateway.ask("PATCH", "/indexes/late", json={"embed": embed}, headers=CLASSIC)

    assert (await configure({"model": MODEL})).status_code == 400
    tiny = {"model": "other/tiny", "field_map": {"text": "t"}}
    assert "index has dimension 64" in (await configure(tiny)).text
    given = await configure({"model": MODEL, "field_map": {"text": "t"}})
    assert given.json()["embed"]["field_map"] == {"text": "t"}
    late = Texts(gateway, host)
    assert (await late.upsert(lines({"_id": "a", "t": "snow"}))).status_code == 201
    assert "cannot change" in (await configure({"model": "other/tiny"})).text
    renamed = await configure({"field_map": {"text": "body"}})
    assert renamed.json()["embed"]["model"] == MODEL
    assert (await late.upsert(lines({"_id": "b", "t": "snow"}))).status_code == 400
    assert (await late.upsert(lines({"_id": "b", "body": "snow"}))).status_code == 201
    field = {"type": "semantic_text", "model": MODEL, "read_parameters": {"input_type": "passage"}}
    typed = await gateway.ask(
        "PATCH", "/indexes/late", json={"schema": {"fields": {"body": field}}}, headers=NEWEST
    )
    assert typed.json()["schema"]["fields"]["body"]["read_parameters"] == {"input_type": "passage"}
    other = await gateway.ask(
        "PATCH", "/indexes/late", json={"schema": {"fields": {"title": field}}}, headers=NEWEST
    )
    assert (other.status_code, "other fields" in other.text) == (400, True)


async def test_a_model_that_was_taken_away_is_the_operators_to_mend(tmp_path: Path) -> None:
    embedders = tmp_path / "embedders.toml"
    local = f'local = "tests.fixtures.embedder:make"\ndimension = {DIMENSION}\n'
    embedders.write_text(f"[{MODEL}]\n{local}")
    async with running_gateway(tmp_path, embedders=embedders) as running:
        await running.ask("POST", "/indexes/create-for-model", json=for_model())
    embedders.write_text(f"[another]\n{local}")
    async with running_gateway(tmp_path, embedders=embedders) as running:
        host = (await running.ask("GET", "/indexes/texts")).json()["host"]
        refused = await Texts(running, host).upsert(lines(GOOD))
        assert refused.status_code == 412
        assert "no model 'words': it has another" in refused.json()["message"]


async def test_who_writes_too_much_costs_the_model_nothing(tmp_path: Path) -> None:
    """The rate is asked before the texts are embedded."""
    embedders = write_models(tmp_path)
    rates: dict[str, Any] = {"rate_project_write_records": 1, "rate_burst_s": 96}
    async with running_gateway(tmp_path, embedders=embedders, **rates) as running:
        made = await running.ask("POST", "/indexes/create-for-model", json=for_model())
        texts = Texts(running, made.json()["host"])
        many = lines(*({"_id": str(n), "body": "snow"} for n in range(96)))
        assert (await texts.upsert(many)).status_code == 201
        refused = await texts.upsert(many)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert running.metrics.text().count(b'firndb_embed_texts_total{model="words"} 96.0') == 1


async def test_the_documents_api_says_that_it_is_not_there(vectors: Texts) -> None:
    async def ask(method: str, path: str) -> httpx.Response:
        return await vectors.gateway.ask(method, path, host=vectors.host)

    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        for path in ("documents/upsert", "documents/search", "documents/a/b", "documents/"):
            answer = await ask(method, f"/namespaces/ns/{path}")
            assert (answer.status_code, answer.json()["code"]) == (501, 12), (method, path)
            assert "/records/namespaces/{namespace}/upsert" in answer.json()["message"]
    unknown = await ask("DELETE", "/namespaces/ns%2Fdocuments%2Fx")
    assert (unknown.status_code, unknown.json()["message"]) == (404, "Namespace not found")


async def test_models_embed_and_are_listed(gateway: Running) -> None:
    listed = (await gateway.ask("GET", "/models", key=READ_ONLY_KEY)).json()["models"]
    assert [m["model"] for m in listed] == [MODEL, "other/tiny"]
    for parameters in ({"type": "rerank"}, {"vector_type": "sparse"}):
        assert (await gateway.ask("GET", "/models", params=parameters)).json() == {"models": []}
    one = await gateway.ask("GET", "/models/other%2Ftiny")
    assert one.json() == listed[1]
    assert (await gateway.ask("GET", "/models/e5")).status_code == 404
    body = {"model": MODEL, "inputs": [{"text": "snow"}, {"text": "sea"}]}
    embedded = (await gateway.ask("POST", "/embed", json=body)).json()
    assert [len(e["values"]) for e in embedded["data"]] == [DIMENSION] * 2
    assert embedded["data"][0]["values"] == pytest.approx(embed(["snow"])[0].tolist(), abs=1e-6)
    assert embedded["usage"] == {"total_tokens": 2}
    refused = await gateway.ask("POST", "/rerank", json={})
    assert refused.status_code == 501


WRONG_INPUTS: list[tuple[dict[str, Any], int]] = [
    ({"model": "e5", "inputs": [{"text": "x"}]}, 404),
    ({"model": MODEL, "inputs": []}, 400),
    ({"model": MODEL, "inputs": [{"text": "x"}] * 97}, 400),
    ({"model": MODEL, "inputs": [{"text": ""}]}, 400),
    ({"model": MODEL, "inputs": ["x"]}, 422),
    ({"model": MODEL, "inputs": [{"text": "x"}], "parameters": {"input_type": "song"}}, 400),
]


async def test_wrong_inputs_are_refused(gateway: Running) -> None:
    for body, status in WRONG_INPUTS:
        assert (await gateway.ask("POST", "/embed", json=body)).status_code == status


async def test_without_models_nothing_is_offered(tmp_path: Path) -> None:
    async with running_gateway(tmp_path) as running:
        assert (await running.ask("GET", "/models")).json() == {"models": []}
        made = await running.ask("POST", "/indexes/create-for-model", json=for_model())
        assert made.status_code == 404
        assert "FIRNDB_EMBEDDERS" in made.json()["error"]["message"]
