"""Projects, API keys, indexes, log epochs."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "projects",
        sa.Column("project_id", sa.String(32), primary_key=True),
        sa.Column("name", sa.String, nullable=False, unique=True),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.String(32), primary_key=True),
        sa.Column(
            "project_id", sa.String(32), sa.ForeignKey("projects.project_id"), nullable=False
        ),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("prefix", sa.String, nullable=False),
        sa.Column("key_hash", sa.String(64), nullable=False, unique=True),
        sa.Column("role", sa.String, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("revoked_ms", sa.BigInteger),
    )
    op.create_table(
        "indexes",
        sa.Column("index_id", sa.String(32), primary_key=True),
        sa.Column(
            "project_id", sa.String(32), sa.ForeignKey("projects.project_id"), nullable=False
        ),
        sa.Column("name", sa.String(45), nullable=False),
        sa.Column("dimension", sa.Integer),
        sa.Column("metric", sa.String, nullable=False),
        sa.Column("vector_type", sa.String, nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("deletion_protection", sa.Boolean, nullable=False),
        sa.Column("tags", sa.JSON, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("port", sa.Integer),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("deleted_ms", sa.BigInteger),
    )
    living = sa.text("state <> 'Deleted'")
    op.create_index(
        "indexes_living_name",
        "indexes",
        ["project_id", "name"],
        unique=True,
        sqlite_where=living,
        postgresql_where=living,
    )
    op.create_index(
        "indexes_living_port",
        "indexes",
        ["port"],
        unique=True,
        sqlite_where=living,
        postgresql_where=living,
    )
    op.create_table(
        "log_epochs",
        sa.Column("epoch", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("log_id", sa.String, nullable=False),
        sa.Column("partitions", sa.Integer, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    for table in ("log_epochs", "indexes", "api_keys", "projects"):
        op.drop_table(table)
