"""The file of embedders: TOML, one table for each model, named as clients name the model."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from core.errors import ConfigError
from core.limits import DIMENSION_MAX
from core.metric import Metric

# Below the 30 s that clients wait for an answer.
TIMEOUT_S_MAX = 25.0
NAME_CHARS_MAX = 128


class EmbedderConfig(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """One table: a model over HTTP has `url`, one in this process `local`.

    api: what the server at `url` speaks. remote_model: its name for the model, if it differs.
    key_env: the environment variable that holds its key. query_prefix, passage_prefix: put before
    each text, as models of the E5 family want it. batch: texts a call. concurrency: calls at once.
    options: keyword arguments of the local factory.
    """

    dimension: Annotated[int, msgspec.Meta(ge=1, le=DIMENSION_MAX)]
    url: str | None = None
    local: str | None = None
    api: Literal["openai", "pinecone"] = "openai"
    remote_model: str | None = None
    key_env: str | None = None
    metric: Metric = Metric.COSINE
    description: str = ""
    query_prefix: str = ""
    passage_prefix: str = ""
    batch: Annotated[int, msgspec.Meta(ge=1, le=2048)] = 32
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=TIMEOUT_S_MAX)] = 20.0
    options: dict[str, Any] = {}


def read_configs(path: Path) -> dict[str, EmbedderConfig]:
    """By the model's name, in the order of the file. `ConfigError` names what is wrong."""
    try:
        tables = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"FIRNDB_EMBEDDERS={path}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"FIRNDB_EMBEDDERS={path} is not TOML: {error}") from error
    return {name: _checked(path, name, table) for name, table in tables.items()}


def _checked(path: Path, name: str, table: object) -> EmbedderConfig:
    where = f"FIRNDB_EMBEDDERS={path}, table [{name}]"
    if not 1 <= len(name) <= NAME_CHARS_MAX or not name.isprintable():
        raise ConfigError(f"{where}: a model's name has 1 to {NAME_CHARS_MAX} characters")
    try:
        config = msgspec.convert(table, EmbedderConfig)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from error
    if (config.url is None) == (config.local is None):
        raise ConfigError(f"{where}: give either url or local")
    if config.url is not None and not config.url.startswith(("http://", "https://")):
        raise ConfigError(f"{where}: url must begin with http:// or https://")
    if config.local is not None and not all(config.local.partition(":")[::2]):
        raise ConfigError(f"{where}: local must be module:factory")
    return config
