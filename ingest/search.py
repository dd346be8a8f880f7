"""From a query's body to a checked search."""

from dataclasses import dataclass

from core.errors import InvalidRequest
from core.filters.model import Filter
from core.filters.parse import parse_filter
from core.indexes import IndexInfo, VectorType
from core.limits import (
    FETCH_BY_METADATA_LIMIT_DEFAULT,
    FETCH_BY_METADATA_LIMIT_MAX,
    MAX_CANDIDATES_MAX,
    SCAN_FACTOR_MAX,
    SCAN_FACTOR_MIN,
    TOP_K_MAX,
)
from core.records import SparseValues, Vector
from ingest.bodies import FetchByMetadataBody, QueryBody
from ingest.validate import checked_sparse
from ingest.vectors import checked_id, checked_namespace, query_vector


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """Either `id` alone, or what to compare with: `vector` and perhaps `sparse`, in a sparse index
    `sparse` alone. scan_share: how much to look at of what good recall needs, in (0, 1].
    """

    namespace: str
    top_k: int
    vector: Vector | None
    sparse: SparseValues | None
    id: str | None
    filter: Filter | None
    include_values: bool
    include_metadata: bool
    scan_share: float


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """Records by what their metadata says, `limit` a page."""

    namespace: str
    filter: Filter
    limit: int


def search(body: QueryBody, info: IndexInfo) -> Search:
    """`InvalidRequest` for what the index cannot answer. An empty filter is no filter."""
    if not 1 <= body.top_k <= TOP_K_MAX:
        raise InvalidRequest(f"topK must be between 1 and {TOP_K_MAX}, got {body.top_k}.")
    if body.id is not None and (body.vector or body.sparse_vector is not None):
        other = "vector" if body.vector else "sparse_vector"
        raise InvalidRequest(f"Cannot provide both 'ID' and '{other}' at the same time.")
    _check_tuning(body, info)
    vector = sparse = None
    if body.sparse_vector is not None:
        sparse = checked_sparse(body.sparse_vector, "The query's sparseVector", info)
    if body.id is None:
        vector = _dense(body, info)
    return Search(
        namespace=checked_namespace(body.namespace),
        top_k=body.top_k,
        vector=vector,
        sparse=sparse,
        id=None if body.id is None else checked_id(body.id),
        filter=parse_filter(body.filter) if body.filter else None,
        include_values=body.include_values,
        include_metadata=body.include_metadata,
        scan_share=1.0 if body.scan_factor is None else body.scan_factor / SCAN_FACTOR_MAX,
    )


def _check_tuning(body: QueryBody, info: IndexInfo) -> None:
    """`max_candidates` asks for nothing here: every candidate gets its exact score."""
    if body.scan_factor is None and body.max_candidates is None:
        return
    if info.vector_type is VectorType.SPARSE:
        raise InvalidRequest("scanFactor and maxCandidates are for dense indexes only.")
    factor, most = body.scan_factor, body.max_candidates
    if factor is not None and not SCAN_FACTOR_MIN <= factor <= SCAN_FACTOR_MAX:
        raise InvalidRequest(
            f"scanFactor must be between {SCAN_FACTOR_MIN} and {SCAN_FACTOR_MAX}, got {factor}."
        )
    if most is not None and not body.top_k <= most <= MAX_CANDIDATES_MAX:
        raise InvalidRequest(
            f"maxCandidates must be between topK and {MAX_CANDIDATES_MAX}, got {most}."
        )


def by_metadata(body: FetchByMetadataBody) -> Selection:
    """`InvalidRequest` without a filter, or for a page of a size that there is not."""
    if not body.filter:
        raise InvalidRequest(
            "Empty filter provided for fetch by metadata request: give at least one condition."
        )
    limit = FETCH_BY_METADATA_LIMIT_DEFAULT if body.limit is None else body.limit
    if not 1 <= limit <= FETCH_BY_METADATA_LIMIT_MAX:
        raise InvalidRequest(
            f"limit must be between 1 and {FETCH_BY_METADATA_LIMIT_MAX}, got {limit}."
        )
    return Selection(checked_namespace(body.namespace), parse_filter(body.filter), limit)


def _dense(body: QueryBody, info: IndexInfo) -> Vector | None:
    if info.vector_type is VectorType.SPARSE or info.dimension is None:
        if body.vector:
            raise InvalidRequest("A sparse index is searched by sparseVector, not by vector.")
        if body.sparse_vector is None:
            raise InvalidRequest("A query of a sparse index must give sparseVector or id.")
        return None
    if not body.vector:
        raise InvalidRequest("A query must give vector or id.")
    return query_vector(body.vector, info.dimension)
