"""Every API version that a client may send, on both planes.

At stake: a client of one version meets a body of another and cannot read it.
"""

from pathlib import Path
from typing import Any

import pytest

from api.versions import HEADER, api_version
from tests.api.gateway import SERVERLESS, Running

ROOT = Path(__file__).parents[2]

# version, the newer shape of index resources, the name of the default namespace
VERSIONS = [
    (None, False, "__default__"),
    ("2024-07", False, ""),
    ("2024-10", False, ""),
    ("2025-01", False, ""),
    ("2025-04", False, "__default__"),
    ("2025-10", False, "__default__"),
    ("2026-01", False, "__default__"),
    ("2026-01.alpha", False, "__default__"),
    ("2026-04", False, "__default__"),
    ("2026-07", True, "__default__"),
    ("2027-01", True, "__default__"),
    ("unstable", True, "__default__"),
    ("", False, "__default__"),
    ("newest", False, "__default__"),
    ("99", False, "__default__"),
]

CLASSIC_BODY = {"dimension": 2, "metric": "cosine", "spec": SERVERLESS}
TYPED_BODY = {
    "schema": {"fields": {"_values": {"type": "dense_vector", "dimension": 2}}},
    "deployment": {"deployment_type": "managed", "cloud": "aws", "region": "us-east-1"},
}
CLASSIC_FIELDS = {"dimension", "metric", "spec", "vector_type"}
TYPED_FIELDS = {"schema", "deployment", "read_capacity"}


@pytest.mark.parametrize(("version", "typed", "default"), VERSIONS)
async def test_each_version_gets_its_own_shapes(
    gateway: Running, version: str | None, typed: bool, default: str
) -> None:
    headers = {} if version is None else {HEADER: version}

    async def ask(method: str, path: str, status: int, **options: Any) -> Any:
        answer = await gateway.ask(method, path, headers=headers, **options)
        assert answer.status_code == status, answer.text
        return answer.json()

    own, other = (TYPED_BODY, CLASSIC_BODY) if typed else (CLASSIC_BODY, TYPED_BODY)
    made = await ask("POST", "/indexes", 201, json={"name": "one", **own})
    refused = await ask("POST", "/indexes", 422, json={"name": "two", **other})
    assert set(refused) == {"error", "status"}
    tagged = await ask("PATCH", "/indexes/one", 202, json={"tags": {"a": "b"}})
    described = await ask("GET", "/indexes/one", 200)
    listed = (await ask("GET", "/indexes", 200))["indexes"]
    for shown in (made, tagged, described, *listed):
        assert shown.keys() >= (TYPED_FIELDS if typed else CLASSIC_FIELDS)
        assert not shown.keys() & (CLASSIC_FIELDS if typed else TYPED_FIELDS)
        assert shown["host"].startswith("http://")

    backup = await ask("POST", "/indexes/one/backups", 201, json={"name": "saved"})
    backups = (await ask("GET", "/backups", 200))["data"]
    for shown in (backup, await ask("GET", f"/backups/{backup['backup_id']}", 200), *backups):
        assert ("schema" in shown) == typed
        assert ("dimension" in shown) == ("metric" in shown) == (not typed)

    host = made["host"]
    vectors = [{"id": "a", "values": [1, 2], "metadata": {"x": 1}}]
    assert await ask("POST", "/vectors/upsert", 200, host=host, json={"vectors": vectors})
    query = {"id": "a", "topK": 1}
    by_filter = {"filter": {"x": 1}}
    for namespace in ("", "__default__"):
        asked = {"namespace": namespace}
        for answer in (
            await ask("POST", "/query", 200, host=host, json=query | asked),
            await ask("GET", "/vectors/fetch", 200, host=host, params={"ids": "a"} | asked),
            await ask("GET", "/vectors/list", 200, host=host, params=asked),
            await ask("POST", "/vectors/fetch_by_metadata", 200, host=host, json=by_filter | asked),
        ):
            assert answer["namespace"] == default
            assert len(answer.get("matches") or answer["vectors"]) == 1
    stats = await ask("POST", "/describe_index_stats", 200, host=host, json={})
    assert stats["namespaces"] == {default: {"vectorCount": 1}}
    assert stats["totalVectorCount"] == 1
    names = await ask("GET", "/namespaces", 200, host=host)
    assert [n["name"] for n in names["namespaces"]] == [default]
    assert (await ask("GET", "/namespaces/__default__", 200, host=host))["name"] == default
    mistake = await ask("POST", "/query", 400, host=host, json={})
    assert set(mistake) == {"code", "message", "details"}


def test_no_other_module_reads_the_version() -> None:
    readers = [
        path.relative_to(ROOT).as_posix()
        for folder in ("api", "query", "ingest", "cli")
        for path in (ROOT / folder).rglob("*.py")
        if HEADER in path.read_text()
    ]
    assert readers == ["api/versions.py"]


def test_versions_compare_by_their_date() -> None:
    assert not api_version({HEADER: "2026-06"}).typed
    assert api_version({HEADER: "2026-07.alpha"}).typed
    assert api_version({}).shown("tenant") == "tenant"
