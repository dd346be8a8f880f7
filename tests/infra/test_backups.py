"""Backups, restores and schedules on SQLite and on a real PostgreSQL."""

from pathlib import Path

import pytest

from core.clock import new_uuid
from infra.services.postgres import make_database
from infra.services.service import Service
from tests.infra.backups_suite import BackupsSuite


class TestOnSqlite(BackupsSuite):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'catalog.db'}"


class TestOnPostgres(BackupsSuite):
    @pytest.fixture
    def url(self, postgres_service: Service) -> str:
        return make_database(postgres_service.settings["FIRNDB_CATALOG"], f"c{new_uuid()}")
