"""Checkouts: who has what, since when and until when."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, Text, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.platform.postgres.base import Base, uuid7


class Checkout(Base):
    __tablename__ = "checkouts"
    __table_args__ = (
        ForeignKeyConstraint(
            ["organization_id", "equipment_id"], ["equipment.organization_id", "equipment.id"], ondelete="CASCADE"
        ),
        CheckConstraint("returned_at >= checked_out_at", name="returned_after"),
        # The rule that an item is out at most once, kept by the database whatever runs at the same time.
        Index(
            "uq_checkouts_open",
            "organization_id",
            "equipment_id",
            unique=True,
            postgresql_where=text("returned_at IS NULL"),
        ),
        Index("ix_checkouts_checked_out_at", "organization_id", "checked_out_at", "id"),
        Index("ix_checkouts_updated_at", "organization_id", "updated_at", "id"),
        Index("ix_checkouts_due_at", "organization_id", "due_at", "id"),
        Index("ix_checkouts_equipment", "organization_id", "equipment_id", "checked_out_at", "id"),
        Index("ix_checkouts_user", "organization_id", "user_id", "checked_out_at", "id"),
        Index(
            "ix_checkouts_open_due_at", "organization_id", "due_at", "id", postgresql_where=text("returned_at IS NULL")
        ),
    )

    organization_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    equipment_id: Mapped[UUID]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    checked_out_at: Mapped[datetime] = mapped_column(server_default=func.now())
    due_at: Mapped[datetime]
    returned_at: Mapped[datetime | None]
    note: Mapped[str] = mapped_column(Text, server_default="")
    condition: Mapped[str | None] = mapped_column(Text)
    return_note: Mapped[str | None] = mapped_column(Text)
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
