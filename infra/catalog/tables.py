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
    LargeBinary,
    MetaData,
    String,
    Table,
    false,
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
    Column("import_tried_ms", BigInteger, nullable=False, server_default="0"),
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

# Who does a job that any process may do. Rows of those who died stay until somebody takes over.
LEASES = Table(
    "leases",
    METADATA,
    Column("name", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("until_ms", BigInteger, nullable=False),
)

# Backups, and collections, which are backups of indexes on pods under a name.
BACKUPS = Table(
    "backups",
    METADATA,
    Column("backup_id", String(32), primary_key=True),
    Column("project_id", String(32), ForeignKey("projects.project_id"), nullable=False),
    Column("kind", String, nullable=False),
    Column("name", String),
    Column("description", String),
    Column("source_index_id", String(32), ForeignKey("indexes.index_id"), nullable=False),
    Column("source_index_name", String(45), nullable=False),
    Column("dimension", Integer),
    Column("metric", String, nullable=False),
    Column("vector_type", String, nullable=False),
    Column("spec", JSON, nullable=False),
    Column("tags", JSON, nullable=False),
    Column("state", String, nullable=False),
    Column("error", String),
    Column("record_count", BigInteger),
    Column("namespace_count", BigInteger),
    Column("size_bytes", BigInteger),
    Column("schedule_id", String(32)),
    Column("expires_ms", BigInteger),
    Column("created_ms", BigInteger, nullable=False),
    Column("ready_ms", BigInteger),
)

_COLLECTION = text("kind = 'collection'")

Index("backups_listed", BACKUPS.c.project_id, BACKUPS.c.created_ms, BACKUPS.c.backup_id)
Index("backups_of_schedule", BACKUPS.c.schedule_id)
Index("backups_state", BACKUPS.c.state)
Index(
    "backups_collection_name",
    BACKUPS.c.project_id,
    BACKUPS.c.name,
    unique=True,
    sqlite_where=_COLLECTION,
    postgresql_where=_COLLECTION,
)

RESTORE_JOBS = Table(
    "restore_jobs",
    METADATA,
    Column("job_id", String(32), primary_key=True),
    Column("project_id", String(32), ForeignKey("projects.project_id"), nullable=False),
    Column("backup_id", String(32), nullable=False),
    Column("target_index_id", String(32), ForeignKey("indexes.index_id"), nullable=False),
    Column("target_index_name", String(45), nullable=False),
    Column("state", String, nullable=False),
    Column("error", String),
    Column("namespaces_done", BigInteger, nullable=False),
    Column("namespaces_total", BigInteger, nullable=False),
    Column("parts_done", Integer, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("completed_ms", BigInteger),
)

Index(
    "restore_jobs_listed",
    RESTORE_JOBS.c.project_id,
    RESTORE_JOBS.c.created_ms,
    RESTORE_JOBS.c.job_id,
)
Index("restore_jobs_state", RESTORE_JOBS.c.state)

BACKUP_SCHEDULES = Table(
    "backup_schedules",
    METADATA,
    Column("schedule_id", String(32), primary_key=True),
    Column("project_id", String(32), ForeignKey("projects.project_id"), nullable=False),
    Column("index_id", String(32), ForeignKey("indexes.index_id"), nullable=False),
    Column("name", String, nullable=False),
    Column("frequency", String, nullable=False),
    Column("retention_days", Integer, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("anchor_ms", BigInteger, nullable=False),
    Column("next_run_ms", BigInteger),
    Column("last_success_ms", BigInteger),
    Column("created_ms", BigInteger, nullable=False),
)

_ENABLED = text("enabled")

Index("backup_schedules_of_index", BACKUP_SCHEDULES.c.index_id)
Index(
    "backup_schedules_one_enabled",
    BACKUP_SCHEDULES.c.index_id,
    unique=True,
    sqlite_where=_ENABLED,
    postgresql_where=_ENABLED,
)

# An import of files into an index; `builder.importing` says what plan and progress hold.
IMPORTS = Table(
    "imports",
    METADATA,
    Column("import_id", String(32), primary_key=True),
    Column("index_id", String(32), ForeignKey("indexes.index_id"), nullable=False),
    Column("uri", String, nullable=False),
    Column("integration", String, nullable=False),
    Column("error_mode", String, nullable=False),
    Column("state", String, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("finished_ms", BigInteger),
    Column("error", String, nullable=False),
    Column("attaching", Boolean, nullable=False),
    Column("cleaned", Boolean, nullable=False),
    Column("progress", JSON, nullable=False),
    Column("plan", LargeBinary),
    Column("last_begun", JSON(none_as_null=True)),
    Column("due_ms", BigInteger, nullable=False, server_default="0"),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("erased", Boolean, nullable=False, server_default=false()),
    Index("imports_of_index", "index_id", "created_ms"),
    Index("imports_open", "cleaned", "state"),
)
