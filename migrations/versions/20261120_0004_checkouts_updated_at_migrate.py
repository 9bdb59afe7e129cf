"""checkouts get updated_at: migrate

The rows from before the column. A checkout changes once, when it is returned.
"""

from collections.abc import Sequence

from migrations.operations import backfill

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    backfill(
        "checkouts",
        key=("organization_id", "id"),
        assignment="updated_at = coalesce(returned_at, checked_out_at)",
        where="updated_at IS NULL",
    )


def downgrade() -> None:
    """The values are right; they go with their column."""
