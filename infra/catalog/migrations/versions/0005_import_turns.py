"""Turns of imports and projects, what attaches go by, and what was cleaned once."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("imports", sa.Column("last_begun", sa.JSON))
    for column, kind, value in (
        ("due_ms", sa.BigInteger(), sa.text("0")),
        ("tries", sa.Integer(), sa.text("0")),
        ("erased", sa.Boolean(), sa.false()),
    ):
        op.add_column("imports", sa.Column(column, kind, nullable=False, server_default=value))
    tried = sa.Column("import_tried_ms", sa.BigInteger, nullable=False, server_default=sa.text("0"))
    op.add_column("projects", tried)


def downgrade() -> None:
    op.drop_column("projects", "import_tried_ms")
    for column in ("erased", "tries", "due_ms", "last_begun"):
        op.drop_column("imports", column)
