"""What the catalog must do on every database. A test class inherits this and gives `url`."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from core.errors import AlreadyExists, FailedPrecondition, Forbidden, LogMismatch, NotFound
from core.indexes import IndexState, VectorType
from core.log import LogIdentity
from core.metric import Metric
from infra.catalog import keys
from infra.catalog.catalog import Catalog
from infra.catalog.database import migrate
from infra.catalog.model import CatalogIndex, KeyRole, NewIndex
from infra.catalog.tables import API_KEYS, METADATA

PORTS = range(9001, 9004)
NEW = NewIndex(
    name="movies",
    dimension=3,
    metric=Metric.COSINE,
    vector_type=VectorType.DENSE,
    spec={"deployment": {"deployment_type": "managed"}},
    deletion_protection=False,
    tags={"team": "ice"},
)


class CatalogSuite:
    """Fixture `url`: of an empty database."""

    @pytest.fixture
    async def catalog(self, url: str) -> AsyncIterator[Catalog]:
        catalog = Catalog.open(url)
        yield catalog
        await catalog.close()

    @pytest.fixture
    async def project(self, catalog: Catalog) -> str:
        return (await catalog.ensure_project()).project_id

    async def test_what_is_stored_survives_the_process(
        self, url: str, catalog: Catalog, project: str
    ) -> None:
        made = await catalog.create_index(project, NEW, PORTS)
        await catalog.close()
        reopened = Catalog.open(url)
        assert await reopened.index(project, "movies") == made
        assert (await reopened.ensure_project()).project_id == project
        await reopened.close()

    async def test_many_roles_that_start_at_once_migrate_an_empty_database_once(
        self, url: str
    ) -> None:
        opened = await asyncio.gather(*[asyncio.to_thread(Catalog.open, url) for _ in range(8)])
        assert {(await c.ensure_project()).project_id for c in opened} == {
            (await opened[0].ensure_project()).project_id
        }
        for catalog in opened:
            await catalog.close()

    async def test_the_migrations_make_the_tables_that_the_code_uses(
        self, url: str, catalog: Catalog
    ) -> None:
        """A column added to `tables` but to no migration would only fail on old databases."""
        engine = sa.create_engine(url)
        with engine.connect() as connection:
            differences = compare_metadata(MigrationContext.configure(connection), METADATA)
        engine.dispose()
        assert differences == []

    async def test_roles_of_older_versions_keep_what_they_allowed(self, url: str) -> None:
        if url.startswith("sqlite"):
            Path(url.removeprefix("sqlite:///")).parent.mkdir()
        engine = sa.create_engine(url)
        migrate(engine, "0001")
        old = {"editor": KeyRole.ADMIN, "viewer": KeyRole.READ_ONLY}
        with engine.begin() as connection:
            connection.execute(sa.text("INSERT INTO projects VALUES ('p', 'default', 1)"))
            for role in old:
                connection.execute(
                    sa.text("INSERT INTO api_keys VALUES (:r, 'p', '', 'firn', :h, :r, 1, NULL)"),
                    {"r": role, "h": keys.hash_of(role)},
                )
        engine.dispose()
        catalog = Catalog.open(url)
        for secret, role in old.items():
            caller = await catalog.caller_of(keys.hash_of(secret))
            assert caller is not None
            assert (caller.key_id, caller.role) == (secret, role)
        await catalog.close()

    async def test_a_key_belongs_to_its_project_until_it_is_revoked(
        self, catalog: Catalog, project: str
    ) -> None:
        secret = keys.new_key()
        key = await catalog.add_key(project, secret, name="laptop", role=KeyRole.READ_ONLY)
        caller = await catalog.caller_of(keys.hash_of(secret))
        assert caller is not None
        assert (caller.project_id, caller.role) == (project, KeyRole.READ_ONLY)
        await catalog.revoke_key(key.key_id)
        await catalog.revoke_key(key.key_id)
        assert await catalog.caller_of(keys.hash_of(secret)) is None
        listed = await catalog.keys(project)
        assert [k.name for k in listed] == ["laptop"]
        assert listed[0].revoked_ms is not None

    async def test_a_revoked_key_cannot_be_made_valid_again(
        self, catalog: Catalog, project: str
    ) -> None:
        key = await catalog.add_key(project, "a-secret-of-my-own")
        await catalog.revoke_key(key.key_id)
        with pytest.raises(AlreadyExists):
            await catalog.add_key(project, "a-secret-of-my-own")
        with pytest.raises(NotFound):
            await catalog.revoke_key("no such key")

    async def test_the_secret_is_nowhere_in_the_database(
        self, url: str, catalog: Catalog, project: str
    ) -> None:
        secret = keys.new_key()
        await catalog.add_key(project, secret)
        engine = sa.create_engine(url)
        with engine.connect() as connection:
            row = connection.execute(sa.select(API_KEYS)).one()
        engine.dispose()
        assert not [value for value in row if isinstance(value, str) and secret[9:] in value]
        assert secret.startswith(row.prefix)

    async def test_names_are_unique_among_the_living_indexes_of_a_project(
        self, catalog: Catalog, project: str
    ) -> None:
        first = await catalog.create_index(project, NEW, PORTS)
        with pytest.raises(AlreadyExists):
            await catalog.create_index(project, NEW, PORTS)
        other = await catalog.ensure_project("another")
        await catalog.create_index(other.project_id, NEW, PORTS)
        await catalog.delete_index(project, "movies")
        again = await catalog.create_index(project, NEW, PORTS)
        assert again.info.index_id != first.info.index_id

    async def test_a_name_that_many_want_at_once_goes_to_one(
        self, catalog: Catalog, project: str
    ) -> None:
        racers = [catalog.create_index(project, NEW, range(9001, 9101)) for _ in range(16)]
        results = await asyncio.gather(*racers, return_exceptions=True)
        assert sum(isinstance(r, CatalogIndex) for r in results) == 1
        assert sum(isinstance(r, AlreadyExists) for r in results) == 15

    async def test_indexes_made_at_once_have_ports_of_their_own(
        self, catalog: Catalog, project: str
    ) -> None:
        wanted = [replace(NEW, name=f"i{n}") for n in range(12)]
        made = await asyncio.gather(
            *[catalog.create_index(project, new, range(9001, 9013)) for new in wanted]
        )
        assert {index.port for index in made} == set(range(9001, 9013))

    async def test_the_port_of_a_deleted_index_is_given_out_last(
        self, catalog: Catalog, project: str
    ) -> None:
        """A client that still talks to the deleted index should not meet another one there."""
        first = await catalog.create_index(project, NEW, PORTS)
        await catalog.delete_index(project, "movies")
        ports = [
            (await catalog.create_index(project, replace(NEW, name=n), PORTS)).port for n in "abc"
        ]
        assert ports == [9002, 9003, first.port]
        with pytest.raises(FailedPrecondition, match="FIRNDB_INDEX_PORTS"):
            await catalog.create_index(project, replace(NEW, name="d"), PORTS)

    async def test_an_index_moves_to_a_port_that_can_be_used(
        self, catalog: Catalog, project: str
    ) -> None:
        index = await catalog.create_index(project, NEW, PORTS)
        moved = await catalog.move_index(index.info.index_id, PORTS, {9001, 9002})
        assert moved.port == 9003
        assert (await catalog.index(project, "movies")).port == 9003

    async def test_a_deleted_index_stays_known_by_its_id(
        self, catalog: Catalog, project: str
    ) -> None:
        index = await catalog.create_index(project, NEW, None)
        deleted = await catalog.delete_index(project, "movies")
        assert deleted.info.state is IndexState.DELETED
        with pytest.raises(NotFound):
            await catalog.index(project, "movies")
        with pytest.raises(NotFound):
            await catalog.delete_index(project, "movies")
        assert await catalog.living_indexes() == []
        known = await catalog.index_by_id(index.info.index_id)
        assert known is not None
        assert known.info.state is IndexState.DELETED
        assert await catalog.index_by_id("0" * 32) is None

    async def test_a_protected_index_cannot_be_deleted(
        self, catalog: Catalog, project: str
    ) -> None:
        await catalog.create_index(project, replace(NEW, deletion_protection=True), PORTS)
        with pytest.raises(Forbidden, match="Deletion protection is enabled"):
            await catalog.delete_index(project, "movies")
        await catalog.configure_index(
            project, "movies", lambda index: replace(index, deletion_protection=False)
        )
        await catalog.delete_index(project, "movies")

    async def test_changes_at_the_same_moment_are_all_kept(
        self, catalog: Catalog, project: str
    ) -> None:
        await catalog.create_index(project, NEW, PORTS)

        def tagged(tag: str) -> asyncio.Future[CatalogIndex]:
            return asyncio.ensure_future(
                catalog.configure_index(
                    project,
                    "movies",
                    lambda index: replace(index, tags={**index.tags, tag: "yes"}),
                )
            )

        await asyncio.gather(*[tagged(f"t{n}") for n in range(8)])
        tags = (await catalog.index(project, "movies")).tags
        assert set(tags) == {"team", *(f"t{n}" for n in range(8))}

    async def test_a_sparse_index_has_no_dimension(self, catalog: Catalog, project: str) -> None:
        sparse = replace(
            NEW, dimension=None, metric=Metric.DOTPRODUCT, vector_type=VectorType.SPARSE
        )
        await catalog.create_index(project, sparse, PORTS)
        info = (await catalog.index(project, "movies")).info
        assert (info.dimension, info.vector_type) == (None, VectorType.SPARSE)

    async def test_another_log_than_the_remembered_one_is_refused(self, catalog: Catalog) -> None:
        """LSNs of another log mean nothing here: a recreated topic is not the old one."""
        assert await catalog.log() is None
        known = await catalog.register_log(LogIdentity("log-a", 16))
        assert (known.epoch, known.partitions) == (1, 16)
        assert await catalog.register_log(LogIdentity("log-a", 16)) == known
        with pytest.raises(LogMismatch, match="log-a"):
            await catalog.register_log(LogIdentity("log-b", 16))
        with pytest.raises(LogMismatch, match="16 partitions"):
            await catalog.register_log(LogIdentity("log-a", 32))

    async def test_of_two_logs_registered_at_once_one_wins(self, catalog: Catalog) -> None:
        racers = [catalog.register_log(LogIdentity(f"log-{n}", 16)) for n in range(6)]
        results = await asyncio.gather(*racers, return_exceptions=True)
        assert sum(not isinstance(r, LogMismatch) for r in results) == 1
