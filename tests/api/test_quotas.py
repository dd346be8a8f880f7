"""A project has only so many of each thing; the refusal names the setting that says how many."""

from pathlib import Path

from infra.catalog.backup_model import BackupCounts
from infra.catalog.backups import Backups
from tests.api.gateway import OTHER_KEY, SERVERLESS, Running, running_gateway

NEXT = {"name": "next", "dimension": 3, "spec": SERVERLESS}


async def test_a_project_has_only_so_many_indexes(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, max_indexes=2) as gateway:
        for name in ("a", "b"):
            await gateway.create(name)
        refused = await gateway.ask("POST", "/indexes", json=NEXT)
        assert refused.status_code == 403
        assert refused.json()["error"] == {
            "code": "QUOTA_EXCEEDED",
            "message": "You've reached the max indexes allowed in project default (2). Delete "
            "what is not needed any more, or raise FIRNDB_MAX_INDEXES.",
        }
        assert (await gateway.ask("POST", "/indexes", json=NEXT, key=OTHER_KEY)).status_code == 201
        await gateway.ask("DELETE", "/indexes/a")
        assert (await gateway.ask("POST", "/indexes", json=NEXT)).status_code == 201


async def refusal(gateway: Running, path: str, **body: object) -> str:
    answer = await gateway.ask("POST", path, json=body)
    assert answer.status_code == 403, answer.text
    assert answer.json()["error"]["code"] == "QUOTA_EXCEEDED"
    message: str = answer.json()["error"]["message"]
    return message


async def test_a_project_has_only_so_many_backups(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, max_backups=1) as gateway:
        await gateway.create("movies")
        path = "/indexes/movies/backups"
        assert (await gateway.ask("POST", path, json={})).status_code == 201
        assert "max backups allowed in project default (1)" in await refusal(gateway, path)


async def test_a_project_has_only_so_many_collections(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, max_collections=1) as gateway:
        await gateway.create("pods", spec={"pod": {"environment": "e", "pod_type": "p1.x1"}})
        body = {"name": "a", "source": "pods"}
        assert (await gateway.ask("POST", "/collections", json=body)).status_code == 201
        told = await refusal(gateway, "/collections", name="b", source="pods")
        assert "max collections allowed in project default (1)" in told


async def test_a_restored_index_counts_as_any_other(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, max_indexes=1) as gateway:
        await gateway.create("movies")
        made = (await gateway.ask("POST", "/indexes/movies/backups", json={})).json()
        backups = Backups(gateway.catalog.database, gateway.catalog.quotas)
        await backups.ready(made["backup_id"], BackupCounts(0, 0, 0))
        path = f"/backups/{made['backup_id']}/create-index"
        assert "max indexes" in await refusal(gateway, path, name="again")
        await gateway.ask("DELETE", "/indexes/movies")
        assert (await gateway.ask("POST", path, json={"name": "again"})).status_code == 202
