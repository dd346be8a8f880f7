"""Who changed what: every change of the control plane is audited, also what was refused."""

from pathlib import Path

import pytest

from api.control.changes import REFUSALS_A_SECOND
from core.clock import SystemClock
from core.errors import Unavailable
from infra.catalog.audit import AuditLog
from infra.catalog.database import Database
from tests.api.gateway import (
    KEY,
    OTHER_KEY,
    READ_ONLY_KEY,
    READ_WRITE_KEY,
    SERVERLESS,
    Running,
    running_gateway,
)


async def entries(gateway: Running, key: str = KEY, **query: object) -> list[dict[str, str]]:
    answer = await gateway.ask("GET", "/firndb/audit", key=key, params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, str]] = answer.json()["entries"]
    return found


async def test_each_change_is_told_with_who_and_how_it_ended(gateway: Running) -> None:
    await gateway.create("movies")
    again = {"name": "movies", "dimension": 3, "spec": SERVERLESS}
    taken = await gateway.ask("POST", "/indexes", json=again)
    await gateway.ask("POST", "/indexes", json={"name": 3})
    await gateway.ask("PATCH", "/indexes/movies", json={"deletion_protection": "enabled"})
    await gateway.ask("DELETE", "/indexes/movies")
    await gateway.ask("DELETE", "/indexes/nowhere")
    await gateway.ask("DELETE", "/indexes/movies", key=READ_WRITE_KEY)
    found = await entries(gateway)
    assert [(e["action"], e["resource"], e["outcome"]) for e in reversed(found)] == [
        ("index.create", "index/movies", "done"),
        ("index.create", "index/movies", "refused: ALREADY_EXISTS"),
        ("index.create", "index", "refused: UNPROCESSABLE_ENTITY"),
        ("index.configure", "index/movies", "done"),
        ("index.delete", "index/movies", "refused: FORBIDDEN"),
        ("index.delete", "index/nowhere", "refused: NOT_FOUND"),
        ("index.delete", "index/movies", "refused: FORBIDDEN"),
    ]
    keys = {key.key_id for key in await gateway.catalog.keys()}
    assert {e["key_id"] for e in found} < keys
    assert found[0]["key_id"] != found[1]["key_id"]
    assert found[5]["request_id"] == taken.headers["x-pinecone-request-id"]


async def test_only_admins_read_it_and_only_of_their_project(gateway: Running) -> None:
    await gateway.create("movies")
    for key in (READ_ONLY_KEY, READ_WRITE_KEY):
        assert (await gateway.ask("GET", "/firndb/audit", key=key)).status_code == 403
    assert await entries(gateway, OTHER_KEY) == []
    assert len(await entries(gateway)) == 1


async def test_it_comes_in_pages_and_a_wrong_question_is_refused(gateway: Running) -> None:
    for name in "abc":
        await gateway.create(name)
    answer = (await gateway.ask("GET", "/firndb/audit?limit=2")).json()
    rest = await entries(gateway, limit=2, before=answer["next"])
    names = [e["resource"] for e in (*answer["entries"], *rest)]
    assert names == ["index/c", "index/b", "index/a"]
    assert await entries(gateway, since=answer["entries"][0]["time"]) == answer["entries"][:1]
    for query in ("limit=0", "limit=1001", "limit=x", "before=-1", "since=yesterday"):
        assert (await gateway.ask("GET", f"/firndb/audit?{query}")).status_code == 400


async def test_of_a_flood_of_refusals_only_some_a_second_are_written_down(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would push out what was done, and a client could make the database write at will."""
    await gateway.create("movies")
    monkeypatch.setattr(SystemClock, "monotonic", lambda _: 1e9)
    for _ in range(3 * REFUSALS_A_SECOND):
        await gateway.ask("DELETE", "/indexes/movies", key=READ_ONLY_KEY)
    outcomes = [entry["outcome"] for entry in await entries(gateway)]
    assert outcomes == ["refused: FORBIDDEN"] * REFUSALS_A_SECOND + ["done"]


async def test_a_change_that_was_made_keeps_its_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database goes away once the index is made: its entry stays `begun`."""
    async with running_gateway(tmp_path) as gateway:
        end = AuditLog.end

        async def end_without_database(log: AuditLog, *arguments: object) -> None:
            async def away(*_: object) -> None:
                raise Unavailable("away")

            with monkeypatch.context() as patched:
                patched.setattr(Database, "write", away)
                await end(log, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(AuditLog, "end", end_without_database)
        await gateway.create("movies")
        (entry,) = await entries(gateway)
        assert (entry["resource"], entry["outcome"]) == ("index", "begun")
