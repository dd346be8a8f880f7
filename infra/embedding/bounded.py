"""One configured model as an `Embedder`: batches, bounds, a deadline, checks and metrics around
whatever answers a batch.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from core.embedding import Embedded, EmbeddingModel, InputType
from core.errors import DeadlineExceeded, FailedPrecondition, Overloaded
from core.turns import waiting
from infra.embedding.config import EmbedderConfig
from infra.embedding.slots import FairSlots
from infra.telemetry import Metrics

log = logging.getLogger(__name__)

# Requests that one model has at hand. At 96 texts each and 100 texts/s, as a small model does on
# two cores, the last of more would wait longer than clients do. A project that floods the model
# leaves room for others.
REQUESTS_MAX = 64
PROJECT_REQUESTS_MAX = 16


class Batches(Protocol):
    """What answers one batch of one model."""

    async def embed_batch(
        self, texts: Sequence[str], input_type: InputType
    ) -> tuple[npt.ArrayLike, int | None]:
        """Vectors as they come, unchecked, and the tokens counted, None if nobody counts. Errors
        are those of `core.embedding.Embedder.embed`.
        """

    async def close(self) -> None: ...


class BoundedEmbedder:
    """`core.embedding.Embedder`. The batches of a request go at once, as far as `concurrency` of
    the model lets them.
    """

    def __init__(
        self, name: str, config: EmbedderConfig, batches: Batches, metrics: Metrics
    ) -> None:
        self.model = EmbeddingModel(name, config.dimension, config.metric, config.description)
        self._config = config
        self._batches = batches
        self._slots = FairSlots(config.concurrency)
        self._requests: Counter[str] = Counter()
        self._texts = metrics.counter("firndb_embed_texts_total", "Texts embedded", ("model",))
        self._failures = metrics.counter(
            "firndb_embed_failures_total", "Requests to embed that failed", ("model",)
        )
        self._seconds = metrics.latency(
            "firndb_embed_seconds", "Time to embed the texts of one request", ("model",)
        )

    async def embed(
        self, texts: Sequence[str], input_type: InputType, *, project: str, namespace: str = ""
    ) -> Embedded:
        at_hand = self._requests[project]
        if at_hand >= PROJECT_REQUESTS_MAX or self._requests.total() >= REQUESTS_MAX:
            raise Overloaded(
                f"{at_hand} requests of this project wait for the model {self.model.name}; slow "
                "down and try again"
            )
        self._requests[project] += 1
        try:
            with waiting(), self._seconds.labels(self.model.name).time():
                embedded = await self._in_time(texts, input_type, (project, namespace))
        except Exception:
            self._failures.labels(self.model.name).inc()
            raise
        finally:
            self._requests[project] -= 1
            if not self._requests[project]:
                del self._requests[project]
        self._texts.labels(self.model.name).inc(len(texts))
        return embedded

    async def close(self) -> None:
        await self._batches.close()

    async def _in_time(
        self, texts: Sequence[str], input_type: InputType, tenant: tuple[str, str]
    ) -> Embedded:
        config = self._config
        query = input_type is InputType.QUERY
        prefix = config.query_prefix if query else config.passage_prefix
        asked = [prefix + text for text in texts]
        parts = [asked[at : at + config.batch] for at in range(0, len(asked), config.batch)]
        tasks = [asyncio.create_task(self._one(part, input_type, tenant)) for part in parts]
        try:
            async with asyncio.timeout(self._config.timeout_s):
                done = await asyncio.gather(*tasks)
        except TimeoutError:
            raise DeadlineExceeded(
                f"the model {self.model.name} did not embed {len(texts)} texts in "
                f"{self._config.timeout_s:g} s; send fewer at once or try again"
            ) from None
        finally:  # of a request that failed or went away nothing goes on
            for task in tasks:
                task.cancel()
        vectors = np.concatenate([part.vectors for part in done])
        return Embedded(vectors, sum(part.tokens for part in done))

    async def _one(
        self, texts: Sequence[str], input_type: InputType, tenant: tuple[str, str]
    ) -> Embedded:
        async with self._slots.slot(*tenant):
            vectors, tokens = await self._batches.embed_batch(texts, input_type)
        if tokens is None:
            tokens = sum(len(text.split()) for text in texts)
        return Embedded(self._checked(vectors, len(texts)), tokens)

    def _checked(self, given: npt.ArrayLike, count: int) -> npt.NDArray[np.float32]:
        wanted = (count, self.model.dimension)
        try:
            with np.errstate(over="ignore"):  # told below
                vectors = np.ascontiguousarray(given, dtype=np.float32)
        except (TypeError, ValueError):  # rows of different lengths, or no numbers
            vectors = np.empty((0, 0), np.float32)
        if vectors.shape != wanted:
            raise self._wrong(f"vectors of the shape {vectors.shape} instead of {wanted}")
        if not np.isfinite(vectors).all():
            raise self._wrong("NaN or a value out of range of float32")
        return vectors

    def _wrong(self, what: str) -> FailedPrecondition:
        text = (
            f"The embedder of the model {self.model.name} gives {what}: whoever runs this server "
            "must correct its table in FIRNDB_EMBEDDERS"
        )
        log.error("%s", text)
        return FailedPrecondition(text)
