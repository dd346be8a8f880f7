"""Indexes are made, shown, changed and deleted over HTTP, in both shapes of Pinecone's API."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.api.gateway import (
    CLASSIC,
    NEWEST,
    OTHER_KEY,
    READ_ONLY_KEY,
    READ_WRITE_KEY,
    SERVERLESS,
    Running,
)

DENSE = {"_values": {"type": "dense_vector", "dimension": 3, "metric": "cosine"}}
MANAGED = {"deployment_type": "managed", "cloud": "aws", "region": "us-east-1"}


def error_code(answer: httpx.Response) -> tuple[int, str]:
    """Status and code; the body must have the control plane's shape."""
    body = answer.json()
    assert body["status"] == answer.status_code
    assert set(body["error"]) == {"code", "message"}
    return answer.status_code, body["error"]["code"]


async def create(gateway: Running, shape: dict[str, str], body: dict[str, Any]) -> httpx.Response:
    return await gateway.ask("POST", "/indexes", json=body, headers=shape)


async def test_the_life_of_an_index_in_the_classic_shape(gateway: Running) -> None:
    made = await gateway.create(tags={"team": "ice"}, deletion_protection="enabled")
    assert made == {
        "name": "movies",
        "dimension": 3,
        "metric": "cosine",
        "vector_type": "dense",
        "host": made["host"],
        "status": {"ready": True, "state": "Ready"},
        "spec": SERVERLESS,
        "deletion_protection": "enabled",
        "tags": {"team": "ice"},
    }
    assert made["host"].startswith("http://127.0.0.1:")
    assert (await gateway.ask("GET", "/indexes/movies", headers=CLASSIC)).json() == made
    listed = (await gateway.ask("GET", "/indexes", headers=CLASSIC)).json()
    assert listed == {"indexes": [made]}

    refused = await gateway.ask("DELETE", "/indexes/movies")
    assert error_code(refused) == (403, "FORBIDDEN")
    changed = await gateway.ask(
        "PATCH", "/indexes/movies", json={"deletion_protection": "disabled"}, headers=CLASSIC
    )
    assert changed.json()["deletion_protection"] == "disabled"
    deleted = await gateway.ask("DELETE", "/indexes/movies")
    assert (deleted.status_code, deleted.content) == (202, b"")
    assert error_code(await gateway.ask("GET", "/indexes/movies")) == (404, "NOT_FOUND")
    assert (await gateway.ask("GET", "/indexes")).json() == {"indexes": []}


async def test_the_same_index_in_the_shape_of_2026_07(gateway: Running) -> None:
    wanted = {"name": "movies", "schema": {"fields": DENSE}, "deployment": MANAGED}
    made = (await create(gateway, NEWEST, wanted)).json()
    assert made == {
        "name": "movies",
        "host": made["host"],
        "status": {"ready": True, "state": "Ready"},
        "schema": {"fields": DENSE},
        "deployment": MANAGED,
        "read_capacity": {"mode": "OnDemand", "status": {"state": "Ready"}},
        "deletion_protection": "disabled",
        "tags": None,
    }
    classic = (await gateway.ask("GET", "/indexes/movies", headers=CLASSIC)).json()
    assert (classic["dimension"], classic["metric"]) == (3, "cosine")
    assert classic["spec"] == SERVERLESS


async def test_a_sparse_index_in_both_shapes(gateway: Running) -> None:
    fields = {"_sparse_values": {"type": "sparse_vector"}}
    made = await create(gateway, NEWEST, {"name": "words", "schema": {"fields": fields}})
    assert made.json()["schema"]["fields"] == fields
    classic = (await gateway.ask("GET", "/indexes/words", headers=CLASSIC)).json()
    assert classic["vector_type"] == "sparse"
    assert classic["metric"] == "dotproduct"
    assert "dimension" not in classic


async def test_a_vector_field_may_have_a_name_of_its_own(gateway: Running) -> None:
    fields = {"embedding": DENSE["_values"]}
    made = await create(gateway, NEWEST, {"name": "named", "schema": {"fields": fields}})
    assert made.json()["schema"]["fields"] == fields
    classic = (await gateway.ask("GET", "/indexes/named", headers=CLASSIC)).json()
    assert (classic["dimension"], classic["metric"]) == (3, "cosine")


async def test_an_index_without_a_name_gets_one(gateway: Running) -> None:
    made = await create(gateway, NEWEST, {"schema": {"fields": DENSE}})
    assert made.status_code == 201
    name = made.json()["name"]
    assert (await gateway.ask("GET", f"/indexes/{name}")).status_code == 200


@pytest.mark.parametrize(
    ("spec", "shown"),
    [
        (
            {"pod": {"environment": "us-east1-gcp", "pod_type": "p1.x2", "replicas": 2}},
            {
                "pod": {
                    "environment": "us-east1-gcp",
                    "pod_type": "p1.x2",
                    "replicas": 2,
                    "shards": 1,
                    "pods": 2,
                }
            },
        ),
        ({"byoc": {"environment": "our-own"}}, {"byoc": {"environment": "our-own"}}),
    ],
)
async def test_other_specs_are_kept_and_shown(
    gateway: Running, spec: dict[str, Any], shown: dict[str, Any]
) -> None:
    assert (await gateway.create(spec=spec))["spec"] == shown


async def test_tags_merge_and_an_empty_value_removes_one(gateway: Running) -> None:
    await gateway.create(tags={"a": "1", "b": "2"})
    change = {"tags": {"b": "", "c": "3"}}
    changed = await gateway.ask("PATCH", "/indexes/movies", json=change)
    assert changed.json()["tags"] == {"a": "1", "c": "3"}
    many = {"tags": {f"k{n}": "v" for n in range(19)}}
    refused = await gateway.ask("PATCH", "/indexes/movies", json=many)
    assert error_code(refused) == (400, "INVALID_ARGUMENT")
    assert "at most 20" in refused.json()["error"]["message"]
    untouched = await gateway.ask("GET", "/indexes/movies")
    assert untouched.json()["tags"] == {"a": "1", "c": "3"}


CLASSIC_MISTAKES = [
    ({"name": "Movies"}, 400, "lower case"),
    ({"name": "-movies"}, 400, "alphanumeric"),
    ({"name": "m" * 46}, 400, "45"),
    ({"name": 7}, 422, "Expected `str`"),
    ({"dimension": 0}, 400, "dimension"),
    ({"dimension": 20001}, 400, "20000"),
    ({"dimension": None}, 400, "dimension"),
    ({"dimension": "3"}, 422, "dimension"),
    ({"metric": "manhattan"}, 400, "cosine, dotproduct, euclidean"),
    ({"vector_type": "dots"}, 400, "vector_type"),
    ({"vector_type": "sparse"}, 400, "dotproduct"),
    ({"vector_type": "sparse", "metric": "dotproduct"}, 400, "dimension"),
    ({"spec": {}}, 422, "serverless, pod and byoc"),
    ({"spec": {"serverless": {"cloud": "aws"}}}, 422, "region"),
    ({"deletion_protection": "yes"}, 400, "deletion_protection"),
    ({"tags": {"bad key": "v"}}, 400, "Tag keys"),
    ({"tags": {"k": "v" * 121}}, 400, "120"),
]


@pytest.mark.parametrize(("change", "status", "text"), CLASSIC_MISTAKES)
async def test_a_wrong_classic_index_is_refused_with_a_reason(
    gateway: Running, change: dict[str, Any], status: int, text: str
) -> None:
    right = {"name": "movies", "dimension": 3, "metric": "cosine", "spec": SERVERLESS}
    refused = await create(gateway, CLASSIC, {**right, **change})
    assert error_code(refused)[0] == status
    assert text in refused.json()["error"]["message"]
    assert (await gateway.ask("GET", "/indexes")).json() == {"indexes": []}


TYPED_MISTAKES = [
    ({"deployment": {"cloud": "aws", "region": "r"}}, 422, "deployment_type"),
    ({"deployment": {"deployment_type": "cloudy"}}, 422, "cloudy"),
    ({"schema": {"fields": {}}}, 400, "_values"),
    ({"schema": {"fields": {**DENSE, "t": {"type": "string"}}}}, 422, "full_text_search"),
    (
        {"schema": {"fields": {**DENSE, "t": {"type": "string", "filterable": True}}}},
        400,
        "only accepts fields used for search",
    ),
    ({"schema": {"fields": {**DENSE, "v": DENSE["_values"]}}}, 400, "one dense_vector field"),
    ({"schema": {"fields": {"_v": DENSE["_values"]}}}, 400, "vector field's name"),
    ({"schema": {"fields": {"b": {"type": "string", "full_text_search": {}}}}}, 400, "document"),
    ({"schema": {"fields": {**DENSE, "t": {"type": "colour"}}}}, 422, "colour"),
    ({"schema": {"fields": {"_values": {"type": "dense_vector"}}}}, 422, "dimension"),
    ({"read_capacity": {"mode": "Turbo"}}, 422, "read_capacity"),
    ({"cmek_id": "k"}, 501, "cmek_id"),
]


@pytest.mark.parametrize(("change", "status", "text"), TYPED_MISTAKES)
async def test_a_wrong_index_of_the_newer_shape_is_refused_with_a_reason(
    gateway: Running, change: dict[str, Any], status: int, text: str
) -> None:
    refused = await create(
        gateway, NEWEST, {"name": "movies", "schema": {"fields": DENSE}, **change}
    )
    assert error_code(refused)[0] == status
    assert text in refused.json()["error"]["message"]


async def test_a_taken_name_is_a_conflict_also_for_those_who_ask_at_once(gateway: Running) -> None:
    body = {"name": "movies", "dimension": 3, "spec": SERVERLESS}
    answers = await asyncio.gather(*[create(gateway, CLASSIC, body) for _ in range(8)])
    assert sorted(a.status_code for a in answers) == [201] + [409] * 7
    refused = next(a for a in answers if a.status_code == 409)
    assert error_code(refused) == (409, "ALREADY_EXISTS")
    assert refused.json()["error"]["message"] == "Resource movies already exists"


@pytest.mark.parametrize("body", [b'{"name": ', b'{"name": "\xff"}'])
async def test_what_is_not_json_is_a_bad_request(gateway: Running, body: bytes) -> None:
    refused = await gateway.ask("POST", "/indexes", content=body)
    assert error_code(refused) == (400, "INVALID_ARGUMENT")


async def test_a_project_sees_only_its_own(gateway: Running) -> None:
    await gateway.create("movies")
    for method in ("GET", "PATCH", "DELETE"):
        answer = await gateway.ask(method, "/indexes/movies", key=OTHER_KEY, content=b"{}")
        assert error_code(answer) == (404, "NOT_FOUND")
    assert (await gateway.ask("GET", "/indexes", key=OTHER_KEY)).json() == {"indexes": []}
    theirs = {"name": "movies", "dimension": 9, "spec": SERVERLESS}
    made = await gateway.ask("POST", "/indexes", key=OTHER_KEY, json=theirs)
    assert made.status_code == 201
    assert (await gateway.ask("GET", "/indexes/movies")).json()["dimension"] == 3


async def test_without_a_valid_key_nothing_is_told(gateway: Running) -> None:
    await gateway.create("movies")
    for key in (None, "", "wrong"):
        for path in ("/indexes", "/indexes/movies", "/indexes/other"):
            answer = await gateway.ask("GET", path, key=key)
            assert error_code(answer) == (401, "UNAUTHENTICATED")
    bearer = {"authorization": "Bearer gateway-test-key"}
    assert (await gateway.ask("GET", "/indexes", key=None, headers=bearer)).status_code == 200


@pytest.mark.parametrize("key", [READ_ONLY_KEY, READ_WRITE_KEY])
async def test_only_an_admin_key_changes_indexes(gateway: Running, key: str) -> None:
    await gateway.create("movies")
    assert (await gateway.ask("GET", "/indexes/movies", key=key)).status_code == 200
    for method, path in [
        ("POST", "/indexes"),
        ("PATCH", "/indexes/movies"),
        ("DELETE", "/indexes/movies"),
        ("DELETE", "/indexes/nowhere"),
    ]:
        refused = await gateway.ask(method, path, key=key, json={})
        assert error_code(refused) == (403, "FORBIDDEN")
        assert "role admin" in refused.json()["error"]["message"]
    assert (await gateway.ask("GET", "/indexes/movies")).status_code == 200


async def test_what_could_not_be_shown_again_is_not_kept(gateway: Running) -> None:
    """Numbers beyond 64 bits and deep nests: one index with them would break every list."""
    for odd in ("1" + "0" * 30, "[" * 300 + "]" * 300, "[" * 100_000):
        field = f'{{"_values":{{"type":"dense_vector","dimension":3,"note":{odd}}}}}'
        body = f'{{"schema":{{"fields":{field}}}}}'.encode()
        refused = await gateway.ask("POST", "/indexes", content=body, headers=NEWEST)
        assert error_code(refused) == (400, "INVALID_ARGUMENT")
        embed = f'{{"model":"m","inputs":[{{"text":"t"}}],"parameters":{{"a":{odd}}}}}'
        asked = await gateway.ask("POST", "/embed", content=embed.encode())
        assert error_code(asked) == (400, "INVALID_ARGUMENT")
    assert (await gateway.ask("GET", "/indexes")).json() == {"indexes": []}
