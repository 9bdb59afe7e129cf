"""Invitations: who was asked into an organization, and what became of it."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, Text, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.platform.postgres.base import Base, uuid7

PENDING = text("accepted_at IS NULL AND revoked_at IS NULL")


class Invitation(Base):
    """`digest` is that of the token in the mail: none before the mail was written, and the newest one only."""

    __tablename__ = "invitations"
    __table_args__ = (
        Index("uq_invitations_digest", "digest", unique=True),
        Index("uq_invitations_email", "organization_id", "email", unique=True, postgresql_where=PENDING),
        Index("ix_invitations_created_at", "organization_id", "created_at", "id"),
        CheckConstraint("role IN ('owner', 'admin', 'member', 'viewer')", name="role"),
    )

    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id"), primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    email: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(Text)
    digest: Mapped[bytes | None] = mapped_column(LargeBinary)
    invited_by: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    accepted_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
