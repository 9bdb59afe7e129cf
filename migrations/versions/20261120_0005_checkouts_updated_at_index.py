"""checkouts get updated_at: its index

For the list in this order, and for the changes since a moment.
"""

from collections.abc import Sequence

from migrations.operations import create_index_concurrently, drop_index_concurrently

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    create_index_concurrently("ix_checkouts_updated_at", "checkouts", ["organization_id", "updated_at", "id"])


def downgrade() -> None:
    drop_index_concurrently("ix_checkouts_updated_at", "checkouts")
