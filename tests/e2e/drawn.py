"""Records and operations drawn from a seed: few ids and few values, so that much collides."""

from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

from core.filters.model import Filter
from core.filters.parse import parse_filter
from core.metric import Metric
from core.operations import Upsert
from core.records import Metadata, Record, SparseValues

FILTERS: list[dict[str, Any]] = [
    {"year": {"$lt": 20}},
    {"year": {"$gte": 30}},
    {"genre": "comedy"},
    {"tag": {"$in": ["a", "b"]}},
    {"ok": {"$exists": False}},
    {"mark": {"$exists": True}},
    {"$or": [{"tag": "c"}, {"year": 5}]},
    {"genre": {"$ne": "drama"}},
    {"tag": {"$nin": ["a"]}},
]


@dataclass(frozen=True, slots=True)
class Drawn:
    """dimension: None for a sparse index."""

    random: Random
    metric: Metric
    dimension: int | None

    def record(self, name: str) -> Record:
        dense, sparse = None, None
        if self.dimension is not None:
            values = [self.random.uniform(-3, 3) for _ in range(self.dimension)]
            dense = np.array(values, dtype=np.float32)
        if self.metric is Metric.DOTPRODUCT and (dense is None or self.random.random() < 0.5):
            terms = np.array(sorted(self.random.sample(range(10), 3)), dtype=np.uint32)
            weights = self.random.choices((1.0, 2.0, -1.0), k=3)
            sparse = SparseValues(terms, np.array(weights, dtype=np.float32))
        return Record(name, dense, sparse, self.metadata())

    def metadata(self) -> Metadata:
        chosen: Metadata = {"genre": self.random.choice(("drama", "comedy"))}
        year = self.random.randint(0, 60)
        chosen["year"] = float(year) if year else "text"
        if self.random.random() < 0.4:
            chosen["tag"] = self.random.choice(["a", "b", "c"])
        if self.random.random() < 0.1:
            chosen["tag"] = ["a", "c"]
        if self.random.random() < 0.2:
            chosen["ok"] = self.random.random() < 0.5
        return chosen

    def condition(self) -> Filter:
        return parse_filter(self.random.choice(FILTERS))

    def upsert(self, count: int) -> Upsert:
        start = self.random.randint(0, 150)
        numbers = list(range(start, start + count))
        if self.random.random() < 0.5:
            numbers = sorted({self.random.randint(0, 150) for _ in numbers})
        return Upsert(tuple(self.record(f"r{number:03}") for number in numbers))
