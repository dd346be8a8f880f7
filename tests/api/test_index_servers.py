"""Each index has a host of its own, a port or a DNS name: also after restarts, beside others."""

import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.living import HostNames
from api.server import bind_control
from core.errors import ConfigError
from core.indexes import IndexInfo, IndexState, VectorType
from core.metric import Metric
from infra.catalog.model import CatalogIndex
from infra.settings import Settings
from tests.api.gateway import KEY, OTHER_KEY, Running, running_gateway
from tests.e2e.processes import index_ports

QUERY = {"vector": [1, 2, 3], "topK": 1}


async def query(gateway: Running, host: str, **options: Any) -> httpx.Response:
    return await gateway.ask("POST", "/query", host=host, json=QUERY, **options)


async def test_indexes_do_not_share_records(gateway: Running) -> None:
    hosts = [(await gateway.create(name))["host"] for name in ("one", "two")]
    vector = {"id": "a", "values": [1, 2, 3]}
    await gateway.ask("POST", "/vectors/upsert", host=hosts[0], json={"vectors": [vector]})
    found = [len((await query(gateway, host)).json()["matches"]) for host in hosts]
    assert found == [1, 0]


async def test_a_deleted_index_answers_no_more_and_its_port_is_closed(gateway: Running) -> None:
    host = (await gateway.create())["host"]
    assert (await query(gateway, host)).status_code == 200
    await gateway.ask("DELETE", "/indexes/movies")
    # The connection of the query above is still open: requests on it find no index.
    assert (await query(gateway, host)).status_code == 404
    async with httpx.AsyncClient() as other:
        with pytest.raises(httpx.ConnectError):
            await other.post(f"{host}/query", headers={"api-key": KEY}, json=QUERY)


async def test_after_a_restart_every_index_is_back_at_its_host(tmp_path: Path) -> None:
    ports = index_ports(10)
    async with running_gateway(tmp_path, index_ports=ports) as gateway:
        hosts = [(await gateway.create(f"i{n}"))["host"] for n in range(5)]
    async with running_gateway(tmp_path, index_ports=ports) as gateway:
        listed = (await gateway.ask("GET", "/indexes")).json()["indexes"]
        assert [index["host"] for index in listed] == hosts
        for host in hosts:
            assert (await query(gateway, host)).status_code == 200


async def test_an_index_whose_port_a_stranger_took_moves_to_another(tmp_path: Path) -> None:
    ports = index_ports(10)
    first = int(ports.split("-")[0])
    with socket.create_server(("127.0.0.1", first)):
        async with running_gateway(tmp_path, index_ports=ports) as gateway:
            host = (await gateway.create())["host"]
            assert host == f"http://127.0.0.1:{first + 1}"
            assert (await query(gateway, host)).status_code == 200
    with socket.create_server(("127.0.0.1", first + 1)):
        async with running_gateway(tmp_path, index_ports=ports) as gateway:
            moved = (await gateway.ask("GET", "/indexes/movies")).json()["host"]
            assert moved != host
            assert (await query(gateway, moved)).status_code == 200


async def test_without_a_free_port_nothing_is_created(tmp_path: Path) -> None:
    ports = index_ports(2)
    first = int(ports.split("-")[0])
    with socket.create_server(("127.0.0.1", first)):
        async with running_gateway(tmp_path, index_ports=ports) as gateway:
            await gateway.create("fits")
            body = {"name": "no-room", "dimension": 3, "spec": {"byoc": {"environment": "e"}}}
            refused = await gateway.ask("POST", "/indexes", json=body)
            assert refused.status_code == 412
            assert "FIRNDB_INDEX_PORTS" in refused.json()["error"]["message"]
            assert (await gateway.ask("GET", "/indexes/no-room")).status_code == 404


async def test_two_gateways_on_one_catalog_serve_each_others_indexes(tmp_path: Path) -> None:
    """Two api processes on one machine: a request to an index's port may reach either of them."""
    ports = index_ports(10)
    async with (
        running_gateway(tmp_path, sole=False, index_ports=ports) as one,
        running_gateway(tmp_path, sole=False, index_ports=ports) as two,
    ):
        host = (await one.create())["host"]
        await two.gateway.follow_once()
        await one.gateway.stop()
        assert (await query(two, host)).status_code == 200
        await two.ask("DELETE", "/indexes/movies")
        assert (await query(two, host)).status_code == 404


async def test_an_index_deleted_by_another_process_is_closed_here(tmp_path: Path) -> None:
    async with running_gateway(tmp_path) as gateway:
        host = (await gateway.create())["host"]
        project = (await gateway.catalog.ensure_project()).project_id
        await gateway.catalog.delete_index(project, "movies")
        await gateway.gateway.follow_once()
        async with httpx.AsyncClient() as other:
            with pytest.raises(httpx.ConnectError):
                await other.post(f"{host}/query", headers={"api-key": KEY}, json=QUERY)


async def test_with_dns_names_the_host_header_tells_the_index(tmp_path: Path) -> None:
    template = "https://{name}-{project}.firn.example.com"
    async with running_gateway(tmp_path, index_host=template) as gateway:
        told = (await gateway.create())["host"]
        project = (await gateway.catalog.ensure_project()).project_id
        assert told == f"https://movies-{project[:12]}.firn.example.com"
        name = told.removeprefix("https://")

        async def ask(host: str, **options: Any) -> int:
            answer = await query(gateway, "", headers={"host": host}, **options)
            return answer.status_code

        assert await ask(name) == 200
        assert await ask(name.upper() + ":443") == 200
        assert await ask(name, key=OTHER_KEY) == 404
        assert await ask(f"other-{project[:12]}.firn.example.com") == 404
        assert await ask("firn.example.com") == 404
        await gateway.ask("DELETE", "/indexes/movies")
        assert await ask(name) == 404


async def test_indexes_made_under_dns_names_get_ports_when_the_setting_changes(
    tmp_path: Path,
) -> None:
    async with running_gateway(tmp_path, index_host="https://{name}.example.com") as gateway:
        await gateway.create()
    async with running_gateway(tmp_path) as gateway:
        host = (await gateway.ask("GET", "/indexes/movies")).json()["host"]
        assert (await query(gateway, host)).status_code == 200


def test_a_taken_control_port_is_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings.load({"data": tmp_path, "port": taken.getsockname()[1]})
        with pytest.raises(ConfigError, match=r"--port \(FIRNDB_PORT\)"):
            bind_control(settings)


INDEX = CatalogIndex(
    info=IndexInfo(
        index_id="0" * 32,
        project_id="abcdef012345" + "9" * 20,
        name="a-b-c",
        dimension=3,
        metric=Metric.COSINE,
        vector_type=VectorType.DENSE,
        state=IndexState.READY,
    ),
    port=8085,
    spec={},
    deletion_protection=False,
    tags={},
    created_ms=0,
    deleted_ms=None,
)


@pytest.mark.parametrize(
    ("listen", "asked", "url"),
    [
        ("127.0.0.1", "localhost:8080", "http://localhost:8085"),
        ("0.0.0.0", "firn.lan:9000", "http://firn.lan:8085"),
        ("0.0.0.0", None, "http://127.0.0.1:8085"),
        ("::1", "[::1]:8080", "http://[::1]:8085"),
    ],
)
def test_a_client_is_told_a_host_that_it_can_reach(
    listen: str, asked: str | None, url: str
) -> None:
    assert HostNames("http://{host}:{port}", listen).url_of(INDEX, asked) == url


def test_a_dns_name_leads_back_to_its_index() -> None:
    names = HostNames("https://{name}-{project}.example.com:8443", "0.0.0.0")
    url = names.url_of(INDEX, "whatever")
    assert url == "https://a-b-c-abcdef012345.example.com:8443"
    assert names.parse("a-b-c-abcdef012345.example.com:8443") == ("a-b-c", "abcdef012345")
    for wrong in ("example.com", "a.example.com", "a-abcdef012345.example.org", ""):
        assert names.parse(wrong) is None
    assert HostNames("https://{name}.example.com", "h").parse("a-b.example.com") == ("a-b", None)
