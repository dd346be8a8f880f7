"""The catalog on SQLite and on a real PostgreSQL, and how it fails on each."""

import sqlite3
from pathlib import Path

import pytest

from core.clock import new_uuid
from core.errors import ConfigError, Unavailable
from infra.catalog.catalog import Catalog
from infra.services.postgres import make_database
from infra.services.service import Service
from tests.infra.catalog_suite import CatalogSuite


class TestOnSqlite(CatalogSuite):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'folder' / 'catalog.db'}"

    async def test_a_file_that_is_no_database_is_a_setting_to_change(self, tmp_path: Path) -> None:
        path = tmp_path / "catalog.db"
        path.write_bytes(b"these are not the pages of a database" * 100)
        with pytest.raises(ConfigError, match=r"FIRNDB_CATALOG.*catalog\.db"):
            Catalog.open(f"sqlite:///{path}")

    async def test_tables_of_a_newer_version_are_left_alone(self, url: str) -> None:
        await Catalog.open(url).close()
        path = url.removeprefix("sqlite:///")
        connection = sqlite3.connect(path)
        with connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.close()
        with pytest.raises(ConfigError, match="newer FirnDB"):
            Catalog.open(url)

    async def test_a_lost_table_is_no_reason_to_say_try_again(self, url: str) -> None:
        """Only a database that is away is `Unavailable`; a broken one must be seen by people."""
        catalog = Catalog.open(url)
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
        with connection:
            connection.execute("DROP TABLE indexes")
        connection.close()
        with pytest.raises(Exception, match="no such table") as raised:
            await catalog.living_indexes()
        assert not isinstance(raised.value, Unavailable)
        await catalog.close()


class TestOnPostgres(CatalogSuite):
    @pytest.fixture
    def url(self, postgres_service: Service) -> str:
        return make_database(postgres_service.settings["FIRNDB_CATALOG"], f"c{new_uuid()}")

    async def test_while_the_server_is_away_it_says_so_and_then_goes_on(
        self, url: str, postgres_service: Service
    ) -> None:
        catalog = Catalog.open(url)
        project = await catalog.ensure_project()
        postgres_service.kill()
        try:
            with pytest.raises(Unavailable):
                await catalog.living_indexes()
            with pytest.raises(ConfigError, match="FIRNDB_CATALOG"):
                Catalog.open(url)
        finally:
            postgres_service.start()
        assert await catalog.ensure_project() == project
        await catalog.close()


def test_a_password_is_not_shown_when_the_server_cannot_be_reached() -> None:
    with pytest.raises(ConfigError) as raised:
        Catalog.open("postgresql://firn:very-secret@127.0.0.1:1/firn")
    assert "very-secret" not in str(raised.value)
    assert "127.0.0.1" in str(raised.value)
