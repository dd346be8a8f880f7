"""The first minute with FirnDB, and what it says when something is in its way.

At stake: a newcomer who gives up, and an operator at night who gets a traceback instead of the one
line that says what to do.
"""

import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from infra.services.service import Service
from tests.e2e.commands import complaint, firndb, told
from tests.e2e.deployments import Deployment, embedded
from tests.e2e.processes import KEY, FirnProcess, clean_environment, free_ports, index_ports

VECTOR = [1.0, 0.0, 0.0]


@pytest.fixture
def serve_arguments(tmp_path: Path) -> list[str]:
    port = free_ports(1)[0]
    return ["serve", "--data", str(tmp_path / "data"), "--port", str(port), "--index-ports",
            index_ports()]  # fmt: skip


@pytest.fixture
def newcomer(tmp_path: Path, serve_arguments: list[str]) -> Iterator[FirnProcess]:
    """`firndb serve` on a fresh folder, without a key, started."""
    url = f"http://127.0.0.1:{serve_arguments[4]}"
    process = FirnProcess(serve_arguments, {}, tmp_path / "log", f"{url}/readyz")
    process.start()
    try:
        process.wait_until_ready()
        yield process
    finally:
        process.clean_up()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with embedded(tmp_path_factory.mktemp("server")) as deployment:
        yield deployment


def snippet_of(output: str) -> str:
    """What a newcomer copies: from the import to the first thing that the code prints."""
    block = re.search(r"^from pinecone import .*?^print\(.*?$", output, re.MULTILINE | re.DOTALL)
    assert block is not None, output
    return block[0]


def test_a_first_start_prints_a_key_and_code_that_works(newcomer: FirnProcess) -> None:
    output = newcomer.log.read_text()
    code = snippet_of(output)
    ran = subprocess.run(
        [sys.executable, "-c", code], env=clean_environment(), capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "noun" in ran.stdout
    key = re.search(r'api_key="([^"]+)"', code)
    assert key is not None
    assert newcomer.stop() == 0
    assert newcomer.log.read_text().count(key[1]) == 2, "shown once: by itself and in the snippet"

    newcomer.start()
    newcomer.wait_until_ready()
    assert "api_key" not in newcomer.log.read_text().removeprefix(output)
    url = newcomer.ready_url.removesuffix("/readyz")
    listed = httpx.get(f"{url}/indexes", headers={"Api-Key": key[1]})
    assert [i["name"] for i in listed.json()["indexes"]] == ["words"]


def test_sigterm_ends_with_status_0_and_loses_nothing(tmp_path: Path) -> None:
    """The write is only in the log when the server is asked to stop."""
    with embedded(tmp_path, {"FIRNDB_FLUSH_AGE_S": "60"}) as deployment:
        host = deployment.create_index("kept", 3)
        with httpx.Client(base_url=host, headers={"Api-Key": KEY}, timeout=60) as client:
            body = {"vectors": [{"id": "a", "values": VECTOR}]}
            client.post("/vectors/upsert", json=body).raise_for_status()
        assert deployment.process.stop() == 0
        log = deployment.process.log.read_text()
        assert "Traceback" not in log, log
        assert "ERROR" not in log, log
        deployment.restart()
        with httpx.Client(base_url=host, headers={"Api-Key": KEY}, timeout=60) as client:
            answer = client.post("/query", json={"vector": VECTOR, "topK": 1})
            assert [m["id"] for m in answer.json()["matches"]] == ["a"]


def test_a_taken_port_is_named(serve_arguments: list[str]) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", int(serve_arguments[4])))
        stranger.listen()
        line = complaint(*serve_arguments)
    assert serve_arguments[4] in line
    assert "--port" in line


def test_a_locked_folder_is_named_with_its_owner(
    server: Deployment, serve_arguments: list[str]
) -> None:
    data = server.folder / "data"
    line = complaint("serve", "--data", data, *serve_arguments[3:])
    assert str(data) in line
    assert server.process.process is not None
    assert str(server.process.process.pid) in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FIRNDB_PORT", "99999"),
        ("FIRNDB_INDEX_PORTS", "9000-8000"),
        ("FIRNDB_FLUSH_AGE_S", "soon"),
        ("FIRNDB_CATALOG", "mysql://somewhere/else"),
        ("FIRNDB_OBJECT_STORE", "ftp://somewhere"),
        ("FIRNDB_LOG_LEVEL", "loud"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(
    serve_arguments: list[str], name: str, value: str
) -> None:
    arguments = serve_arguments[:3] if name in ("FIRNDB_PORT", "FIRNDB_INDEX_PORTS") else (
        serve_arguments
    )  # fmt: skip
    line = complaint(*arguments, environment={name: value})
    assert name in line
    assert value in line


def test_a_misspelt_setting_is_noticed(serve_arguments: list[str]) -> None:
    done = firndb("settings", environment={"FIRNDB_FLUSHAGE": "3"})
    assert done.returncode == 0
    assert "FIRNDB_FLUSHAGE" in done.stderr


def test_a_folder_that_cannot_be_used(tmp_path: Path, serve_arguments: list[str]) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    line = complaint("serve", "--data", file / "data", *serve_arguments[3:])
    assert str(file) in line
    assert "--data" in line


def test_kafka_without_an_object_store(serve_arguments: list[str]) -> None:
    line = complaint(*serve_arguments, environment={"FIRNDB_KAFKA": "127.0.0.1:9"})
    assert "FIRNDB_OBJECT_STORE" in line


def test_a_broker_that_is_not_there(tmp_path: Path, serve_arguments: list[str]) -> None:
    """Every role waits for some seconds, all at the same time here."""
    port = free_ports(1)[0]

    def run(role: str) -> str:
        environment = {
            "FIRNDB_KAFKA": f"127.0.0.1:{port}",
            "FIRNDB_OBJECT_STORE": str(tmp_path / "objects"),
            "FIRNDB_DATA": str(tmp_path / role),
            "FIRNDB_PORT": serve_arguments[4],
        }
        return complaint(role, environment=environment)

    with ThreadPoolExecutor(5) as threads:
        lines = list(threads.map(run, ("serve", "api", "builder", "freshness", "status")))
    for line in lines:
        assert f"FIRNDB_KAFKA=127.0.0.1:{port}" in line


def test_a_database_that_is_not_there(serve_arguments: list[str]) -> None:
    port = free_ports(1)[0]
    url = f"postgresql://firndb:secret-word@127.0.0.1:{port}/firndb"
    line = complaint(*serve_arguments, environment={"FIRNDB_CATALOG": url})
    assert "FIRNDB_CATALOG" in line
    assert str(port) in line
    assert "secret-word" not in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FIRNDB_S3_SECRET_KEY", "wrong"),
        ("FIRNDB_S3_ACCESS_KEY", "nobody"),
        ("FIRNDB_OBJECT_STORE", "s3://no-such-bucket/data"),
        ("FIRNDB_S3_ENDPOINT", "http://127.0.0.1:9"),
    ],
)
def test_an_object_store_that_refuses(
    s3_service: Service, serve_arguments: list[str], name: str, value: str
) -> None:
    line = complaint(*serve_arguments, environment={**s3_service.settings, name: value})
    assert "FIRNDB_S3_" in line or "FIRNDB_OBJECT_STORE" in line
    assert s3_service.settings["FIRNDB_S3_SECRET_KEY"] not in line


def test_commands_beside_a_server_and_without_one(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with embedded(tmp_path, {"FIRNDB_PARTITIONS": "16"}) as deployment:
        host = deployment.create_index("seen", 3)
        with httpx.Client(base_url=host, headers={"Api-Key": KEY}, timeout=60) as client:
            body = {"vectors": [{"id": "a", "values": VECTOR}], "namespace": "ns"}
            lsn = client.post("/vectors/upsert", json=body).headers["x-pinecone-request-lsn"]
        made = told("keys", "create", "second", "--data", data)
        listed = httpx.get(f"{deployment.url}/indexes", headers={"Api-Key": made["key"]})
        assert listed.status_code == 200
        keys = told("keys", "list", "--data", data)
        assert [k["name"] for k in keys] == ["settings", "second"]
        assert made["key"] not in json.dumps(keys)
        assert [i["index"] for i in told("indexes", "--data", data)] == ["seen"]
        assert isinstance(told("status", "--data", data), list)
        assert "/seen" not in firndb("status", "other", "--data", data).stdout
        assert deployment.process.stop() == 0

        # the last flush of the server is in its status; the folder has no owner now
        (row,) = told("status", "--data", data)
        assert (row["index"], row["namespace"], row["records"]) == ("seen", "ns", 1)
        assert row["indexed_lsn"] == int(lsn)
        assert row["lag"] == 0
        assert row["files"] == 1
        told("keys", "revoke", "second", "--data", data)
        deployment.restart()
        refused = httpx.get(f"{deployment.url}/indexes", headers={"Api-Key": made["key"]})
        assert refused.status_code == 401
        assert told("status", "seen", "--namespace", "ns", "--data", data)[0]["records"] == 1


def test_status_of_an_unknown_index_says_so(server: Deployment) -> None:
    line = complaint("status", "nowhere", "--data", server.folder / "data")
    assert "nowhere" in line


def test_a_command_on_a_folder_that_is_not_there(tmp_path: Path) -> None:
    line = complaint("status", "--data", tmp_path / "nothing")
    assert str(tmp_path / "nothing") in line
    assert "--data" in line


def test_settings_are_listed_and_secrets_are_not(tmp_path: Path) -> None:
    rows = told("settings", environment={"FIRNDB_API_KEY": "a-secret-word", "FIRNDB_PORT": "9001"})
    by_name = {row["variable"]: row for row in rows}
    assert by_name["FIRNDB_PORT"]["value"] == "9001"
    assert by_name["FIRNDB_PORT"]["default"] == "8080"
    assert all(row["meaning"] for row in rows)
    assert "a-secret-word" not in json.dumps(rows)


def test_doctor_finds_everything_well(
    server: Deployment, s3_service: Service, tmp_path: Path
) -> None:
    """Beside a server, on a closed folder, and on S3."""
    alone = tmp_path / "data"
    alone.mkdir()
    on_s3 = {**s3_service.settings, "FIRNDB_DATA": str(alone)}
    for checks in (
        told("doctor", "--data", server.folder / "data"),
        told("doctor", "--data", alone),
        told("doctor", environment=on_s3),
    ):
        assert all(check["ok"] for check in checks), checks
        race = next(c for c in checks if "put-if-absent" in c["name"])
        assert "winners per round: [1, 1, 1, 1, 1]" in race["detail"]


def test_help_names_every_command() -> None:
    done = firndb("--help")
    assert done.returncode == 0
    for command in ("serve", "api", "builder", "freshness", "status", "rebuild", "recluster",
                    "keys", "settings", "doctor"):  # fmt: skip
        assert command in done.stdout
