"""How many of each thing a project may have. Checked in the transaction that makes one more."""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from core.errors import NotFound, QuotaExceeded
from infra.catalog.tables import PROJECTS
from infra.settings import Settings


@dataclass(frozen=True, slots=True)
class Quota:
    """`most`: inclusive. `things`: plural, as in the error's text."""

    things: str
    most: int
    setting: str

    def check(self, connection: Connection, project_id: str, count: sa.Select[Any]) -> None:
        """`QuotaExceeded` unless `count` (a select of one number) is below `most`.

        Makers of one project take turns from here to the end of their transactions, so that two
        at once cannot both be the last one. `NotFound`: the project is deleted.
        """
        project = connection.execute(
            sa.select(PROJECTS)
            .where(PROJECTS.c.project_id == project_id, PROJECTS.c.deleted_ms.is_(None))
            .with_for_update(key_share=True)
        ).first()
        if project is None:
            raise NotFound("this project is deleted")
        if connection.scalar(count) >= self.most:
            raise self.exceeded(f"project {project.name}")

    def exceeded(self, owner: str) -> QuotaExceeded:
        """`owner`: `project default`, `index movies`."""
        return QuotaExceeded(
            f"You've reached the max {self.things} allowed in {owner} ({self.most}). Delete what "
            f"is not needed any more, or raise {self.setting}."
        )


@dataclass(frozen=True, slots=True)
class Quotas:
    """Of every project alike; `namespaces` are those of one index."""

    indexes: Quota
    collections: Quota
    backups: Quota
    namespaces: Quota
    api_keys: Quota

    @staticmethod
    def of(settings: Settings) -> "Quotas":
        return Quotas(
            indexes=Quota("indexes", settings.max_indexes, "FIRNDB_MAX_INDEXES"),
            collections=Quota("collections", settings.max_collections, "FIRNDB_MAX_COLLECTIONS"),
            backups=Quota("backups", settings.max_backups, "FIRNDB_MAX_BACKUPS"),
            namespaces=Quota("namespaces", settings.max_namespaces, "FIRNDB_MAX_NAMESPACES"),
            api_keys=Quota("API keys", settings.max_api_keys, "FIRNDB_MAX_API_KEYS"),
        )
