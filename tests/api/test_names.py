"""Names that Pinecone does not have are refused, with the same words by every way of asking."""

import pytest

from tests.api.gateway import KEY, Running
from tests.api.grpc_client import grpc_client
from tests.e2e.test_names import in_path

REFUSED = ["\0", "a\0b", "ü", "日本語", "\u2025", "\uff0e\uff0e", "a" * 513]


@pytest.mark.parametrize("name", REFUSED)
async def test_other_names_are_refused_with_the_same_words_everywhere(
    gateway: Running, name: str
) -> None:
    host = (await gateway.create(dimension=2))["host"]
    bodies = [
        ("/vectors/upsert", {"namespace": name, "vectors": [{"id": "a", "values": [1, 2]}]}),
        ("/vectors/delete", {"namespace": name, "deleteAll": True}),
        ("/query", {"namespace": name, "vector": [1, 2], "topK": 1}),
        ("/namespaces", {"name": name}),
    ]
    texts = set()
    for path, body in bodies:
        answer = await gateway.ask("POST", path, host=host, json=body)
        assert (answer.status_code, answer.json()["code"]) == (400, 3), answer.text
        texts.add(answer.json()["message"])
    for method in ("GET", "DELETE"):
        answer = await gateway.ask(method, f"/namespaces/{in_path(name)}", host=host)
        assert answer.status_code == 400
        texts.add(answer.json()["message"])
    for ids in (["a"], [name]):
        answer = await gateway.ask(
            "GET", "/vectors/fetch", host=host, params={"ids": ids, "namespace": name}
        )
        assert answer.status_code == 400
    calls: list[tuple[str, dict[str, object]]] = [
        ("Fetch", {"namespace": name, "ids": ["a"]}),
        ("DeleteNamespace", {"namespace": name}),
        ("CreateNamespace", {"name": name}),
    ]
    async with grpc_client(host) as client:
        for method, fields in calls:
            code, text, _ = await client.refused(method, key=KEY, **fields)
            assert code.name == "INVALID_ARGUMENT"
            texts.add(text)
    assert len(texts) == 1, texts
    assert not gateway.memory.tables
