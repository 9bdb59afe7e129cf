"""checkouts get updated_at: expand

The first of the steps that docs/patterns/migrations.md follows. Code that doesn't know the column goes on writing: the
default fills it for new rows, the trigger for changed ones. The rows that are there stay NULL: a default given together
with the column would tell of each that it was changed just now.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

TOUCH = """
CREATE FUNCTION touch_checkout() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END $$
"""
BRIDGE = """
CREATE TRIGGER touch_checkout BEFORE UPDATE OF returned_at ON checkouts
FOR EACH ROW EXECUTE FUNCTION touch_checkout()
"""


def upgrade() -> None:
    op.add_column("checkouts", sa.Column("updated_at", sa.TIMESTAMP(timezone=True), nullable=True))
    op.alter_column("checkouts", "updated_at", server_default=sa.text("now()"))
    op.execute(TOUCH)
    op.execute(BRIDGE)


def downgrade() -> None:
    op.execute("DROP TRIGGER touch_checkout ON checkouts")
    op.execute("DROP FUNCTION touch_checkout()")
    op.drop_column("checkouts", "updated_at")
