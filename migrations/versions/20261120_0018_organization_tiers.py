"""organizations get a tier

A default that is a constant costs nothing, whatever the number of rows; code that doesn't know the column leaves it be.
Which tiers there are is a setting, not a constraint: one that isn't declared counts as the standard one.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0018"
down_revision: str | None = "0017"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("organizations", sa.Column("tier", sa.Text(), server_default="standard", nullable=False))


def downgrade() -> None:
    op.drop_column("organizations", "tier")
