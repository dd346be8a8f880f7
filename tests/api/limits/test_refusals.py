"""Rates as clients meet them: the same limit, by REST and by gRPC, with the time to wait."""

from pathlib import Path
from typing import Any

from tests.api.gateway import OTHER_KEY, SERVERLESS, Running, running_gateway
from tests.api.grpc_client import grpc_client, vectors

QUERY = {"vector": [1, 2, 3], "topK": 1, "namespace": "ns"}
TEXT = "You've reached the read requests per second limit of 0.001 for namespace 'ns'. "
TEXT += "Slow down and try again."


async def upsert(gateway: Running, host: str, namespace: str, count: int) -> Any:
    given = [{"id": f"r{n}", "values": [1, 2, 3]} for n in range(count)]
    body = {"namespace": namespace, "vectors": given}
    return await gateway.ask("POST", "/vectors/upsert", host=host, json=body)


async def test_reads_of_rest_and_grpc_use_up_one_rate(tmp_path: Path) -> None:
    """A bucket of one: whoever comes second by the other protocol is refused as well."""
    async with running_gateway(tmp_path, rate_namespace_read_requests=0.001) as gateway:
        host = (await gateway.create())["host"]
        async with grpc_client(host) as client:
            await client.ask("Query", vector=[1, 2, 3], top_k=1, namespace="ns")
            code, text, _ = await client.refused(
                "Fetch", ids=["a"], namespace="ns", metadata=[("x-wanted", "retry")]
            )
            assert (code.name, text) == ("RESOURCE_EXHAUSTED", TEXT)
            await client.ask("Query", vector=[1, 2, 3], top_k=1, namespace="other")
        refused = await gateway.ask("POST", "/query", host=host, json=QUERY)
        assert (refused.status_code, refused.json()) == (
            429,
            {"code": 8, "message": TEXT, "details": []},
        )
        assert 990 <= int(refused.headers["retry-after"]) <= 1001
        assert (await upsert(gateway, host, "ns", 1)).status_code == 200
        shown = (await gateway.ask("GET", "/metrics", key=None)).text
        told = 'firndb_rate_limited_total{measure="read requests",scope="namespace"} 2.0'
        assert told in shown


async def test_records_and_bytes_of_writes_are_counted(tmp_path: Path) -> None:
    rates: dict[str, Any] = {
        "rate_project_write_records": 10,
        "rate_namespace_write_bytes": 100_000,
    }
    async with running_gateway(tmp_path, **rates) as gateway:
        host = (await gateway.create())["host"]
        assert (await upsert(gateway, host, "a", 50)).status_code == 200, "a burst of 5 s"
        refused = await upsert(gateway, host, "b", 50)
        assert refused.status_code == 429
        assert "written records per second limit of 10 for this project" in refused.text
        assert len(gateway.memory.tables) == 1
        body = {"ids": [f"r{n}" for n in range(40)], "namespace": "a"}
        refused = await gateway.ask("POST", "/vectors/delete", host=host, json=body)
        assert refused.status_code == 429, "each id of a deletion counts"
        theirs = {"name": "theirs", "dimension": 3, "metric": "cosine", "spec": SERVERLESS}
        made = await gateway.ask("POST", "/indexes", key=OTHER_KEY, json=theirs)
        host = made.json()["host"]
        async with grpc_client(host) as client:
            await client.ask("Upsert", vectors=vectors(40), namespace="a", key=OTHER_KEY)
            code, *_ = await client.refused("Upsert", vectors=vectors(40), key=OTHER_KEY)
            assert code.name == "RESOURCE_EXHAUSTED"
    async with running_gateway(tmp_path / "b", rate_namespace_write_bytes=1000) as gateway:
        host = (await gateway.create())["host"]
        assert (await upsert(gateway, host, "a", 200)).status_code == 200
        refused = await upsert(gateway, host, "a", 1)
        assert "write bytes per second limit of 1000 for namespace 'a'" in refused.text
        assert (await upsert(gateway, host, "b", 1)).status_code == 200
