"""A project has only so many of each thing; the refusal names the setting that says how many."""

from pathlib import Path

from tests.api.gateway import OTHER_KEY, SERVERLESS, running_gateway

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
