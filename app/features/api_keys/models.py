"""API keys: what is known of them, and never themselves."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, LargeBinary, SmallInteger, Text, func, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from app.platform.postgres.base import Base, uuid7

LIVE = text("revoked_at IS NULL")


class ApiKey(Base):
    __tablename__ = "api_keys"
    __table_args__ = (
        # A request comes with the key alone: which organization it belongs to is found out by it.
        Index("uq_api_keys_digest", "digest", unique=True),
        # Two slots for each name: the key in use, and its successor.
        Index("uq_api_keys_slot", "organization_id", "name", "slot", unique=True, postgresql_where=LIVE),
        Index("ix_api_keys_created_at", "organization_id", "created_at", "id"),
        Index("ix_api_keys_name", "organization_id", "name", "id"),
        Index("ix_api_keys_user", "organization_id", "user_id", "created_at", "id"),
        CheckConstraint("slot IN (0, 1)", name="slot"),
    )

    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id"), primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str] = mapped_column(Text)
    slot: Mapped[int] = mapped_column(SmallInteger)
    prefix: Mapped[str] = mapped_column(Text)
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
