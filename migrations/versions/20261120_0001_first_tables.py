"""first tables

Expand, migrate, contract: this revision has to be safe while the code before it and the code after it both run.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


# Punctuation becomes blanks, or the parser would read CAM-001 as "cam" and the number -001.
SEARCH_DOCUMENT = " || ".join(
    f"setweight(to_tsvector('simple', translate({columns}, '-_./', '    ')), '{weight}')"
    for columns, weight in (
        ("asset_tag || ' ' || name", "A"),
        ("category || ' ' || location", "B"),
        ("description", "C"),
    )
)


def upgrade() -> None:
    # Lets a uuid lead a GIN index. A trusted extension: the database's owner may create it.
    op.execute("CREATE EXTENSION IF NOT EXISTS btree_gin")
    op.create_table(
        "organizations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_organizations")),
    )
    op.create_table(
        "equipment",
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("asset_tag", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="available", nullable=False),
        sa.Column("location", sa.Text(), server_default="", nullable=False),
        sa.Column("tags", postgresql.ARRAY(sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column(
            "attributes", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False
        ),
        sa.Column("purchase_price", sa.Numeric(precision=14, scale=2), nullable=True),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("search", postgresql.TSVECTOR(), sa.Computed(SEARCH_DOCUMENT, persisted=True), nullable=False),
        sa.CheckConstraint(
            "status IN ('available', 'checked_out', 'maintenance', 'retired')", name=op.f("ck_equipment_status")
        ),
        sa.CheckConstraint("purchase_price >= 0", name=op.f("ck_equipment_purchase_price_positive")),
        sa.ForeignKeyConstraint(["organization_id"], ["organizations.id"], name=op.f("fk_equipment_organization_id")),
        sa.PrimaryKeyConstraint("organization_id", "id", name=op.f("pk_equipment")),
    )
    op.create_index("ix_equipment_category", "equipment", ["organization_id", "category", "name", "id"])
    op.create_index("ix_equipment_created_at", "equipment", ["organization_id", "created_at", "id"])
    op.create_index("ix_equipment_location", "equipment", ["organization_id", "location", "name", "id"])
    op.create_index("ix_equipment_name", "equipment", ["organization_id", "name", "id"])
    op.create_index("ix_equipment_search", "equipment", ["organization_id", "search"], postgresql_using="gin")
    op.create_index("ix_equipment_status", "equipment", ["organization_id", "status", "name", "id"])
    op.create_index("ix_equipment_tags", "equipment", ["organization_id", "tags"], postgresql_using="gin")
    op.create_index("ix_equipment_updated_at", "equipment", ["organization_id", "updated_at", "id"])
    op.create_index("uq_equipment_asset_tag", "equipment", ["organization_id", "asset_tag"], unique=True)
    op.create_table(
        "users",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("full_name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("role IN ('owner', 'admin', 'member', 'viewer')", name=op.f("ck_users_role")),
        sa.CheckConstraint("email = lower(email)", name=op.f("ck_users_email_lower")),
        sa.ForeignKeyConstraint(["organization_id"], ["organizations.id"], name=op.f("fk_users_organization_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
    )
    op.create_index("ix_users_organization_id", "users", ["organization_id", "id"])
    op.create_index("uq_users_email", "users", ["email"], unique=True)
    op.create_table(
        "checkouts",
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("equipment_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("checked_out_at", sa.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("due_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("returned_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("note", sa.Text(), server_default="", nullable=False),
        sa.Column("condition", sa.Text(), nullable=True),
        sa.Column("return_note", sa.Text(), nullable=True),
        sa.CheckConstraint("returned_at >= checked_out_at", name=op.f("ck_checkouts_returned_after")),
        sa.ForeignKeyConstraint(
            ["organization_id", "equipment_id"],
            ["equipment.organization_id", "equipment.id"],
            name=op.f("fk_checkouts_organization_id_equipment_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_checkouts_user_id")),
        sa.PrimaryKeyConstraint("organization_id", "id", name=op.f("pk_checkouts")),
    )
    op.create_index("ix_checkouts_checked_out_at", "checkouts", ["organization_id", "checked_out_at", "id"])
    op.create_index("ix_checkouts_due_at", "checkouts", ["organization_id", "due_at", "id"])
    op.create_index("ix_checkouts_equipment", "checkouts", ["organization_id", "equipment_id", "checked_out_at", "id"])
    op.create_index(
        "ix_checkouts_open_due_at",
        "checkouts",
        ["organization_id", "due_at", "id"],
        postgresql_where=sa.text("returned_at IS NULL"),
    )
    op.create_index("ix_checkouts_user", "checkouts", ["organization_id", "user_id", "checked_out_at", "id"])
    op.create_index(
        "uq_checkouts_open",
        "checkouts",
        ["organization_id", "equipment_id"],
        unique=True,
        postgresql_where=sa.text("returned_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("checkouts")
    op.drop_table("users")
    op.drop_table("equipment")
    op.drop_table("organizations")
    op.execute("DROP EXTENSION IF EXISTS btree_gin")
