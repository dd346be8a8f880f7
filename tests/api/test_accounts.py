"""A project's keys over HTTP: made, listed, changed, rotated and revoked by its admins alone."""

from pathlib import Path
from typing import Any

import pytest

from tests.api.gateway import (
    KEY,
    OTHER_KEY,
    READ_ONLY_KEY,
    READ_WRITE_KEY,
    Running,
    running_gateway,
)


async def project_of(gateway: Running, key: str = KEY) -> str:
    (project,) = (await gateway.ask("GET", "/admin/projects", key=key)).json()["data"]
    project_id: str = project["id"]
    return project_id


async def make(gateway: Running, **body: Any) -> Any:
    path = f"/admin/projects/{await project_of(gateway)}/api-keys"
    answer = await gateway.ask("POST", path, json={"name": "search", **body})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def lists_indexes(gateway: Running, key: str) -> int:
    return (await gateway.ask("GET", "/indexes", key=key)).status_code


async def test_a_key_lives_from_its_making_to_its_end(gateway: Running) -> None:
    made = await make(gateway, roles=["DataPlaneEditor"])
    path, secret = f"/admin/api-keys/{made['key']['id']}", made["value"]
    assert made["key"]["role"] == "read-write"
    assert await lists_indexes(gateway, secret) == 200
    shown = (await gateway.ask("GET", path)).json()
    assert shown == made["key"]
    listed = await gateway.ask("GET", f"/admin/projects/{await project_of(gateway)}/api-keys")
    assert shown in listed.json()["data"]
    assert secret not in listed.text
    changed = await gateway.ask("PATCH", path, json={"name": "x", "roles": ["ProjectViewer"]})
    assert (changed.json()["name"], changed.json()["role"]) == ("x", "read-only")
    refused = await gateway.ask("POST", "/indexes", key=secret, json={})
    assert refused.status_code == 403
    rotated = (await gateway.ask("POST", f"/firndb/api-keys/{shown['id']}/rotate")).json()
    assert rotated["key"]["id"] == shown["id"]
    assert await lists_indexes(gateway, secret) == 401
    assert await lists_indexes(gateway, rotated["value"]) == 200
    assert (await gateway.ask("DELETE", path)).status_code == 202
    assert await lists_indexes(gateway, rotated["value"]) == 401
    for method in ("GET", "PATCH", "DELETE"):
        assert (await gateway.ask(method, path, json={})).status_code == 404
    audit = (await gateway.ask("GET", "/firndb/audit")).json()["entries"]
    assert {entry["resource"] for entry in audit if entry["action"].startswith("api-key")} == {
        f"api-key/{shown['id']}"
    }


async def test_an_old_secret_stays_for_the_stated_overlap(gateway: Running) -> None:
    made = await make(gateway)
    path = f"/firndb/api-keys/{made['key']['id']}/rotate"
    rotated = (await gateway.ask("POST", path, json={"keep_old_s": 60})).json()
    for secret in (made["value"], rotated["value"]):
        assert await lists_indexes(gateway, secret) == 200
    for wrong in (-1, 1e9):
        assert (await gateway.ask("POST", path, json={"keep_old_s": wrong})).status_code == 400


@pytest.mark.parametrize(
    "moment",
    ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00", "10000-01-01", "2020-01-01"],
)
async def test_an_end_that_no_calendar_has_breaks_no_list_of_keys(
    gateway: Running, moment: str
) -> None:
    path = f"/admin/projects/{await project_of(gateway)}/api-keys"
    refused = await gateway.ask("POST", path, json={"name": "x", "expires_at": moment})
    assert refused.status_code == 400
    assert (await gateway.ask("GET", path)).status_code == 200
    await make(gateway, expires_at="9999-12-31T23:59:59Z")
    assert (await gateway.ask("GET", path)).status_code == 200


async def test_the_last_admin_key_is_not_revoked_or_lowered_by_accident(gateway: Running) -> None:
    path = f"/admin/projects/{await project_of(gateway)}/api-keys"
    (own,) = [k for k in (await gateway.ask("GET", path)).json()["data"] if k["role"] == "admin"]
    for method, body in [("DELETE", None), ("PATCH", {"roles": ["DataPlaneEditor"]})]:
        answer = await gateway.ask(method, f"/admin/api-keys/{own['id']}", json=body)
        assert answer.status_code == 412
        assert "last valid admin key" in answer.json()["error"]["message"]
    assert await lists_indexes(gateway, KEY) == 200
    second = await make(gateway)
    assert (await gateway.ask("DELETE", f"/admin/api-keys/{own['id']}")).status_code == 202
    assert await lists_indexes(gateway, KEY) == 401
    assert await lists_indexes(gateway, second["value"]) == 200


async def test_keys_of_another_project_and_nonsense_are_not_found(gateway: Running) -> None:
    theirs = await project_of(gateway, OTHER_KEY)
    (key,) = await gateway.catalog.keys(theirs)
    for key_id in (key.key_id, "0" * 32, "nonsense", "%00", "x" * 5000):
        for method, path in [
            ("GET", f"/admin/api-keys/{key_id}"),
            ("PATCH", f"/admin/api-keys/{key_id}"),
            ("DELETE", f"/admin/api-keys/{key_id}"),
            ("POST", f"/firndb/api-keys/{key_id}/rotate"),
        ]:
            answer = await gateway.ask(method, path, json={})
            assert answer.status_code == 404
            assert answer.json()["error"]["message"] == "API key not found"
    for method, path in [
        ("GET", f"/admin/projects/{theirs}"),
        ("GET", f"/admin/projects/{theirs}/api-keys"),
        ("POST", f"/admin/projects/{theirs}/api-keys"),
    ]:
        assert (await gateway.ask(method, path, json={"name": "x"})).status_code == 404
    assert await lists_indexes(gateway, OTHER_KEY) == 200


@pytest.mark.parametrize("key", [READ_ONLY_KEY, READ_WRITE_KEY])
async def test_only_admins_see_and_change_keys(gateway: Running, key: str) -> None:
    project = await project_of(gateway)
    for method, path in [
        ("GET", "/admin/projects"),
        ("GET", f"/admin/projects/{project}"),
        ("GET", f"/admin/projects/{project}/api-keys"),
        ("POST", f"/admin/projects/{project}/api-keys"),
        ("GET", "/admin/api-keys/x"),
        ("PATCH", "/admin/api-keys/x"),
        ("DELETE", "/admin/api-keys/x"),
        ("POST", "/firndb/api-keys/x/rotate"),
    ]:
        assert (await gateway.ask(method, path, key=key, json={})).status_code == 403


ROLES: list[tuple[list[str] | None, str | None]] = [
    (None, "admin"),
    (["ProjectEditor"], "admin"),
    (["ControlPlaneEditor", "DataPlaneEditor"], "admin"),
    (["ControlPlaneViewer", "DataPlaneEditor"], "read-write"),
    (["DataPlaneViewer", "DataPlaneEditor"], "read-write"),
    (["ProjectViewer"], "read-only"),
    (["ControlPlaneViewer", "DataPlaneViewer"], "read-only"),
    (["read-write"], "read-write"),
    ([], None),
    (["Emperor"], None),
    (["ControlPlaneEditor"], None),
    (["ControlPlaneViewer"], None),
    (["ControlPlaneEditor", "DataPlaneViewer"], None),
]


async def test_a_role_allows_what_its_names_say_and_no_change_more(gateway: Running) -> None:
    path = f"/admin/projects/{await project_of(gateway)}/api-keys"
    for roles, role in ROLES:
        answer = await gateway.ask("POST", path, json={"name": "x", "roles": roles})
        if role is None:
            assert answer.status_code == 400, roles
        else:
            assert answer.json()["key"]["role"] == role, roles


async def test_a_wrong_body_is_refused_with_a_reason(gateway: Running) -> None:
    path = f"/admin/projects/{await project_of(gateway)}/api-keys"
    for body, status in [
        ({}, 422),
        ({"name": 3}, 422),
        ({"name": "x", "roles": "admin"}, 422),
        ({"name": "x" * 81}, 400),
        ({"name": "two\nlines"}, 400),
        ({"name": "x", "expires_at": "soon"}, 400),
        ({"name": "x", "expires_at": "2001-01-01T00:00:00Z"}, 400),
    ]:
        assert (await gateway.ask("POST", path, json=body)).status_code == status


async def test_a_project_has_only_so_many_keys(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, max_api_keys=4) as gateway:
        made = await make(gateway)
        path = f"/admin/projects/{await project_of(gateway)}/api-keys"
        refused = await gateway.ask("POST", path, json={"name": "x"})
        assert refused.status_code == 403
        assert refused.json()["error"]["code"] == "QUOTA_EXCEEDED"
        await gateway.ask("DELETE", f"/admin/api-keys/{made['key']['id']}")
        await make(gateway)


async def test_the_admin_client_gets_its_token_for_an_admin_key(gateway: Running) -> None:
    for secret, status in [(KEY, 200), (READ_WRITE_KEY, 403), ("wrong", 401)]:
        body = {"client_id": "any", "client_secret": secret, "grant_type": "client_credentials"}
        answer = await gateway.ask("POST", "/oauth/token", key=None, json=body)
        assert answer.status_code == status
    bearer = {"authorization": f"Bearer {KEY}"}
    answer = await gateway.ask("GET", "/admin/projects", key=None, headers=bearer)
    assert answer.status_code == 200
