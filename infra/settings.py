"""Every setting of FirnDB: `FIRNDB_<NAME>` in the environment, or an option of the command line.

`Settings.load()` reads and checks them; `table()` is what `firndb settings` prints. Each field's
description is its one-line meaning; sizes are bytes, durations end in `_s` and are seconds.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from core.errors import ConfigError
from core.limits import REQUEST_BYTES_MAX
from infra.catalog import keys

PREFIX = "FIRNDB_"

MIB = 1 << 20
GIB = 1 << 30

_PORT_RANGE = re.compile(r"(\d{1,5})-(\d{1,5})")
_PASSWORD = re.compile(r"(://[^:/@]*:)[^@]*@")
_CATALOG_SCHEMES = ("postgresql://", "postgresql+psycopg://", "sqlite:///")
_INDEX_SCHEMES = ("http://", "https://", "{scheme}://")
_INDEX_HOST_WORDS = frozenset(("scheme", "host", "port", "name", "project"))


@dataclass(frozen=True, slots=True)
class SettingRow:
    """One line of `firndb settings`; secrets show as `(set)`."""

    variable: str
    value: str
    default: str
    meaning: str


class Settings(BaseSettings):
    """Frozen; made by `load`, so that a wrong value is a `ConfigError` of one line."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True
    )

    data: Path = Field(Path("firndb-data"), description="folder of everything kept on this disk")
    host: str = Field("127.0.0.1", description="address that the API listens on")
    port: int = Field(8080, ge=0, le=65535, description="port of the control plane (0: any free)")
    index_ports: str = Field(
        "8081-8180", description="ports that indexes are served on, one each (first-last)"
    )
    index_host: str = Field(
        "{scheme}://{host}:{port}",
        description="host told to clients of an index; with {name} instead of {port}: DNS names",
    )
    tls_cert: Path | None = Field(
        None, description="PEM file with the server's certificate; none: plain HTTP"
    )
    tls_key: Path | None = Field(
        None, validate_default=True, description="PEM file with the private key of FIRNDB_TLS_CERT"
    )
    api_key: SecretStr | None = Field(
        None, description="API key to accept from the start; none: one is made and shown once"
    )
    max_request_bytes: int = Field(
        REQUEST_BYTES_MAX,
        ge=1024,
        le=64 * MIB,
        description="largest request body (default 2 MiB); beyond it the answer is 413",
    )
    embedders: Path | None = Field(
        None, description="TOML file of embedding models, see docs/embedding.md; none: no models"
    )

    max_indexes: int = Field(1_000, ge=1, description="indexes of a project")
    max_collections: int = Field(1_000, ge=0, description="collections of a project")
    max_backups: int = Field(10_000, ge=0, description="backups of a project")
    max_namespaces: int = Field(1_000_000, ge=1, description="namespaces of an index")
    max_api_keys: int = Field(1_000, ge=1, description="valid API keys of a project")
    audit_rows: int = Field(
        10_000, ge=1, description="audit entries kept of each project; older ones go first"
    )
    audit_age_s: float = Field(
        7_776_000.0, gt=0, description="audit entries go at this age, in seconds (default 90 days)"
    )

    catalog: str | None = Field(
        None, description="control plane database, postgresql://…; none: SQLite in the data folder"
    )
    partitions: int = Field(
        16, ge=1, le=1024, description="partitions of the embedded log, fixed at its creation"
    )
    kafka: str | None = Field(
        None, description="Kafka brokers host:port[,host:port]; none: the embedded log"
    )
    kafka_prefix: str = Field(
        "firn", min_length=1, description="topics are PREFIX.wal, .dead, .manifests and .owners"
    )
    kafka_partitions: int = Field(
        64, ge=1, le=1024, description="partitions of the topic, fixed at its creation"
    )
    kafka_replication: int = Field(
        -1, ge=-1, description="replication factor of topics made by FirnDB (-1: the broker's)"
    )
    object_store: str | None = Field(
        None, description="s3://bucket/prefix or a folder; none: a folder in the data folder"
    )
    s3_endpoint: str | None = Field(None, description="URL of the S3 server; none: Amazon's")
    s3_access_key: str | None = Field(None, description="S3 access key; none: AWS's own chain")
    s3_secret_key: SecretStr | None = Field(None, description="S3 secret key")
    s3_region: str | None = Field(None, description="S3 region; none: the client's default")
    cache: Path | None = Field(
        None, description="folder of files cached from the object store; none: in the data folder"
    )
    cache_bytes: int = Field(
        10 * GIB, ge=MIB, description="bound of that folder, open files included (default 10 GiB)"
    )

    flush_records: int = Field(
        20_000, ge=1, description="a namespace is flushed at this many records"
    )
    flush_bytes: int = Field(
        32 * MIB,
        ge=1,
        description="a namespace is flushed at this many bytes of its log (default 32 MiB)",
    )
    flush_age_s: float = Field(
        2.0, gt=0, description="a namespace is flushed when a write is this old, in seconds"
    )

    cluster_bytes: int = Field(
        4 * MIB,
        ge=16 << 10,
        description="vectors of one cluster at its best; split at half as many again (default 4 "
        "MiB)",
    )

    gc_grace_s: float = Field(
        3600.0,
        ge=0,
        description="what nothing uses any more is kept so long: above the longest query and job",
    )
    gc_period_s: float = Field(
        600.0, gt=0, description="how often a namespace with garbage is looked at, in seconds"
    )

    import_locations: str | None = Field(
        None,
        description="folders that imports may read, with commas: s3://bucket/prefix/, "
        "file:///folder/; none: no imports",
    )
    import_integrations: Path | None = Field(
        None, description="JSON file of further locations with S3 credentials of their own, by name"
    )
    imports_at_once: int = Field(
        1, ge=0, le=16, description="imports that one process runs at a time (0: none here)"
    )

    builder_host: str = Field("127.0.0.1", description="address of the builder's health port")
    builder_port: int = Field(
        8191,
        ge=0,
        le=65535,
        description="the port of the builder: /healthz, /readyz, /metrics (0: any free)",
    )

    freshness_host: str = Field("127.0.0.1", description="address of this worker's HTTP server")
    freshness_port: int = Field(
        8190, ge=0, le=65535, description="the port of that server (0: any free)"
    )
    freshness_url: str | None = Field(
        None, description="URL by which others reach it; none: http://host:port as above"
    )
    freshness_memory_bytes: int = Field(
        GIB,
        ge=MIB,
        description="memory for writes that the index does not cover yet (default 1 GiB)",
    )
    freshness_grace_s: float = Field(
        30.0, ge=0, description="how many seconds writes stay in memory after the index covers them"
    )
    consistency_deadline_s: float = Field(
        2.0, gt=0, le=25, description="longest wait of a query for the writes before it, in seconds"
    )

    requests_at_once: int = Field(
        max(2, os.cpu_count() or 1),
        ge=1,
        le=500,
        description="data plane requests that work at once, in fair turns (default: one a core)",
    )
    rate_burst_s: float = Field(
        5.0, gt=0, le=3600, description="a pause earns this many seconds of a rate, used at once"
    )
    rate_project_write_requests: float = Field(
        0, ge=0, description="writes a second of one project, at each gateway (0: no limit)"
    )
    rate_project_write_bytes: float = Field(
        0, ge=0, description="bytes of writes a second of one project, at each gateway"
    )
    rate_project_write_records: float = Field(
        0, ge=0, description="records a second written by one project, at each gateway"
    )
    rate_project_read_requests: float = Field(
        0, ge=0, description="reads a second of one project, at each gateway"
    )
    rate_project_read_units: float = Field(
        0, ge=0, description="read units a second of one project, at each gateway"
    )
    rate_namespace_write_requests: float = Field(
        0, ge=0, description="writes a second to one namespace, at each gateway"
    )
    rate_namespace_write_bytes: float = Field(
        0, ge=0, description="bytes of writes a second to one namespace, at each gateway"
    )
    rate_namespace_write_records: float = Field(
        0, ge=0, description="records a second written to one namespace, at each gateway"
    )
    rate_namespace_read_requests: float = Field(
        0, ge=0, description="reads a second of one namespace, at each gateway"
    )
    rate_namespace_read_units: float = Field(
        0, ge=0, description="read units a second of one namespace, at each gateway"
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe messages that are logged"
    )
    log_format: Literal["text", "json"] = Field("text", description="text for people, or json")

    @classmethod
    def load(cls, overrides: Mapping[str, object | None] | None = None) -> Self:
        """The environment, then `overrides` that are not None. `ConfigError` says what is wrong."""
        given: dict[str, Any] = {k: v for k, v in (overrides or {}).items() if v is not None}
        try:
            return cls(**given)
        except ValidationError as wrong:
            raise ConfigError(_one_line(wrong.errors()[0], cls)) from None

    @field_validator("index_ports")
    @classmethod
    def _check_ports(cls, value: str) -> str:
        match = _PORT_RANGE.fullmatch(value)
        if match is None or not 1 <= int(match[1]) <= int(match[2]) <= 65535:
            raise ValueError("give two ports, first-last, such as 8081-8180")
        return value

    @field_validator("index_host")
    @classmethod
    def _check_index_host(cls, value: str) -> str:
        words = set(re.findall(r"{(\w*)}", value))
        if not value.startswith(_INDEX_SCHEMES) or not words <= _INDEX_HOST_WORDS:
            raise ValueError(
                "give http://, https:// or {scheme}:// and a host made of {host}, {port}, {name}, "
                "{project}"
            )
        if not words & {"port", "name"}:
            raise ValueError("every index needs a host of its own: use {port} or {name}")
        return value

    @field_validator("tls_key")
    @classmethod
    def _check_tls(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if (value is None) != (info.data.get("tls_cert") is None):
            raise ValueError("give both FIRNDB_TLS_CERT and FIRNDB_TLS_KEY, or neither")
        return value

    @field_validator("catalog")
    @classmethod
    def _check_catalog(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(_CATALOG_SCHEMES):
            raise ValueError("give postgresql://user:password@host:port/database")
        return value

    @field_validator("api_key")
    @classmethod
    def _check_api_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not keys.is_fit(value.get_secret_value()):
            raise ValueError(keys.FIT)
        return value

    def url_at(self, port: int) -> str:
        """How this machine reaches what listens on `host`, which may mean "every address"."""
        host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return (
            f"{self.scheme}://[{host}]:{port}" if ":" in host else f"{self.scheme}://{host}:{port}"
        )

    @property
    def scheme(self) -> str:
        """What the API's ports speak."""
        return "http" if self.tls_cert is None else "https"

    @property
    def port_range(self) -> range:
        """The index ports, in order."""
        first, last = self.index_ports.split("-")
        return range(int(first), int(last) + 1)

    @property
    def port_per_index(self) -> bool:
        """True: an index is known by its port. False: by its DNS name."""
        return "{name}" not in self.index_host

    @property
    def wal_topic(self) -> str:
        """The write-ahead log; the same name in the embedded log."""
        return f"{self.kafka_prefix}.wal"

    @property
    def dead_letters_topic(self) -> str:
        return f"{self.kafka_prefix}.dead"

    @property
    def manifests_topic(self) -> str:
        return f"{self.kafka_prefix}.manifests"

    @property
    def owners_topic(self) -> str:
        return f"{self.kafka_prefix}.owners"

    @property
    def catalog_url(self) -> str:
        return self.catalog or f"sqlite:///{self.data.absolute() / 'catalog.db'}"

    @property
    def object_store_url(self) -> str:
        return self.object_store or str(self.data.absolute() / "objects")

    @property
    def cache_folder(self) -> Path:
        return self.cache or self.data.absolute() / "cache"

    def table(self) -> list[SettingRow]:
        """One row per setting, in the order of this file."""
        return [
            SettingRow(
                variable=PREFIX + name.upper(),
                value=_shown(getattr(self, name)),
                default=_shown(field.default),
                meaning=field.description or "",
            )
            for name, field in type(self).model_fields.items()
        ]


def unknown_variables(environment: Mapping[str, str] | None = None) -> list[str]:
    """`FIRNDB_*` variables that mean nothing, most likely misspelt: the command line warns."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    names = environment if environment is not None else os.environ
    return sorted(name for name in names if name.startswith(PREFIX) and name not in known)


def _shown(value: object) -> str:
    if value is None:
        return "(none)"
    if isinstance(value, SecretStr):
        return "(set)"
    return _PASSWORD.sub(r"\1…@", str(value))


def _one_line(error: ErrorDetails, settings: type[Settings]) -> str:
    """`FIRNDB_PORT=99999: must be at most 65535; it is the port of the control plane …`"""
    name = str(error["loc"][0]) if error["loc"] else "?"
    field = settings.model_fields.get(name)
    if field is None:
        return f"there is no setting {PREFIX}{name.upper()}; `firndb settings` lists them"
    given = "…" if "key" in name else _shown(error["input"])
    meaning = field.description or ""
    return f"{PREFIX}{name.upper()}={given}: {_reason(error)}; it means: {meaning}"


def _reason(error: ErrorDetails) -> str:
    bounds = error.get("ctx", {})
    match error["type"]:
        case "int_parsing" | "int_type":
            return "must be a whole number"
        case "float_parsing" | "float_type":
            return "must be a number"
        case "greater_than_equal":
            return f"must be at least {bounds['ge']}"
        case "greater_than":
            return f"must be more than {bounds['gt']}"
        case "less_than_equal":
            return f"must be at most {bounds['le']}"
        case "literal_error":
            return f"must be {bounds['expected']}"
        case "value_error":
            return error["msg"].removeprefix("Value error, ")
        case _:
            return error["msg"][:1].lower() + error["msg"][1:]
