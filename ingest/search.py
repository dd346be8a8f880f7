"""From a query's body to a checked search."""

from dataclasses import dataclass

from core.errors import InvalidRequest
from core.filters.model import Filter
from core.filters.parse import parse_filter
from core.indexes import IndexInfo, VectorType
from core.limits import TOP_K_MAX
from core.records import SparseValues, Vector
from ingest.bodies import QueryBody
from ingest.validate import checked_sparse
from ingest.vectors import checked_id, checked_namespace, query_vector


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """Either `id` alone, or what to compare with: `vector` and perhaps `sparse`, in a sparse index
    `sparse` alone.
    """

    namespace: str
    top_k: int
    vector: Vector | None
    sparse: SparseValues | None
    id: str | None
    filter: Filter | None
    include_values: bool
    include_metadata: bool


def search(body: QueryBody, info: IndexInfo) -> Search:
    """`InvalidRequest` for what the index cannot answer. An empty filter is no filter."""
    if not 1 <= body.top_k <= TOP_K_MAX:
        raise InvalidRequest(f"topK must be between 1 and {TOP_K_MAX}, got {body.top_k}.")
    if body.id is not None and (body.vector or body.sparse_vector is not None):
        raise InvalidRequest("A query gives either an id or a vector, not both.")
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
    )


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
