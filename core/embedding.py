"""The port `Embedder`: texts in, dense vectors out, by one model that the operator configured."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from core.metric import Metric


class InputType(StrEnum):
    """Many models embed what is stored and what is asked in different ways."""

    PASSAGE = "passage"
    QUERY = "query"


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """metric: what an index of this model has if nothing else is asked for."""

    name: str
    dimension: int
    metric: Metric = Metric.COSINE
    description: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Embedded:
    """vectors: float32 (n, dimension), C-contiguous, finite, one row for each text in order.
    tokens: as the model counted them; words, where it does not tell.
    """

    vectors: npt.NDArray[np.float32]
    tokens: int


class Embedder(Protocol):
    """Safe for many concurrent callers on one event loop."""

    @property
    def model(self) -> EmbeddingModel: ...

    async def embed(
        self, texts: Sequence[str], input_type: InputType, *, project: str, namespace: str = ""
    ) -> Embedded:
        """At least one text, for a namespace of a project: those have fair turns at the model.
        `InvalidRequest`: the model refuses a text. `Unavailable`, `Overloaded` among them: try
        again. `FailedPrecondition`: the embedder is set up wrongly, and no repeating helps.
        """

    async def close(self) -> None: ...
