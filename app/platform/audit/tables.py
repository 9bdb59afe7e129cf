"""The audit log's tables. Triggers refuse every UPDATE, DELETE and TRUNCATE, and the service's role has no right to."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Index, LargeBinary, SmallInteger, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.platform.postgres.base import Base


class AuditEntry(Base):
    """Refers to nothing by foreign key: it outlives what it tells of.

    An organization has LANES chains (see the migration), so that its transactions don't wait for one another.
    """

    __tablename__ = "audit_entries"
    __table_args__ = (
        Index("ix_audit_entries_occurred_at", "organization_id", "occurred_at", "id"),
        Index("ix_audit_entries_action", "organization_id", "action", "occurred_at", "id"),
        Index("ix_audit_entries_actor", "organization_id", "actor_id", "occurred_at", "id"),
        Index("ix_audit_entries_target", "organization_id", "target_id", "occurred_at", "id"),
        # For the checkpoints, which ask for what is new in all organizations.
        Index("ix_audit_entries_recent", "occurred_at", postgresql_using="brin"),
    )

    organization_id: Mapped[UUID] = mapped_column(primary_key=True)
    lane: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    id: Mapped[UUID]
    occurred_at: Mapped[datetime]
    actor_id: Mapped[UUID | None]
    api_key_id: Mapped[UUID | None]
    action: Mapped[str] = mapped_column(Text)
    target_id: Mapped[UUID | None]
    details: Mapped[dict[str, Any]] = mapped_column(JSONB)
    address: Mapped[str] = mapped_column(Text)
    request_id: Mapped[str] = mapped_column(Text)
    key_id: Mapped[str] = mapped_column(Text)
    mac: Mapped[bytes] = mapped_column(LargeBinary)
    hash: Mapped[bytes] = mapped_column(LargeBinary)


class AuditCheckpoint(Base):
    """The signed ends of the chains that grew: `heads` holds [organization_id, lane, sequence, hash in hexadecimal]."""

    __tablename__ = "audit_checkpoints"

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    made_at: Mapped[datetime]
    heads: Mapped[list[list[Any]]] = mapped_column(JSONB)
    key_id: Mapped[str] = mapped_column(Text)
    mac: Mapped[bytes] = mapped_column(LargeBinary)
