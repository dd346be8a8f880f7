"""Rows of the catalog's tables as values of `model`."""

from typing import Any

from sqlalchemy import Row

from core.indexes import IndexInfo, IndexState, VectorType
from core.metric import Metric
from infra.catalog.model import ApiKey, CatalogIndex, KeyRole, Project


def index_of(row: Row[Any]) -> CatalogIndex:
    info = IndexInfo(
        index_id=row.index_id,
        project_id=row.project_id,
        name=row.name,
        dimension=row.dimension,
        metric=Metric(row.metric),
        vector_type=VectorType(row.vector_type),
        state=IndexState(row.state),
    )
    return CatalogIndex(
        info=info,
        port=row.port,
        spec=row.spec,
        deletion_protection=row.deletion_protection,
        tags=row.tags,
        created_ms=row.created_ms,
        deleted_ms=row.deleted_ms,
    )


def project_of(row: Row[Any]) -> Project:
    return Project(project_id=row.project_id, name=row.name, created_ms=row.created_ms)


def key_of(row: Row[Any]) -> ApiKey:
    return ApiKey(
        key_id=row.key_id,
        project_id=row.project_id,
        name=row.name,
        prefix=row.prefix,
        role=KeyRole(row.role),
        created_ms=row.created_ms,
        revoked_ms=row.revoked_ms,
        expires_ms=row.expires_ms,
    )
