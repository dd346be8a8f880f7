"""Leases, backups and collections, restore jobs, backup schedules."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("until_ms", sa.BigInteger, nullable=False),
    )
    _backups()
    _restore_jobs()
    _schedules()


def _backups() -> None:
    op.create_table(
        "backups",
        sa.Column("backup_id", sa.String(32), primary_key=True),
        sa.Column(
            "project_id", sa.String(32), sa.ForeignKey("projects.project_id"), nullable=False
        ),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("name", sa.String),
        sa.Column("description", sa.String),
        sa.Column(
            "source_index_id", sa.String(32), sa.ForeignKey("indexes.index_id"), nullable=False
        ),
        sa.Column("source_index_name", sa.String(45), nullable=False),
        sa.Column("dimension", sa.Integer),
        sa.Column("metric", sa.String, nullable=False),
        sa.Column("vector_type", sa.String, nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("error", sa.String),
        sa.Column("record_count", sa.BigInteger),
        sa.Column("namespace_count", sa.BigInteger),
        sa.Column("size_bytes", sa.BigInteger),
        sa.Column("schedule_id", sa.String(32)),
        sa.Column("expires_ms", sa.BigInteger),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("ready_ms", sa.BigInteger),
    )
    op.create_index("backups_listed", "backups", ["project_id", "created_ms", "backup_id"])
    op.create_index("backups_of_schedule", "backups", ["schedule_id"])
    op.create_index("backups_state", "backups", ["state"])
    collection = sa.text("kind = 'collection'")
    op.create_index(
        "backups_collection_name",
        "backups",
        ["project_id", "name"],
        unique=True,
        sqlite_where=collection,
        postgresql_where=collection,
    )


def _restore_jobs() -> None:
    op.create_table(
        "restore_jobs",
        sa.Column("job_id", sa.String(32), primary_key=True),
        sa.Column(
            "project_id", sa.String(32), sa.ForeignKey("projects.project_id"), nullable=False
        ),
        sa.Column("backup_id", sa.String(32), nullable=False),
        sa.Column(
            "target_index_id", sa.String(32), sa.ForeignKey("indexes.index_id"), nullable=False
        ),
        sa.Column("target_index_name", sa.String(45), nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("error", sa.String),
        sa.Column("namespaces_done", sa.BigInteger, nullable=False),
        sa.Column("namespaces_total", sa.BigInteger, nullable=False),
        sa.Column("parts_done", sa.Integer, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("completed_ms", sa.BigInteger),
    )
    op.create_index("restore_jobs_listed", "restore_jobs", ["project_id", "created_ms", "job_id"])
    op.create_index("restore_jobs_state", "restore_jobs", ["state"])


def _schedules() -> None:
    op.create_table(
        "backup_schedules",
        sa.Column("schedule_id", sa.String(32), primary_key=True),
        sa.Column(
            "project_id", sa.String(32), sa.ForeignKey("projects.project_id"), nullable=False
        ),
        sa.Column("index_id", sa.String(32), sa.ForeignKey("indexes.index_id"), nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("frequency", sa.String, nullable=False),
        sa.Column("retention_days", sa.Integer, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("anchor_ms", sa.BigInteger, nullable=False),
        sa.Column("next_run_ms", sa.BigInteger),
        sa.Column("last_success_ms", sa.BigInteger),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("backup_schedules_of_index", "backup_schedules", ["index_id"])
    enabled = sa.text("enabled")
    op.create_index(
        "backup_schedules_one_enabled",
        "backup_schedules",
        ["index_id"],
        unique=True,
        sqlite_where=enabled,
        postgresql_where=enabled,
    )


def downgrade() -> None:
    for table in ("backup_schedules", "restore_jobs", "backups", "leases"):
        op.drop_table(table)
