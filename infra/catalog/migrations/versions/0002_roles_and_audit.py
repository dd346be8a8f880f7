"""Three roles, keys that expire and rotate, projects that go, and the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ROLES = {"editor": "admin", "viewer": "read-only"}


def upgrade() -> None:
    for old, new in ROLES.items():
        _rename_role(old, new)
    op.add_column("api_keys", sa.Column("expires_ms", sa.BigInteger))
    op.add_column("projects", sa.Column("deleted_ms", sa.BigInteger))
    op.create_table(
        "retired_secrets",
        sa.Column("key_hash", sa.String(64), primary_key=True),
        sa.Column("key_id", sa.String(32), sa.ForeignKey("api_keys.key_id"), nullable=False),
        sa.Column("valid_until_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("retired_secrets_key", "retired_secrets", ["key_id"])
    op.create_table(
        "audit_log",
        # On SQLite only an INTEGER primary key counts up by itself.
        sa.Column("audit_id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("project_id", sa.String(32), nullable=False),
        sa.Column("key_id", sa.String(32), nullable=False),
        sa.Column("request_id", sa.String, nullable=False),
        sa.Column("action", sa.String, nullable=False),
        sa.Column("resource", sa.String, nullable=False),
        sa.Column("outcome", sa.String, nullable=False),
    )
    op.create_index("audit_log_project", "audit_log", ["project_id", "audit_id"])
    op.create_index("audit_log_at", "audit_log", ["at_ms"])


def downgrade() -> None:
    op.drop_table("audit_log")
    op.drop_table("retired_secrets")
    op.drop_column("projects", "deleted_ms")
    op.drop_column("api_keys", "expires_ms")
    _rename_role("read-write", "editor")
    for old, new in ROLES.items():
        _rename_role(new, old)


def _rename_role(before: str, after: str) -> None:
    keys = sa.table("api_keys", sa.column("role", sa.String))
    op.execute(sa.update(keys).where(keys.c.role == before).values(role=after))
