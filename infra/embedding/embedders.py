"""All configured models of a process, by name."""

import os
from collections.abc import Iterable
from pathlib import Path

from core.embedding import Embedder, EmbeddingModel
from core.errors import ConfigError, NotFound
from infra.embedding.bounded import Batches, BoundedEmbedder
from infra.embedding.config import EmbedderConfig, read_configs
from infra.embedding.http import HttpBatches
from infra.embedding.local import make_local
from infra.telemetry import Metrics


class Embedders:
    """Made at the start; what the file says later counts after a restart."""

    def __init__(self, embedders: Iterable[Embedder] = ()) -> None:
        self._by_name = {embedder.model.name: embedder for embedder in embedders}

    @classmethod
    def open(cls, path: Path | None, metrics: Metrics) -> "Embedders":
        """None: no models. Local ones are loaded now. `ConfigError`; none is asked anything yet."""
        configs = {} if path is None else read_configs(path)
        return cls(
            BoundedEmbedder(name, config, _batches(name, config), metrics)
            for name, config in configs.items()
        )

    @property
    def models(self) -> tuple[EmbeddingModel, ...]:
        return tuple(embedder.model for embedder in self._by_name.values())

    def named(self, model: str) -> Embedder:
        """`NotFound` tells which there are."""
        embedder = self._by_name.get(model)
        if embedder is None:
            raise NotFound(f"This server has no model {model[:128]!r}: {self.offer()}")
        return embedder

    def offer(self) -> str:
        """Which models there are, or how to get one, for error texts."""
        if not self._by_name:
            return (
                "it has none. Whoever runs it configures embedders with FIRNDB_EMBEDDERS; without "
                "them, send vectors instead of texts"
            )
        return f"it has {', '.join(self._by_name)}"

    async def close(self) -> None:
        for embedder in self._by_name.values():
            await embedder.close()


def _batches(name: str, config: EmbedderConfig) -> Batches:
    if config.local is not None:
        return make_local(name, config)
    key = None
    if config.key_env is not None:
        key = os.environ.get(config.key_env)
        if not key:
            raise ConfigError(
                f"FIRNDB_EMBEDDERS, table [{name}]: key_env names {config.key_env}, which is not "
                "set"
            )
    return HttpBatches(name, config, key)
