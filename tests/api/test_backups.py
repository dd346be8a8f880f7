"""Backups, restore jobs, collections and schedules over HTTP: shapes, pages, refusals. What the
jobs do is not seen here: the catalog is told that they are done.
"""

from typing import Any

import pytest

from infra.catalog.backup_model import Backup, BackupCounts
from infra.catalog.backups import Backups
from infra.catalog.restores import Restores
from tests.api.gateway import (
    CLASSIC,
    NEWEST,
    OTHER_KEY,
    READ_ONLY_KEY,
    READ_WRITE_KEY,
    SERVERLESS,
    Running,
)
from tests.api.test_control_plane import error_code

POD = {"pod": {"environment": "us-east-1-aws", "pod_type": "p1.x1"}}
NIGHTLY = {
    "name": "nightly",
    "schedule": {"type": "time-based", "frequency": "daily"},
    "retention": {"expire_after_days": 7},
}
COUNTS = BackupCounts(records=5, namespaces=2, size_bytes=1234)


async def ask(gateway: Running, method: str, path: str, **options: Any) -> Any:
    """The body of an answer that is no refusal."""
    options.setdefault("headers", CLASSIC)
    answer = await gateway.ask(method, path, **options)
    assert answer.is_success, answer.text
    return answer.json() if answer.content else None


async def refusal(gateway: Running, method: str, path: str, **options: Any) -> tuple[int, str]:
    return error_code(await gateway.ask(method, path, **options))


def backups_of(gateway: Running) -> Backups:
    return Backups(gateway.catalog.database, gateway.catalog.quotas)


async def back_up(gateway: Running, index: str = "movies", **body: Any) -> Backup:
    made = await ask(gateway, "POST", f"/indexes/{index}/backups", json=body)
    await backups_of(gateway).ready(made["backup_id"], COUNTS)
    project = (await gateway.catalog.ensure_project()).project_id
    return await backups_of(gateway).get(project, made["backup_id"])


async def test_a_backup_in_both_shapes(gateway: Running) -> None:
    await gateway.create(tags={"team": "ice"})
    made = await ask(
        gateway, "POST", "/indexes/movies/backups", json={"name": "mine", "description": "why"}
    )
    assert made["status"] == "Initializing"
    assert (made["cloud"], made["region"]) == ("aws", "us-east-1")
    assert (made["dimension"], made["metric"], made["tags"]) == (3, "cosine", {"team": "ice"})
    assert (made["name"], made["description"], made["record_count"]) == ("mine", "why", None)
    path = f"/backups/{made['backup_id']}"
    await backups_of(gateway).ready(made["backup_id"], COUNTS)
    classic = await ask(gateway, "GET", path)
    assert (classic["status"], classic["record_count"]) == ("Ready", 5)
    assert (classic["namespace_count"], classic["size_bytes"]) == (2, 1234)
    typed = await ask(gateway, "GET", path, headers=NEWEST)
    field = {"type": "dense_vector", "dimension": 3, "metric": "cosine"}
    assert typed["schema"] == {"fields": {"_values": field}}
    assert "dimension" not in typed
    nameless = await ask(gateway, "POST", "/indexes/movies/backups", content=b"")
    assert (nameless["name"], nameless["description"]) == (None, None)
    assert (await gateway.ask("DELETE", path)).status_code == 202
    assert (await ask(gateway, "GET", path))["status"] == "Terminating"


async def test_backups_of_a_deleted_index_are_found_when_asked_for(gateway: Running) -> None:
    await gateway.create()
    old = await back_up(gateway)
    await ask(gateway, "DELETE", "/indexes/movies")
    path = "/indexes/movies/backups"
    assert await refusal(gateway, "GET", path) == (404, "NOT_FOUND")
    asked = {"include_deleted": "true"}
    (found,) = (await ask(gateway, "GET", path, params=asked))["data"]
    assert (found["backup_id"], found["source_index_name"]) == (old.backup_id, "movies")
    assert found["source_index_deleted_at"] is not None
    await gateway.create()
    assert (await ask(gateway, "GET", path))["data"] == []
    assert len((await ask(gateway, "GET", "/backups"))["data"]) == 1


async def test_lists_come_in_pages(gateway: Running) -> None:
    await gateway.create()
    made = {(await back_up(gateway, name=f"b{number}")).backup_id for number in range(5)}
    for path in ("/backups", "/indexes/movies/backups"):
        seen: list[str] = []
        asked: dict[str, Any] = {"limit": 2}
        while True:
            page = await ask(gateway, "GET", path, params=asked)
            assert len(page["data"]) <= 2
            seen += [one["backup_id"] for one in page["data"]]
            if "pagination" not in page:
                break
            asked = {"limit": 2, "paginationToken": page["pagination"]["next"]}
        assert len(seen) == len(made)
        assert set(seen) == made
    assert len((await ask(gateway, "GET", "/backups", params={"limit": 5000}))["data"]) == 5
    for wrong in ({"limit": "0"}, {"limit": "x"}, {"limit": "-1"}, {"limit": "1" * 30}):
        assert await refusal(gateway, "GET", "/backups", params=wrong) == (
            *(400, "INVALID_ARGUMENT"),
        )
    for token in ("x", "%00", "bm8=", "MTox/w==", "OTk5OTk5OTk5OTk5OTk5OTk5OTk6YQ=="):
        asked = {"paginationToken": token}
        for path in ("/backups", "/restore-jobs", "/indexes/movies/backup-schedules"):
            assert await refusal(gateway, "GET", path, params=asked) == (400, "INVALID_ARGUMENT")


async def test_an_index_from_a_backup_serves_when_it_is_filled(gateway: Running) -> None:
    await gateway.create(tags={"team": "ice"}, metric="dotproduct")
    backup = await back_up(gateway)
    path = f"/backups/{backup.backup_id}/create-index"
    body = {"name": "again", "deletion_protection": "enabled"}
    answer = await gateway.ask("POST", path, json=body, headers=CLASSIC)
    assert answer.status_code == 202
    job_id, index_id = answer.json()["restore_job_id"], answer.json()["index_id"]
    index = await ask(gateway, "GET", "/indexes/again")
    assert index["status"] == {"ready": False, "state": "Initializing"}
    assert (index["dimension"], index["metric"]) == (3, "dotproduct")
    assert (index["tags"], index["deletion_protection"]) == ({"team": "ice"}, "enabled")
    assert index["spec"] == SERVERLESS
    waits = await gateway.ask("POST", "/describe_index_stats", json={}, host=index["host"])
    assert waits.status_code == 503
    assert waits.headers["retry-after"]
    assert "Initializing" in waits.json()["message"]
    assert await refusal(gateway, "POST", "/indexes/again/backups", json={}) == (
        *(412, "FAILED_PRECONDITION"),
    )
    deleting = await refusal(gateway, "DELETE", f"/backups/{backup.backup_id}")
    assert deleting == (412, "FAILED_PRECONDITION"), "while it is read"
    job = await ask(gateway, "GET", f"/restore-jobs/{job_id}")
    assert (job["status"], job["percent_complete"]) == ("Pending", 0)
    assert (job["backup_id"], job["target_index_id"]) == (backup.backup_id, index_id)
    restores = Restores(gateway.catalog.database)
    await restores.progress(job_id, 1, 1, 2)
    assert (await ask(gateway, "GET", f"/restore-jobs/{job_id}"))["percent_complete"] == 50
    await restores.complete(job_id)
    stats = await gateway.ask("POST", "/describe_index_stats", json={}, host=index["host"])
    assert stats.status_code == 200, "the first request after it is Ready"
    (job,) = (await ask(gateway, "GET", "/restore-jobs"))["data"]
    assert (job["status"], job["percent_complete"]) == ("Completed", 100)
    typed = await ask(gateway, "GET", "/indexes/again", headers=NEWEST)
    assert typed["source_backup_id"] == backup.backup_id
    assert typed["status"] == {"ready": True, "state": "Ready"}
    taken = await refusal(gateway, "POST", path, json={"name": "movies"})
    assert taken == (409, "ALREADY_EXISTS")
    own = await gateway.ask("POST", path, json={"name": "third", "tags": {"a": "b"}})
    assert own.status_code == 202
    third = await ask(gateway, "GET", "/indexes/third")
    assert third["tags"] == {"a": "b"}


async def test_an_index_that_could_not_be_filled_says_so(gateway: Running) -> None:
    await gateway.create()
    backup = await back_up(gateway)
    path = f"/backups/{backup.backup_id}/create-index"
    job_id = (await ask(gateway, "POST", path, json={"name": "again"}))["restore_job_id"]
    await Restores(gateway.catalog.database).fail(job_id, "a part of 'ü'\nis gone")
    job = await gateway.ask("GET", f"/restore-jobs/{job_id}")
    assert job.headers["x-firndb-error"] == "a part of '\\xfc' is gone"
    index = await ask(gateway, "GET", "/indexes/again")
    assert index["status"] == {"ready": False, "state": "InitializationFailed"}
    told = await gateway.ask("POST", "/describe_index_stats", json={}, host=index["host"])
    assert told.status_code == 412, "repeating does not help"
    assert (await ask(gateway, "GET", f"/restore-jobs/{job_id}"))["status"] == "Failed"
    assert (await gateway.ask("DELETE", "/indexes/again")).status_code == 202


async def test_a_failed_backup_says_why(gateway: Running) -> None:
    await gateway.create()
    made = await ask(gateway, "POST", "/indexes/movies/backups", json={})
    await backups_of(gateway).failed(made["backup_id"], "the disk is full")
    answer = await gateway.ask("GET", f"/backups/{made['backup_id']}")
    assert answer.json()["status"] == "InitializationFailed"
    assert answer.headers["x-firndb-error"] == "the disk is full"


async def test_a_collection_and_an_index_from_it(gateway: Running) -> None:
    await gateway.create("pods", spec=POD)
    made = await gateway.ask("POST", "/collections", json={"name": "frozen", "source": "pods"})
    assert made.status_code == 201
    assert made.json() == {
        "name": "frozen",
        "status": "Initializing",
        "environment": "us-east-1-aws",
    }
    again = {"name": "frozen", "source": "pods"}
    assert await refusal(gateway, "POST", "/collections", json=again) == (409, "ALREADY_EXISTS")
    project = (await gateway.catalog.ensure_project()).project_id
    spec = {"pod": {**POD["pod"], "source_collection": "frozen"}}
    body = {"name": "thawed", "dimension": 3, "metric": "cosine", "spec": spec}
    early = await refusal(gateway, "POST", "/indexes", json=body, headers=CLASSIC)
    assert early == (412, "FAILED_PRECONDITION")
    stores = backups_of(gateway)
    await stores.ready((await stores.collection(project, "frozen")).backup_id, COUNTS)
    (shown,) = (await ask(gateway, "GET", "/collections"))["collections"]
    assert shown == await ask(gateway, "GET", "/collections/frozen")
    assert (shown["status"], shown["size"], shown["dimension"]) == ("Ready", 1234, 3)
    assert shown["vector_count"] == 5
    for wrong in ({"dimension": 4}, {"metric": "dotproduct"}):
        refused = await refusal(
            gateway, "POST", "/indexes", json={**body, **wrong}, headers=CLASSIC
        )
        assert refused == (400, "INVALID_ARGUMENT")
    other = {**spec["pod"], "source_collection": "nothing"}
    missing = {**body, "spec": {"pod": other}}
    assert (await gateway.ask("POST", "/indexes", json=missing, headers=CLASSIC)).status_code == 404
    thawed = await ask(gateway, "POST", "/indexes", json=body)
    assert thawed["status"]["state"] == "Initializing"
    assert thawed["spec"]["pod"]["source_collection"] == "frozen"
    serverless = {"serverless": {**SERVERLESS["serverless"], "source_collection": "frozen"}}
    moved = await ask(gateway, "POST", "/indexes", json={**body, "name": "m", "spec": serverless})
    assert moved["spec"]["serverless"]["source_collection"] == "frozen"
    assert await refusal(gateway, "DELETE", "/collections/frozen") == (412, "FAILED_PRECONDITION")
    assert (await ask(gateway, "GET", "/backups"))["data"] == [], "it is no backup"
    for job in (await ask(gateway, "GET", "/restore-jobs"))["data"]:
        await Restores(gateway.catalog.database).complete(job["restore_job_id"])
    assert (await gateway.ask("DELETE", "/collections/frozen")).status_code == 202
    assert (await ask(gateway, "GET", "/collections/frozen"))["status"] == "Terminating"


async def test_pods_have_collections_and_the_others_backups(gateway: Running) -> None:
    await gateway.create("pods", spec=POD)
    await gateway.create("films")
    wrong = (400, "INVALID_ARGUMENT")
    assert await refusal(gateway, "POST", "/indexes/pods/backups", json={}) == wrong
    path = "/indexes/pods/backup-schedules"
    assert await refusal(gateway, "POST", path, json=NIGHTLY) == wrong
    body = {"name": "frozen", "source": "films"}
    assert await refusal(gateway, "POST", "/collections", json=body) == wrong


async def test_what_a_newer_client_cannot_ask_is_refused(gateway: Running) -> None:
    fields = {"_values": {"type": "dense_vector", "dimension": 3, "metric": "cosine"}}
    for source in ("source_collection", "source_backup_id"):
        body = {"name": "x", "schema": {"fields": fields}, source: "frozen"}
        answer = await gateway.ask("POST", "/indexes", json=body, headers=NEWEST)
        assert answer.status_code == 400
        assert "collection or backup" in answer.text


async def test_the_life_of_a_schedule(gateway: Running) -> None:
    await gateway.create()
    path = "/indexes/movies/backup-schedules"
    made = await ask(gateway, "POST", path, json=NIGHTLY)
    assert made["next_scheduled_run"] > made["created_at"]
    assert (made["frequency"], made["enabled"]) == ("daily", True)
    assert (made["schedule_type"], made["retention_expire_after_days"]) == ("time-based", 7)
    one = f"/backup-schedules/{made['schedule_id']}"
    assert await ask(gateway, "GET", one) == made
    assert (await ask(gateway, "GET", path))["data"] == [made]
    assert await refusal(gateway, "POST", path, json=NIGHTLY) == (409, "ALREADY_EXISTS")
    change = {"frequency": "weekly", "retention": {"expire_after_days": 30}, "enabled": False}
    changed = await ask(gateway, "PATCH", one, json=change)
    assert (changed["frequency"], changed["enabled"]) == ("weekly", False)
    assert changed["retention_expire_after_days"] == 30
    assert changed["next_scheduled_run"] is None
    assert await ask(gateway, "PATCH", one, json={}) == changed
    assert await ask(gateway, "GET", f"{one}/history") == {"data": []}
    assert (await gateway.ask("DELETE", one)).status_code == 202
    assert await refusal(gateway, "DELETE", one) == (404, "NOT_FOUND")
    assert await refusal(gateway, "GET", f"{one}/history") == (404, "NOT_FOUND")


async def test_an_index_has_only_so_many_schedules(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.catalog.schedules.SCHEDULES_MAX", 2)
    await gateway.create()
    path = "/indexes/movies/backup-schedules"
    for _ in range(2):
        made = await ask(gateway, "POST", path, json=NIGHTLY)
        one = f"/backup-schedules/{made['schedule_id']}"
        await ask(gateway, "PATCH", one, json={"enabled": False})
    assert await refusal(gateway, "POST", path, json=NIGHTLY) == (412, "FAILED_PRECONDITION")


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"schedule": {"type": "time-based", "frequency": "hourly"}}, 422),
        ({"schedule": {"type": "cron", "frequency": "daily"}}, 422),
        ({"retention": {"expire_after_days": 0}}, 400),
        ({"retention": {"expire_after_days": 3651}}, 400),
        ({"retention": {}}, 422),
        ({"name": ""}, 400),
        ({"name": "x" * 129}, 400),
        ({"name": "\x00"}, 400),
    ],
)
async def test_wrong_schedules(gateway: Running, change: dict[str, Any], status: int) -> None:
    await gateway.create()
    path = "/indexes/movies/backup-schedules"
    answer = await gateway.ask("POST", path, json={**NIGHTLY, **change})
    assert answer.status_code == status, answer.text
    assert (await gateway.ask("POST", path, json={**NIGHTLY, "name": "x" * 128})).is_success


async def test_names_and_descriptions_are_bounded(gateway: Running) -> None:
    await gateway.create()
    path = "/indexes/movies/backups"
    for body in ({"name": "x" * 129}, {"description": "x" * 1025}, {"name": "a\x00b"}):
        assert await refusal(gateway, "POST", path, json=body) == (400, "INVALID_ARGUMENT")
    longest = {"name": "ü" * 128, "description": "line\nline" + "x" * 1015}
    shown = await ask(gateway, "POST", path, json=longest)
    assert (shown["name"], shown["description"]) == (longest["name"], longest["description"])
    for body in ({"name": "Up", "source": "movies"}, {"name": "x" * 46, "source": "movies"}):
        assert (await gateway.ask("POST", "/collections", json=body)).status_code == 400


async def test_nothing_is_told_of_another_projects(gateway: Running) -> None:
    """The same answer as for what never was."""
    await gateway.create()
    await gateway.create("pods", spec=POD)
    backup = await back_up(gateway)
    await ask(gateway, "POST", "/collections", json={"name": "frozen", "source": "pods"})
    schedule = await ask(gateway, "POST", "/indexes/movies/backup-schedules", json=NIGHTLY)
    created = await ask(
        gateway, "POST", f"/backups/{backup.backup_id}/create-index", json={"name": "again"}
    )
    unknown = "0" * 32
    kinds: list[tuple[str, str, str, dict[str, Any] | None]] = [
        ("GET", "/backups/{}", backup.backup_id, None),
        ("DELETE", "/backups/{}", backup.backup_id, None),
        ("POST", "/backups/{}/create-index", backup.backup_id, {"name": "mine"}),
        ("GET", "/restore-jobs/{}", created["restore_job_id"], None),
        ("GET", "/collections/{}", "frozen", None),
        ("DELETE", "/collections/{}", "frozen", None),
        ("GET", "/backup-schedules/{}", schedule["schedule_id"], None),
        ("PATCH", "/backup-schedules/{}", schedule["schedule_id"], {"enabled": False}),
        ("DELETE", "/backup-schedules/{}", schedule["schedule_id"], None),
        ("GET", "/backup-schedules/{}/history", schedule["schedule_id"], None),
        ("POST", "/indexes/{}/backups", "movies", {}),
        ("GET", "/indexes/{}/backups", "movies", None),
        ("POST", "/indexes/{}/backup-schedules", "movies", NIGHTLY),
        ("GET", "/indexes/{}/backup-schedules", "movies", None),
    ]
    for method, path, theirs, body in kinds:
        for called in (theirs, unknown, "x" * 400, "%00", "nonexistent-id-xyz"):
            refused = await gateway.ask(
                method, path.format(called), json=body, key=OTHER_KEY, headers=CLASSIC
            )
            assert error_code(refused) == (404, "NOT_FOUND"), (method, path, called)
            if called in (theirs, unknown, "nonexistent-id-xyz"):
                message = refused.json()["error"]["message"]
                assert message == f"Resource {called} not found", (method, path)
        changing = method != "GET"
        answer = await gateway.ask(method, path.format(theirs), json=body, key=READ_ONLY_KEY)
        assert answer.status_code == (403 if changing else 200), (method, path)
        answer = await gateway.ask(method, path.format(theirs), json=body, key=READ_WRITE_KEY)
        assert answer.status_code == (403 if changing else 200), (method, path)
    source = {"name": "mine", "source": "pods"}
    refused = await gateway.ask("POST", "/collections", json=source, key=OTHER_KEY)
    assert refused.status_code == 404
    for path, items in (
        ("/backups", "data"),
        ("/restore-jobs", "data"),
        ("/collections", "collections"),
    ):
        listed = await gateway.ask("GET", path, key=OTHER_KEY)
        assert listed.json()[items] == []
