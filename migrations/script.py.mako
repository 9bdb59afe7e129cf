"""${message}

Old code and new code both run while this is applied and after it: expand, migrate, contract are revisions of their own
(docs/patterns/migrations.md). One table per revision; constraints NOT VALID first; what takes time on a large table
goes through `migrations.operations`, alone in its revision.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}

revision: str = ${repr(up_revision)}
down_revision: str | None = ${repr(down_revision)}
branch_labels: str | Sequence[str] | None = ${repr(branch_labels)}
depends_on: str | Sequence[str] | None = ${repr(depends_on)}


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
