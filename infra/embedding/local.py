"""A model in this process: a Python function that the operator's own module makes."""

import asyncio
import importlib
import inspect
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy.typing as npt

from core.embedding import InputType
from core.errors import ConfigError, FirnError, InvalidRequest
from infra.embedding.config import EmbedderConfig


class LocalBatches:
    """`Batches` of a function `(texts, input_type) -> (n, dimension) numbers`.

    A plain function runs in one thread of its own, a call at a time: most models are not made for
    more, and use several cores inside. A coroutine function runs on the event loop. `ValueError`
    of either means that it refuses a text.
    """

    def __init__(self, function: Callable[[list[str], str], Any]) -> None:
        self._function = function
        self._waits = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            getattr(function, "__call__", None)  # noqa: B004 - an instance's own, if it has one
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embed")

    async def embed_batch(
        self, texts: Sequence[str], input_type: InputType
    ) -> tuple[npt.ArrayLike, int | None]:
        asked = (list(texts), input_type.value)
        try:
            if self._waits:
                return await self._function(*asked), None
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._function, *asked), None
        except FirnError:
            raise
        except ValueError as error:
            raise InvalidRequest(f"The model refuses a text: {error}") from error

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def make_local(name: str, config: EmbedderConfig) -> LocalBatches:
    """Imports the module and calls the factory with `options`. `ConfigError` when that fails."""
    assert config.local is not None
    module, _, factory = config.local.partition(":")
    where = f"FIRNDB_EMBEDDERS, table [{name}]: local = {config.local!r}"
    try:
        make = getattr(importlib.import_module(module), factory)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{where}: {error}") from error
    try:
        function = make(**config.options)
    except Exception as error:  # the operator's own code
        raise ConfigError(f"{where} failed: {type(error).__name__}: {error}") from error
    if not callable(function):
        raise ConfigError(f"{where} must make a function of (texts, input_type)")
    return LocalBatches(function)
