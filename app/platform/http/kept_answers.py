"""The table of idempotency keys: what was answered to each, and how the answer is found again.

Partitioned by the day of the week, in UTC. Answers are kept for 24 hours, so that only the partitions of today and
yesterday are read; the others are emptied by TRUNCATE, at any time before their day comes round again.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ARRAY, Executable, LargeBinary, Result, Select, SmallInteger, Text, func, select, text
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.orm import Mapped, mapped_column

from app.platform.postgres import WriteSession
from app.platform.postgres.base import Base

IDENTITY = ("organization_id", "user_id", "key", "weekday")


class IdempotencyKey(Base):
    """Old ones, not emptied yet, are overwritten by their successors."""

    __tablename__ = "idempotency_keys"
    __table_args__ = {"postgresql_partition_by": "LIST (weekday)"}

    organization_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    weekday: Mapped[int] = mapped_column(
        SmallInteger, primary_key=True, server_default=text("extract(dow FROM now() AT TIME ZONE 'UTC')")
    )
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary)
    status: Mapped[int] = mapped_column(SmallInteger)
    headers: Mapped[list[list[str]]] = mapped_column(JSONB)
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class KeyOwner(NamedTuple):
    """Two owners may use the same key for different things."""

    organization_id: UUID
    user_id: UUID


class KeptAnswer(NamedTuple):
    """`body` is None where it was not kept; `tags` name what the request changed."""

    fingerprint: bytes
    status: int
    headers: list[list[str]]
    body: bytes | None
    tags: list[str]


def claim(owner: KeyOwner, key: str) -> Select[Any]:
    """Takes the key until the transaction ends, and finds its answer, in one round trip.

    Waits for another transaction that has the key, up to `lock_timeout`. The COMMIT that follows an answer found waits
    for the synchronous standby, as that of the answer's own transaction did.
    """
    claimed = func.claim_idempotency_key(owner.organization_id, owner.user_id, key)
    columns = [IdempotencyKey.__table__.c[name] for name in KeptAnswer._fields]
    return select(*claimed.table_valued(*columns).c)


def found(rows: Result[Any]) -> KeptAnswer | None:
    row = rows.one_or_none()
    return None if row is None else KeptAnswer._make(row)


async def keep(session: WriteSession, owner: KeyOwner, key: str, answer: KeptAnswer) -> None:
    values = {**owner._asdict(), "key": key, **answer._asdict()}
    await session.execute(_overwriting_insert(values))


def _overwriting_insert(values: Mapping[str, Any]) -> Executable:
    statement = insert(IdempotencyKey).values(**values)
    renewed = {name: statement.excluded[name] for name in (*KeptAnswer._fields, "created_at")}
    return statement.on_conflict_do_update(index_elements=IDENTITY, set_=renewed)


async def expire(session: WriteSession) -> None:
    """Empties the partitions of days long past. Gives up after 100 ms where a lock is not free."""
    await session.execute(select(func.expire_idempotency_keys()))
