"""Orders of mail: written in the transaction of what the mail tells of, carried out once that lasts.

An order says what kind of mail and for whom, not what is in it: the worker writes the text when it sends, so that no
link that logs in lies in the database. At least once: an order is gone when its mail was accepted, or refused for good.
"""

import random
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Index, Text, delete, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.platform.postgres import WriteSession
from app.platform.postgres.base import Base, uuid7

LEASE = timedelta(seconds=60)  # longer than a mail may take to be sent
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 5, 3_600
MOST_ATTEMPTS = 16  # over about ten hours; then the order is left for people to look at


class MailOrder(Base):
    """`failed_because`: no more attempts."""

    __tablename__ = "mail_orders"
    __table_args__ = (Index("ix_mail_orders_due", "due_at", postgresql_where=text("failed_because IS NULL")),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid7)
    kind: Mapped[str] = mapped_column(Text)
    details: Mapped[dict[str, Any]] = mapped_column(JSONB)
    attempts: Mapped[int] = mapped_column(server_default="0")
    due_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    failed_because: Mapped[str | None] = mapped_column(Text)


class Order(NamedTuple):
    id: UUID
    kind: str
    details: dict[str, Any]
    attempts: int


async def order_mail(session: WriteSession, kind: str, **details: Any) -> None:
    """`details` are kept in clear: ids and addresses, nothing that is secret."""
    await session.execute(insert(MailOrder).values(kind=kind, details=details))


async def claim(session: WriteSession) -> Order | None:
    """The next order that is due, for whoever asks first; due again when the lease is over."""
    waiting = MailOrder.failed_because.is_(None), MailOrder.due_at <= func.now()
    oldest = select(MailOrder.id).where(*waiting).order_by(MailOrder.due_at).limit(1).with_for_update(skip_locked=True)
    claimed = (
        update(MailOrder)
        .where(MailOrder.id == oldest.scalar_subquery())
        .values(due_at=func.now() + LEASE, attempts=MailOrder.attempts + 1)
        .returning(MailOrder.id, MailOrder.kind, MailOrder.details, MailOrder.attempts)
    )
    row = (await session.execute(claimed)).one_or_none()
    return None if row is None else Order._make(row)


async def done(session: WriteSession, order: Order) -> None:
    await session.execute(delete(MailOrder).where(MailOrder.id == order.id))


async def postpone(session: WriteSession, order: Order) -> None:
    wait = timedelta(seconds=pause_seconds(order.attempts))
    await session.execute(update(MailOrder).where(MailOrder.id == order.id).values(due_at=func.now() + wait))


async def give_up(session: WriteSession, order: Order, because: str) -> None:
    await session.execute(update(MailOrder).where(MailOrder.id == order.id).values(failed_because=because[:200]))


def pause_seconds(attempts: int) -> float:
    """Twice as long after each attempt, and up to half of that more or less, so that many don't come back at once."""
    pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(attempts - 1, 20))
    return pause * random.uniform(0.5, 1.5)
