"""Imports of files."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "imports",
        sa.Column("import_id", sa.String(32), primary_key=True),
        sa.Column("index_id", sa.String(32), sa.ForeignKey("indexes.index_id"), nullable=False),
        sa.Column("uri", sa.String, nullable=False),
        sa.Column("integration", sa.String, nullable=False),
        sa.Column("error_mode", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("finished_ms", sa.BigInteger),
        sa.Column("error", sa.String, nullable=False),
        sa.Column("attaching", sa.Boolean, nullable=False),
        sa.Column("cleaned", sa.Boolean, nullable=False),
        sa.Column("progress", sa.JSON, nullable=False),
        sa.Column("plan", sa.LargeBinary),
    )
    op.create_index("imports_of_index", "imports", ["index_id", "created_ms"])
    op.create_index("imports_open", "imports", ["cleaned", "state"])


def downgrade() -> None:
    op.drop_table("imports")
