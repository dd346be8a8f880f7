"""The official clients make, scale and protect indexes of every kind, and meet roles and quotas."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.clock import new_uuid
from infra.services.postgres import make_database
from infra.services.service import Service
from tests.e2e.commands import told
from tests.e2e.deployments import Deployment, embedded
from tests.e2e.test_official_clients import VERSIONS, run_suite

SUITE = Path(__file__).with_name("control_suite.py")


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, postgres_service: Service
) -> Iterator[Deployment]:
    """With its catalog in PostgreSQL; `client_suite.py` has one in SQLite."""
    catalog = make_database(postgres_service.settings["FIRNDB_CATALOG"], f"control_{new_uuid()}")
    settings = {"FIRNDB_MAX_INDEXES": "4", "FIRNDB_CATALOG": catalog}
    with embedded(tmp_path_factory.mktemp("control"), settings) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def read_write_key(server: Deployment) -> str:
    """Made beside the running server, which knows it at once."""
    data = server.folder / "data"
    key: str = told("keys", "create", "--role", "read-write", "--data", data)["key"]
    return key


@pytest.mark.parametrize("version", VERSIONS)
def test_client(server: Deployment, read_write_key: str, version: str) -> None:
    run_suite(version, server, SUITE, {"FIRN_READ_WRITE_KEY": read_write_key})
