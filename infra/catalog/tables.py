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
