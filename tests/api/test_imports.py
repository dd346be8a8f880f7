"""The routes of bulk imports and exports; what they lead to is in `tests/builder/test_importing.py`
and `tests/cli/test_export.py`.
"""

from pathlib import Path

import pytest

from core.limits import IMPORT_ID_CHARS_MAX, IMPORT_URI_CHARS_MAX, IMPORTS_UNFINISHED_MAX
from infra.catalog.imports import ImportState, ImportStore, Progress
from tests.api.gateway import OTHER_KEY, READ_ONLY_KEY, READ_WRITE_KEY, running_gateway

LOCATIONS = "s3://bucket/in/"


async def test_an_import_is_asked_for_shown_listed_and_cancelled(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, import_locations=LOCATIONS) as gateway:
        host = (await gateway.create())["host"]
        started = await gateway.ask(
            "POST",
            "/bulk/imports",
            host=host,
            key=READ_WRITE_KEY,
            json={"uri": "s3://bucket/in/set/", "errorMode": {"onError": "abort"}},
        )
        assert started.status_code == 200, started.text
        path = f"/bulk/imports/{started.json()['id']}"
        shown = (await gateway.ask("GET", path, host=host, key=READ_ONLY_KEY)).json()
        assert shown["status"] == "Pending"
        assert shown["uri"] == "s3://bucket/in/set/"
        assert shown["percentComplete"] == 0.0
        listed = (await gateway.ask("GET", "/bulk/imports", host=host)).json()
        assert listed == {"data": [shown]}
        cancelled = await gateway.ask("DELETE", path, host=host)
        assert (cancelled.status_code, cancelled.json()) == (200, {})
        again = (await gateway.ask("GET", path, host=host)).json()
        assert again["status"] == "Cancelled"
        assert again["finishedAt"] >= again["createdAt"]
        assert (await gateway.ask("DELETE", path, host=host)).status_code == 200


async def test_how_it_ended_is_shown(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, import_locations=LOCATIONS) as gateway:
        made = await gateway.create()
        body = {"uri": "s3://bucket/in/set/"}
        started = await gateway.ask("POST", "/bulk/imports", host=made["host"], json=body)
        import_id = started.json()["id"]
        store = ImportStore(gateway.catalog.database)
        progress = Progress(100, 50, 10, 2, ("a.parquet, row 3: wrong",))
        await store.finish(import_id, ImportState.FAILED, progress, "it is not Parquet")
        path = f"/bulk/imports/{import_id}"
        shown = (await gateway.ask("GET", path, host=made["host"])).json()
        assert shown["status"] == "Failed"
        assert shown["error"] == "it is not Parquet"
        assert (shown["percentComplete"], shown["recordsImported"]) == (49.5, 10)
        assert shown["firndb"] == {"rowsSkipped": 2, "reasons": ["a.parquet, row 3: wrong"]}


async def test_the_list_has_pages(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, import_locations=LOCATIONS) as gateway:
        host = (await gateway.create())["host"]
        made = [
            (
                await gateway.ask(
                    "POST", "/bulk/imports", host=host, json={"uri": "s3://bucket/in/x"}
                )
            ).json()["id"]
            for _ in range(3)
        ]
        seen: list[str] = []
        token: str | None = ""
        while token is not None:
            given = {"limit": "2", "paginationToken": token}
            page = (await gateway.ask("GET", "/bulk/imports", host=host, params=given)).json()
            seen += [one["id"] for one in page["data"]]
            token = page.get("pagination", {}).get("next")
        assert sorted(seen) == sorted(made)
        bad = await gateway.ask("GET", "/bulk/imports", host=host, params={"paginationToken": "eA"})
        assert bad.status_code == 400


async def test_an_index_has_so_many_unfinished_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert IMPORTS_UNFINISHED_MAX == 100
    monkeypatch.setattr("infra.catalog.imports.IMPORTS_UNFINISHED_MAX", 1)
    async with running_gateway(tmp_path, import_locations=LOCATIONS) as gateway:
        host = (await gateway.create())["host"]
        body = {"uri": "s3://bucket/in/x"}
        statuses = [
            (await gateway.ask("POST", "/bulk/imports", host=host, json=body)).status_code
            for _ in range(2)
        ]
        assert statuses == [200, 412]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "uri"),
        ({"uri": ""}, "cannot be imported from"),
        ({"uri": 5}, "uri"),
        ({"uri": "s3://bucket/in/" + "x" * IMPORT_URI_CHARS_MAX}, "1500 characters at most"),
        ({"uri": "s3://bucket/other/"}, "FIRNDB_IMPORT_LOCATIONS"),
        ({"uri": "file:///etc/"}, "FIRNDB_IMPORT_LOCATIONS"),
        ({"uri": "https://bucket.example/in/"}, "cannot be imported from"),
        ({"uri": "s3://bucket/in/", "errorMode": {"onError": "skip"}}, "onError"),
        ({"uri": "s3://bucket/in/", "integrationId": "x"}, "FIRNDB_IMPORT_INTEGRATIONS"),
    ],
)
async def test_what_cannot_be_imported_is_refused(
    tmp_path: Path, body: dict[str, object], text: str
) -> None:
    async with running_gateway(tmp_path, import_locations=LOCATIONS) as gateway:
        host = (await gateway.create())["host"]
        refused = await gateway.ask("POST", "/bulk/imports", host=host, json=body)
        assert refused.status_code == 400
        assert text in refused.json()["message"]
        assert (await gateway.ask("GET", "/bulk/imports", host=host)).json() == {"data": []}


async def test_who_may_and_who_may_not(tmp_path: Path) -> None:
    """Another index's import, or another project's, is simply not there."""
    async with running_gateway(tmp_path, import_locations=LOCATIONS) as gateway:
        host = (await gateway.create())["host"]
        other = (await gateway.create("other"))["host"]
        body = {"uri": "s3://bucket/in/x"}
        refused = await gateway.ask(
            "POST", "/bulk/imports", host=host, key=READ_ONLY_KEY, json=body
        )
        assert refused.status_code == 403
        made = await gateway.ask("POST", "/bulk/imports", host=host, json=body)
        path = f"/bulk/imports/{made.json()['id']}"
        assert (await gateway.ask("DELETE", path, host=host, key=READ_ONLY_KEY)).status_code == 403
        for method in ("GET", "DELETE"):
            assert (await gateway.ask(method, path, host=other)).status_code == 404
            assert (await gateway.ask(method, path, host=host, key=OTHER_KEY)).status_code == 404
            assert (await gateway.ask(method, path, host=host, key="no")).status_code == 401
        assert (await gateway.ask("GET", path, host=host)).json()["status"] == "Pending"
        long = "x" * (IMPORT_ID_CHARS_MAX + 1)
        assert (await gateway.ask("GET", f"/bulk/imports/{long}", host=host)).status_code == 400


async def test_an_export_is_streamed_to_whoever_may_read(tmp_path: Path) -> None:
    async with running_gateway(tmp_path) as gateway:
        host = (await gateway.create())["host"]
        vectors = [{"id": name, "values": [1, 2, 3]} for name in ("a", "b")]
        body = {"vectors": vectors, "namespace": "x"}
        await gateway.ask("POST", "/vectors/upsert", host=host, json=body)
        path = "/firndb/export?namespace=x"
        found = await gateway.ask("GET", path, host=host, key=READ_ONLY_KEY)
        assert (found.status_code, found.content) == (200, b"a\nb\n")
        assert found.headers["x-firndb-lsn"] == "0"
        assert found.headers["x-firndb-records"] == "2"
        for key, status in ((OTHER_KEY, 404), ("no", 401)):
            refused = await gateway.ask("GET", path, host=host, key=key)
            assert refused.status_code == status
        absent = await gateway.ask("GET", "/firndb/export?namespace=y", host=host)
        assert (absent.status_code, absent.json()["code"]) == (404, 5)
