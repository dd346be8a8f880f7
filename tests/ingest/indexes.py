"""Indexes of every kind, and a directory that knows them."""

from core.errors import Unavailable
from core.indexes import IndexInfo, IndexState, VectorType
from core.metric import Metric


def index(
    index_id: str = "dense",
    dimension: int | None = 3,
    metric: Metric = Metric.COSINE,
    state: IndexState = IndexState.READY,
) -> IndexInfo:
    kind = VectorType.SPARSE if dimension is None else VectorType.DENSE
    return IndexInfo(index_id, "project", f"name-{index_id}", dimension, metric, kind, state)


DENSE = index()
HYBRID = index("hybrid", metric=Metric.DOTPRODUCT)
SPARSE = index("sparse", dimension=None, metric=Metric.DOTPRODUCT)
DELETED = index("deleted", state=IndexState.DELETED)
TERMINATING = index("terminating", state=IndexState.TERMINATING)


class Directory:
    """Every index of this module; `away` makes it unreachable."""

    def __init__(self) -> None:
        self.away = False

    async def find(self, index_id: str) -> IndexInfo | None:
        if self.away:
            raise Unavailable("The catalog is away.")
        known = {i.index_id: i for i in (DENSE, HYBRID, SPARSE, DELETED, TERMINATING)}
        return known.get(index_id)
