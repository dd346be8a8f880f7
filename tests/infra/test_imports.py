"""Imports in the catalog, on SQLite and on a real PostgreSQL."""

from pathlib import Path

import pytest

from core.clock import new_uuid
from infra.services.postgres import make_database
from infra.services.service import Service
from tests.infra.imports_suite import ImportsSuite


class TestOnSqlite(ImportsSuite):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'catalog.db'}"


class TestOnPostgres(ImportsSuite):
    @pytest.fixture
    def url(self, postgres_service: Service) -> str:
        return make_database(postgres_service.settings["FIRNDB_CATALOG"], f"i{new_uuid()}")
