"""Organizations and their people: small tables, copied everywhere where the others are distributed by organization."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, LargeBinary, Text, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.platform.postgres.base import Base, uuid7
from app.platform.security.caller import STANDARD_TIER


class Organization(Base):
    __tablename__ = "organizations"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    name: Mapped[str] = mapped_column(Text)
    tier: Mapped[str] = mapped_column(Text, server_default=STANDARD_TIER)  # of rate limits: what the plan pays for
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class User(Base):
    __tablename__ = "users"
    __table_args__ = (
        # Logging in starts from the e-mail alone, so it is unique over all organizations.
        Index("uq_users_email", "email", unique=True),
        Index("ix_users_organization_id", "organization_id", "id"),
        CheckConstraint("role IN ('owner', 'admin', 'member', 'viewer')", name="role"),
        CheckConstraint("email = lower(email)", name="email_lower"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    organization_id: Mapped[UUID] = mapped_column(ForeignKey(Organization.id))
    email: Mapped[str] = mapped_column(Text)
    full_name: Mapped[str] = mapped_column(Text)
    role: Mapped[str] = mapped_column(Text)
    password_hash: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    token_epoch: Mapped[int] = mapped_column(server_default="0")  # counted up with each change of what they may do
    disabled_at: Mapped[datetime | None]
    email_verified_at: Mapped[datetime | None]


class Session(Base):
    """A log-in, and the family of refresh tokens that goes on from it. `ended_because` is for its owner to read."""

    __tablename__ = "sessions"
    __table_args__ = (
        Index(
            "ix_sessions_live", "organization_id", "user_id", "created_at", postgresql_where=text("ended_at IS NULL")
        ),
        Index("ix_sessions_address", "organization_id", "user_id", "address"),
        Index("ix_sessions_expires_at", "expires_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    organization_id: Mapped[UUID]
    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    salt: Mapped[bytes] = mapped_column(LargeBinary)
    token_hash: Mapped[bytes] = mapped_column(LargeBinary)
    previous_hash: Mapped[bytes | None] = mapped_column(LargeBinary)
    previous_repeated: Mapped[bool] = mapped_column(server_default="false")
    rotated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_used_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    ended_because: Mapped[str | None] = mapped_column(Text)
    device: Mapped[str] = mapped_column(Text)
    address: Mapped[str] = mapped_column(Text)


class SingleUseToken(Base):
    """Sent by mail, to who can read what is sent to a user's address. Gone once it is used."""

    __tablename__ = "single_use_tokens"
    __table_args__ = (
        Index("ix_single_use_tokens_user_id", "user_id", "purpose", "created_at"),
        Index("ix_single_use_tokens_expires_at", "expires_at"),
    )

    token_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    purpose: Mapped[str] = mapped_column(Text)
    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]


class SecondFactor(Base):
    """`last_step`: the time step of the last code that was used; none up to it is taken again."""

    __tablename__ = "second_factors"

    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), primary_key=True)
    sealed_secret: Mapped[bytes] = mapped_column(LargeBinary)
    last_step: Mapped[int] = mapped_column(BigInteger, server_default="0")
    enabled_at: Mapped[datetime | None]


class RecoveryCode(Base):
    """Gone once it is used."""

    __tablename__ = "recovery_codes"

    user_id: Mapped[UUID] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"), primary_key=True)
    code_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
