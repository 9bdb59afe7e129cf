"""checkouts get updated_at: contract, the rule

Code that writes checkouts without the column may still run: default and trigger fill it.
"""

from collections.abc import Sequence

from alembic import op

from migrations.operations import set_not_null

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    set_not_null("checkouts", "updated_at")


def downgrade() -> None:
    op.alter_column("checkouts", "updated_at", nullable=True)
