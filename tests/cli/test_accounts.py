"""What an operator does with projects, keys and the audit log, beside a running server or not."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from click.testing import CliRunner

from cli.main import cli
from cli.runtime.keys import ensure_key
from cli.runtime.parts import Parts, open_parts
from cli.runtime.verbs import run_verb
from core.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    Unauthenticated,
)
from infra.catalog.model import KeyRole
from infra.settings import Settings
from tests.infra.catalog_suite import NEW


@pytest_asyncio.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Parts]:
    async with open_parts(Settings.load({"data": tmp_path, "partitions": 2})) as opened:
        yield opened


async def done(parts: Parts, verb: str, **arguments: Any) -> Any:
    (line,) = [line async for line in run_verb(parts, verb, arguments)]
    return line["result"]


async def test_a_key_is_made_listed_changed_rotated_and_revoked(parts: Parts) -> None:
    made = await done(parts, "keys-create", name="first", role="read-only")
    assert (await parts.callers.prove(made["key"])).role is KeyRole.READ_ONLY
    listed = await done(parts, "keys-list")
    assert [(key["name"], key["project"]) for key in listed] == [("first", "default")]
    assert made["key"] not in str(listed)
    await done(parts, "keys-change", wanted="first", role="read-write", name="second")
    assert (await parts.callers.prove(made["key"])).role is KeyRole.READ_WRITE
    kept = await done(parts, "keys-rotate", wanted="second", keep_old_s=60)
    for secret in (made["key"], kept["key"]):
        assert (await parts.callers.prove(secret)).key_id == made["id"]
    await done(parts, "keys-rotate", wanted=made["id"])
    with pytest.raises(Unauthenticated):
        await parts.callers.prove(kept["key"])
    assert await done(parts, "keys-revoke", wanted="second") == {"revoked": made["id"]}
    with pytest.raises(NotFound, match="firndb keys list"):
        await done(parts, "keys-revoke", wanted="second")


async def test_projects_have_keys_of_their_own(parts: Parts) -> None:
    await ensure_key(parts)
    project = await done(parts, "projects-create", name="tenant")
    with pytest.raises(AlreadyExists):
        await done(parts, "projects-create", name="tenant")
    made = await done(parts, "keys-create", name="k", project="tenant")
    assert (await parts.callers.prove(made["key"])).project_id == project["id"]
    assert [k["name"] for k in await done(parts, "keys-list", project="tenant")] == ["k"]
    assert len(await done(parts, "keys-list")) == 2
    await parts.catalog.create_index(project["id"], NEW, None)
    with pytest.raises(FailedPrecondition, match="still has indexes"):
        await done(parts, "projects-delete", name="tenant")
    await parts.catalog.delete_index(project["id"], "movies")
    await done(parts, "projects-delete", name="tenant")
    with pytest.raises(Unauthenticated):
        await parts.callers.prove(made["key"])
    assert [one["name"] for one in await done(parts, "projects-list")] == ["default"]
    with pytest.raises(NotFound, match="firndb projects list"):
        await done(parts, "keys-create", project="tenant")


async def test_the_operator_may_revoke_the_last_admin_key_and_all_of_it_is_audited(
    parts: Parts,
) -> None:
    await done(parts, "keys-create", name="only")
    await done(parts, "keys-revoke", wanted="only")
    with pytest.raises(InvalidRequest):
        await done(parts, "keys-create", name="x" * 100)
    entries = await done(parts, "audit", project="default")
    assert [(e["action"], e["outcome"]) for e in entries] == [
        ("api-key.create", "refused: INVALID_ARGUMENT"),
        ("api-key.delete", "done"),
        ("api-key.create", "done"),
    ]
    assert {e["key_id"] for e in entries} == {"operator"}
    assert entries[1]["resource"] == entries[2]["resource"]
    assert len(await done(parts, "audit", limit=1)) == 1
    assert await done(parts, "audit", since=entries[0]["time"]) == [
        e for e in await done(parts, "audit") if e["time"] >= entries[0]["time"]
    ]
    for wrong in ({"limit": 0}, {"since": "now"}, {"project": "nowhere"}):
        with pytest.raises((InvalidRequest, NotFound)):
            await done(parts, "audit", **wrong)


def test_the_commands_print_what_a_person_needs(tmp_path: Path) -> None:
    def run(*arguments: str) -> str:
        answer = CliRunner().invoke(cli, [*arguments, "--data", str(tmp_path)])
        assert answer.exit_code == 0, answer.output
        return answer.output

    assert "id " in run("projects", "create", "tenant")
    secret = run("keys", "create", "k", "--project", "tenant", "--role", "read-write").split()[0]
    assert secret.startswith("firn_")
    listed = run("keys", "list", "--project", "tenant")
    assert "read-write" in listed
    assert secret not in listed
    assert run("keys", "rotate", "k", "--keep-old-s", "60").split()[0] != secret
    assert "admin" in run("keys", "change", "k", "--role", "admin")
    assert "revoked" in run("keys", "revoke", "k")
    assert "tenant" in run("projects", "list")
    assert "api-key.rotate" in run("audit", "--project", "tenant")
    assert "deleted" in run("projects", "delete", "tenant")
