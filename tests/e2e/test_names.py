"""Names that mean something to paths, URLs, shells and databases mean nothing here.

At stake: a namespace that is called `..` and reads, lists or deletes another one's data, or writes
outside of the object store. Every name goes all the way: created and written by one protocol, read
and deleted by the other, on a folder and on an S3 server.
"""

import asyncio
import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from api.grpc.generated import vector_service_pb2 as pb
from infra.objects.open import open_store
from infra.services.service import Service
from tests.api.grpc_client import RawClient, grpc_client
from tests.e2e.deployments import Deployment, embedded
from tests.e2e.processes import KEY

NAMES = [
    ".",
    "..",
    "../..",
    "../../../../../etc/passwd",
    "a/b",
    "a//b",
    "/",
    "/etc/passwd",
    "a\\b",
    "..\\..",
    "%2e%2e",
    "%2F",
    "%00",
    "%",
    "+",
    " ",
    " leading",
    "trailing ",
    "a\nb",
    "a\r\nx-header: 1",
    "\t\x01\x7f",
    "__default__ ",
    "__default__/",
    "__DEFAULT__",
    "default",
    "manifests",
    "registry",
    "?query=1#fragment",
    "'; DROP TABLE indexes; --",
    "$(reboot)`id`",
    '{"$ne": null}',
    "a" * 512,
    "/" * 512,
]


@pytest.fixture(params=["folder", "s3"])
def deployment(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[Deployment, dict[str, str]]]:
    settings: dict[str, str] = {}
    if request.param == "s3":
        service: Service = request.getfixturevalue("s3_service")
        settings = dict(service.settings)
        settings["FIRNDB_OBJECT_STORE"] += f"/names-{tmp_path.name}"
    with embedded(tmp_path, settings) as served:
        yield served, settings


def value_of(number: int) -> list[float]:
    return [1.0, float(number)]


async def test_every_name_is_a_namespace_of_its_own_and_every_id_a_record(
    deployment: tuple[Deployment, dict[str, str]], tmp_path: Path
) -> None:
    served, settings = deployment
    host = served.create_index("names", 2, "euclidean")
    async with served.data_client(host) as http, grpc_client(host) as client:
        for n, name in enumerate(NAMES):  # by REST and by gRPC in turns
            if n % 2:
                body = {
                    "namespace": name,
                    "vectors": [{"id": i, "values": value_of(n)} for i in NAMES],
                }
                (await http.post("/vectors/upsert", json=body)).raise_for_status()
            else:
                vectors = [pb.Vector(id=i, values=value_of(n)) for i in NAMES]
                await client.ask("Upsert", namespace=name, vectors=vectors, key=KEY)
        await settled(http, len(NAMES) ** 2)
        listed = (await http.get("/namespaces", params={"limit": "100"})).json()["namespaces"]
        assert {n["name"] for n in listed} == set(NAMES)
        await read_all(http, client)
        await check_objects(served, settings, tmp_path)
        await delete_half(http, client)


async def settled(http: httpx.AsyncClient, records: int) -> None:
    """Until they are in files, some seconds; a crash of the builder would show here."""
    ends = time.monotonic() + 120
    while True:
        found = (await http.post("/describe_index_stats", json={})).json()
        if found["totalVectorCount"] == records:
            return
        assert time.monotonic() < ends, found
        await asyncio.sleep(0.2)


async def read_all(http: httpx.AsyncClient, client: RawClient) -> None:
    for n, name in enumerate(NAMES):
        described = await http.get(f"/namespaces/{in_path(name)}")
        assert described.status_code == 200, (name, described.text)
        assert described.json()["name"] == name
        assert int(described.json()["record_count"]) == len(NAMES)
        asked = httpx.QueryParams({"namespace": name, "ids": NAMES})
        fetched = (await http.get("/vectors/fetch", params=asked)).json()
        assert fetched["vectors"].keys() == set(NAMES), name
        assert {tuple(v["values"]) for v in fetched["vectors"].values()} == {tuple(value_of(n))}
        some = NAMES[(7 * n) % len(NAMES)]
        listed = await http.get("/vectors/list", params={"namespace": name, "prefix": some})
        ids = [v["id"] for v in listed.json()["vectors"]]
        assert ids == sorted(i for i in NAMES if i.startswith(some))
        answer, _ = await client.ask(
            "Query", namespace=name, id=some, top_k=100, include_values=True, key=KEY
        )
        assert {m.id for m in answer.matches} == set(NAMES)
        assert {tuple(m.values) for m in answer.matches} == {tuple(value_of(n))}


async def check_objects(served: Deployment, settings: dict[str, str], tmp_path: Path) -> None:
    """Every object lies under its index and the hash of its namespace, and nothing beside them."""
    with served.control() as control:
        control.get("/indexes/names").raise_for_status()
    store = open_store(
        settings.get("FIRNDB_OBJECT_STORE", str(served.folder / "data" / "objects")),
        s3_endpoint=settings.get("FIRNDB_S3_ENDPOINT"),
        s3_access_key=settings.get("FIRNDB_S3_ACCESS_KEY"),
        s3_secret_key=settings.get("FIRNDB_S3_SECRET_KEY"),
        region=settings.get("FIRNDB_S3_REGION"),
    )
    hashes = {hashlib.sha256(name.encode()).hexdigest() for name in NAMES}
    try:
        keys = [info.key async for info in store.list("")]
    finally:
        await store.close()
    ours = [key.split("/") for key in keys if not key.startswith("registry/")]
    assert {parts[1] for parts in ours} <= hashes
    assert len({parts[0] for parts in ours}) <= 1, "one index"
    assert all(re.fullmatch(r"[a-z0-9._-]+", part) for parts in ours for part in parts)
    assert set(os.listdir(tmp_path)) == {"data", "firndb.log"}


async def delete_half(http: httpx.AsyncClient, client: RawClient) -> None:
    """Those at even places, by the protocol that did not write them; the others stay whole."""
    for n, name in enumerate(NAMES):
        if n % 4 == 0:
            deleted = await http.delete(f"/namespaces/{in_path(name)}")
            assert deleted.status_code == 200, (name, deleted.text)
        elif n % 4 == 2:
            await client.ask("DeleteNamespace", namespace=name, key=KEY)
    listed = (await http.get("/namespaces", params={"limit": "100"})).json()["namespaces"]
    assert {n["name"] for n in listed} == set(NAMES[1::2])
    assert {int(n["record_count"]) for n in listed} == {len(NAMES)}


def in_path(name: str) -> str:
    """As clients write it: dots as well, which URLs would resolve."""
    return quote(name, safe="").replace(".", "%2E")
