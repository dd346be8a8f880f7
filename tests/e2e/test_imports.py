"""An import that is killed in the middle, on both deployments.

At stake: after `kill -9` somebody goes on where it stopped; every record is there once, and before
the import is completed nothing of it can be seen.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest

from infra.objects.open import open_store
from infra.services.service import Service
from tests.e2e import parquet_files
from tests.e2e.deployments import Deployment, distributed, embedded, fresh_settings
from tests.e2e.processes import KEY

Put = Callable[[Mapping[str, Path]], str]
FILES = 5


def make_files(folder: Path, records: int) -> dict[str, Path]:
    """`big` in several files, with every 100th record a second time in the last one; and a small
    default namespace.
    """
    made: dict[str, Path] = {}
    part = records // FILES
    for number in range(FILES):
        made[f"big/{number}.parquet"] = folder / f"big-{number}.parquet"
        parquet_files.write(
            folder / f"big-{number}.parquet", parquet_files.table(number * part, part)
        )
    again = pq.read_table(folder / "big-0.parquet").slice(0, part).take(list(range(0, part, 100)))
    made["big/9.parquet"] = folder / "again.parquet"
    parquet_files.write(folder / "again.parquet", again)
    made["__default__/a.parquet"] = folder / "small.parquet"
    parquet_files.write(folder / "small.parquet", parquet_files.table(0, 10))
    return made


def local(folder: Path) -> tuple[dict[str, str], Put]:
    root = folder / "in"

    def put(files: Mapping[str, Path]) -> str:
        for name, path in files.items():
            (root / "set" / name).parent.mkdir(parents=True, exist_ok=True)
            path.rename(root / "set" / name)
        return f"file://{root}/set/"

    return {"FIRNDB_IMPORT_LOCATIONS": f"file://{root}/"}, put


def in_s3(settings: Mapping[str, str], mark: str) -> tuple[dict[str, str], Put]:
    bucket = settings["FIRNDB_OBJECT_STORE"].split("/")[2]
    root = f"s3://{bucket}/imports-{mark}"

    async def upload(files: Mapping[str, Path]) -> None:
        store = open_store(
            f"{root}/set",
            s3_endpoint=settings["FIRNDB_S3_ENDPOINT"],
            s3_access_key=settings["FIRNDB_S3_ACCESS_KEY"],
            s3_secret_key=settings["FIRNDB_S3_SECRET_KEY"],
        )
        for name, path in files.items():
            await store.put(name, await asyncio.to_thread(path.read_bytes))
        await store.close()

    def put(files: Mapping[str, Path]) -> str:
        asyncio.run(upload(files))
        return f"{root}/set/"

    return {"FIRNDB_IMPORT_LOCATIONS": f"{root}/"}, put


def state_of(client: httpx.Client, import_id: str) -> dict[str, Any]:
    shown: dict[str, Any] = client.get(f"/bulk/imports/{import_id}").raise_for_status().json()
    return shown


def until(client: httpx.Client, import_id: str, reached: Callable[[dict[str, Any]], bool]) -> Any:
    for _ in range(6000):
        shown = state_of(client, import_id)
        if reached(shown):
            return shown
        time.sleep(0.02)
    raise AssertionError(f"the import does not move: {shown}")


def is_beyond(records: int, shown: dict[str, Any]) -> bool:
    return bool(shown["recordsImported"] > records)


def counts_of(client: httpx.Client) -> dict[str, int]:
    found = client.get("/describe_index_stats").raise_for_status().json()["namespaces"]
    return {name: namespace["vectorCount"] for name, namespace in found.items()}


def look(client: httpx.Client, records: int) -> None:
    """A sample is what it should be, and every id is listed once."""
    for number in range(0, records, max(1, records // 50)):
        asked = {"ids": f"r{number}", "namespace": "big"}
        found = client.get("/vectors/fetch", params=asked).json()["vectors"][f"r{number}"]
        wanted = parquet_files.vectors(number, 1)[0]
        np.testing.assert_array_equal(np.array(found["values"], np.float32), wanted)
        assert found["metadata"] == parquet_files.metadata(number)
    ids: list[str] = []
    token: str | None = ""
    while token is not None:
        given = {"namespace": "big", "limit": "100", "paginationToken": token}
        page = client.get("/vectors/list", params=given).raise_for_status().json()
        ids += [vector["id"] for vector in page["vectors"]]
        token = page.get("pagination", {}).get("next")
    assert len(ids) == len(set(ids)) == records


def import_with_kills(
    deployment: Deployment, put: Put, files: dict[str, Path], records: int, kills: int
) -> None:
    host = deployment.create_index("imported", parquet_files.DIMENSION)
    headers = {"Api-Key": KEY}
    with httpx.Client(base_url=host, headers=headers, timeout=60) as client:
        started = client.post("/bulk/imports", json={"uri": put(files)}).raise_for_status()
        import_id = started.json()["id"]
        seen = 0
        for _ in range(kills):
            shown = until(client, import_id, partial(is_beyond, seen))
            assert shown["status"] == "InProgress", "it was done before it could be killed"
            assert counts_of(client) == {}, "nothing is there before all of it is"
            seen = shown["recordsImported"]
            deployment.process.kill()
            deployment.restart()
        done = ("Completed", "Failed", "Cancelled")
        ended = until(client, import_id, lambda now: now["status"] in done)
        assert ended["status"] == "Completed", ended
        assert ended["recordsImported"] == records + 10
        assert counts_of(client) == {"big": records, "__default__": 10}
        look(client, records)


SIZES = [(5_000, 1), pytest.param(100_000, 3, marks=pytest.mark.long)]


def settings_for(records: int) -> dict[str, str]:
    """Flushes are small, so that there is a middle."""
    return {"FIRNDB_FLUSH_RECORDS": str(records // 10), "FIRNDB_CLUSTER_BYTES": "65536"}


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("records", "kills"), SIZES)
def test_embedded_from_a_folder(
    tmp_path: Path, records: int, kills: int, record_property: Callable[[str, object], None]
) -> None:
    files = make_files(tmp_path, records)
    settings, put = local(tmp_path)
    with embedded(tmp_path, {**settings, **settings_for(records)}) as deployment:
        import_with_kills(deployment, put, files, records, kills)
    record_property("records", records)
    record_property("kills", kills)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("records", "kills"), SIZES)
def test_distributed_from_s3(
    tmp_path: Path,
    kafka_service: Service,
    s3_service: Service,
    postgres_service: Service,
    records: int,
    kills: int,
    record_property: Callable[[str, object], None],
) -> None:
    files = make_files(tmp_path, records)
    services = fresh_settings(kafka_service, s3_service, postgres_service)
    settings, put = in_s3(services, tmp_path.name)
    made: AbstractContextManager[Deployment] = distributed(
        tmp_path, {**services, **settings, **settings_for(records)}
    )
    with made as deployment:
        import_with_kills(deployment, put, files, records, kills)
    record_property("records", records)
    record_property("kills", kills)
