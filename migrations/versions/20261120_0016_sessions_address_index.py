"""where a user has logged in from: its index"""

from collections.abc import Sequence

from migrations.operations import create_index_concurrently, drop_index_concurrently

revision: str = "0016"
down_revision: str | None = "0015"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

INDEX = "ix_sessions_address"


def upgrade() -> None:
    create_index_concurrently(INDEX, "sessions", ["organization_id", "user_id", "address"])


def downgrade() -> None:
    drop_index_concurrently(INDEX, "sessions")
