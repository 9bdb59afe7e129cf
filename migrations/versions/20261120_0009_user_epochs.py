"""users get a token epoch

A default that is a constant costs nothing, whatever the number of rows; code that doesn't know the column leaves it be.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("users", sa.Column("token_epoch", sa.Integer(), server_default="0", nullable=False))
    op.add_column("users", sa.Column("disabled_at", sa.TIMESTAMP(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("users", "disabled_at")
    op.drop_column("users", "token_epoch")
