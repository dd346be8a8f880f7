"""Making indexes: empty ones, and those that a job fills from a backup or a collection."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from api.server import IndexServers
from core.errors import InvalidRequest
from core.indexes import IndexState
from infra.catalog.backup_model import Backup, RestoreState
from infra.catalog.backups import Backups
from infra.catalog.catalog import Catalog
from infra.catalog.directory import CatalogDirectory
from infra.catalog.model import SOURCE_COLLECTION, CatalogIndex, NewIndex
from infra.catalog.restores import Restores
from infra.settings import Settings

# A small index is filled within this, and its client need not come again (in 5 s, as they do).
PATIENCE_S = 1.5
_LOOK_S = 0.05


class IndexMaker:
    """wake: tells those who run the jobs in this process that there is a new one; None: nobody."""

    def __init__(
        self,
        catalog: Catalog,
        backups: Backups,
        restores: Restores,
        directory: CatalogDirectory,
        servers: IndexServers,
        settings: Settings,
        wake: Callable[[], None] | None,
    ) -> None:
        self._catalog = catalog
        self._backups = backups
        self._restores = restores
        self._directory = directory
        self._servers = servers
        self._ports = settings.port_range if settings.port_per_index else None
        self._wake = wake

    async def make(self, project_id: str, new: NewIndex) -> CatalogIndex:
        """Served when it returns; filled later if it names a collection. `AlreadyExists`,
        `QuotaExceeded`, `FailedPrecondition`; of the collection: `NotFound`, `InvalidRequest`.
        """
        name = new.spec.get(SOURCE_COLLECTION)
        if name is None:
            made = await self._catalog.create_index(project_id, new, self._ports)
            return await self._served(made)
        collection = await self._backups.collection(project_id, name)
        _check_fit(new, collection)
        return (await self.fill(project_id, new, collection))[0]

    async def fill(
        self, project_id: str, new: NewIndex, backup: Backup
    ) -> tuple[CatalogIndex, str]:
        """The index, `INITIALIZING` unless it takes moments only, and the id of the job that fills
        it. Errors as `make`.
        """
        job_id = self._restores.new_id()
        made = await self._catalog.create_index(
            project_id,
            replace(new, state=IndexState.INITIALIZING),
            self._ports,
            self._restores.beginning(job_id, backup.backup_id),
        )
        made = await self._served(made)
        if self._wake is not None:
            self._wake()
            made = await self._soon_filled(made, job_id)
        return made, job_id

    async def _soon_filled(self, made: CatalogIndex, job_id: str) -> CatalogIndex:
        """The index as it is once its job has ended, or after `PATIENCE_S`."""
        for _ in range(round(PATIENCE_S / _LOOK_S)):
            await asyncio.sleep(_LOOK_S)
            job = await self._restores.get(made.info.project_id, job_id)
            if job.state is not RestoreState.PENDING:
                return await self._catalog.index_by_id(made.info.index_id) or made
        return made

    async def _served(self, made: CatalogIndex) -> CatalogIndex:
        made = await self._servers.created(made)
        self._directory.remember(made.info)
        return made


def _check_fit(new: NewIndex, collection: Backup) -> None:
    """Files of the collection are the index's from the start, so it cannot be of another kind."""
    kinds = ("vector_type", "dimension", "metric")
    for kind in kinds:
        wanted, there = getattr(new, kind), getattr(collection, kind)
        if wanted != there:
            raise InvalidRequest(
                f"The index has the {kind} {wanted}, but the collection {collection.name} has "
                f"{there}: they must be the same"
            )
