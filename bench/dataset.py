"""The real embeddings that the repository carries (`bench/data/README.md`)."""

import gzip
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

DATA = Path(__file__).parent / "data"
F32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Document:
    """One text with what is known of it; its vector is the same row of `vectors()`."""

    id: str
    text: str
    source: str
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """One query text; its vector is the same row of `query_vectors()`."""

    text: str
    kind: str


@cache
def documents() -> list[Document]:
    with gzip.open(DATA / "records.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [Document(**json.loads(line)) for line in lines]


@cache
def questions() -> list[Question]:
    with gzip.open(DATA / "queries.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [Question(row["text"], row["kind"]) for row in map(json.loads, lines)]


@cache
def vectors() -> F32:
    """float32 (6000, 384), unit norm."""
    stored: npt.NDArray[np.float16] = np.load(DATA / "embeddings.f16.npy")
    return stored.astype(np.float32)


@cache
def query_vectors() -> F32:
    """float32 (600, 384), unit norm."""
    stored: npt.NDArray[np.float16] = np.load(DATA / "queries.f16.npy")
    return stored.astype(np.float32)


def true_neighbours(data: F32, queries: F32, k: int) -> npt.NDArray[np.int64]:
    """(queries, k) rows of `data` by exact cosine, best first; both have unit norm."""
    scores = queries @ data.T
    best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1)
