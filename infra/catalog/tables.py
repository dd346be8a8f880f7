"""The catalog's tables as the code uses them. Their history is in `migrations/`; a test compares
the two.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    text,
)

METADATA = MetaData()

PROJECTS = Table(
    "projects",
    METADATA,
    Column("project_id", String(32), primary_key=True),
    Column("name", String, nullable=False, unique=True),
    Column("created_ms", BigInteger, nullable=False),
    Column("deleted_ms", BigInteger),
)

API_KEYS = Table(
    "api_keys",
    METADATA,
    Column("key_id", String(32), primary_key=True),
    Column("project_id", String(32), ForeignKey("projects.project_id"), nullable=False),
    Column("name", String, nullable=False),
    Column("prefix", String, nullable=False),
    Column("key_hash", String(64), nullable=False, unique=True),
    Column("role", String, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
    Column("expires_ms", BigInteger),
)

# Secrets that a rotation replaced: valid a while longer, and never to be taken again.
RETIRED_SECRETS = Table(
    "retired_secrets",
    METADATA,
    Column("key_hash", String(64), primary_key=True),
    Column("key_id", String(32), ForeignKey("api_keys.key_id"), nullable=False),
    Column("valid_until_ms", BigInteger, nullable=False),
    Index("retired_secrets_key", "key_id"),
)

INDEXES = Table(
    "indexes",
    METADATA,
    Column("index_id", String(32), primary_key=True),
    Column("project_id", String(32), ForeignKey("projects.project_id"), nullable=False),
    Column("name", String(45), nullable=False),
    Column("dimension", Integer),
    Column("metric", String, nullable=False),
    Column("vector_type", String, nullable=False),
    Column("spec", JSON, nullable=False),
    Column("deletion_protection", Boolean, nullable=False),
    Column("tags", JSON, nullable=False),
    Column("state", String, nullable=False),
    Column("port", Integer),
    Column("created_ms", BigInteger, nullable=False),
    Column("deleted_ms", BigInteger),
)

_LIVING = text("state <> 'Deleted'")

# Deleted indexes keep their row for ever, so names and ports are unique among the living only.
Index(
    "indexes_living_name",
    INDEXES.c.project_id,
    INDEXES.c.name,
    unique=True,
    sqlite_where=_LIVING,
    postgresql_where=_LIVING,
)
Index(
    "indexes_living_port",
    INDEXES.c.port,
    unique=True,
    sqlite_where=_LIVING,
    postgresql_where=_LIVING,
)

LOG_EPOCHS = Table(
    "log_epochs",
    METADATA,
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("log_id", String, nullable=False),
    Column("partitions", Integer, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)

# Without foreign keys: what happened stays known when its project or key is gone.
AUDIT_LOG = Table(
    "audit_log",
    METADATA,
    Column("audit_id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("project_id", String(32), nullable=False),
    Column("key_id", String(32), nullable=False),
    Column("request_id", String, nullable=False),
    Column("action", String, nullable=False),
    Column("resource", String, nullable=False),
    Column("outcome", String, nullable=False),
    Index("audit_log_project", "project_id", "audit_id"),
    Index("audit_log_at", "at_ms"),
)
