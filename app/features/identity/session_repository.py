"""Every query about sessions."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.features.identity.models import Organization, Session, User
from app.features.identity.repository import Row
from app.platform.postgres import repository

SHOWN = (Session.id, Session.device, Session.address, Session.created_at, Session.last_used_at, Session.expires_at)
NOW = func.clock_timestamp()  # not the transaction's begin: it may have waited for a lock; no index is looked up by it


@repository
class SessionRepository:
    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def add(self, lasts: timedelta, **values: Any) -> None:
        await self.session.execute(insert(Session).values(expires_at=NOW + lasts, **values))

    async def locked(self, session_id: UUID) -> Row | None:
        """A session with its user, for this transaction alone to change; times as seconds ago."""
        statement = (
            select(
                User.id,
                Session.salt,
                Session.token_hash,
                Session.previous_hash,
                Session.previous_repeated,
                Session.ended_at,
                User.organization_id,
                User.role,
                User.token_epoch,
                User.disabled_at,
                Organization.tier,
                func.extract("epoch", NOW - Session.rotated_at).label("rotated_ago"),
                func.extract("epoch", NOW - Session.last_used_at).label("used_ago"),
                func.extract("epoch", Session.expires_at - NOW).label("expires_in"),
            )
            .join(User, User.id == Session.user_id)
            .join(Organization, Organization.id == User.organization_id)
            .where(Session.id == session_id)
            .with_for_update(of=Session)
        )
        row = (await self.session.execute(statement)).mappings().one_or_none()
        return None if row is None else dict(row)

    async def rotate(self, session_id: UUID, *, previous: bytes, digest: bytes, address: str) -> None:
        values = {"previous_hash": previous, "token_hash": digest, "previous_repeated": False, "address": address}
        await self._update(session_id, **values, rotated_at=NOW, last_used_at=NOW)

    async def mark_repeated(self, session_id: UUID) -> None:
        await self._update(session_id, previous_repeated=True)

    async def live(self, organization_id: UUID, user_id: UUID, idle: timedelta) -> Sequence[Row]:
        """The newest first."""
        statement = select(*SHOWN).where(*self._live(organization_id, user_id), Session.last_used_at > NOW - idle)
        rows = await self.session.execute(statement.order_by(Session.created_at.desc()))
        return [dict(row) for row in rows.mappings()]

    async def oldest_beyond(self, organization_id: UUID, user_id: UUID, most: int) -> Sequence[UUID]:
        statement = select(Session.id).where(*self._live(organization_id, user_id))
        newest_first = statement.order_by(Session.created_at.desc(), Session.id.desc())
        return (await self.session.scalars(newest_first.offset(most))).all()

    async def end(
        self, organization_id: UUID, user_id: UUID, because: str, only: Sequence[UUID] | None = None
    ) -> Sequence[UUID]:
        """The ids of those that have ended by this: all of the user's that are live, or these of them."""
        where = [*self._live(organization_id, user_id)]
        if only is not None:
            where.append(Session.id.in_(only))
        statement = update(Session).where(*where).values(ended_at=NOW, ended_because=because).returning(Session.id)
        return (await self.session.scalars(statement)).all()

    async def forget(self) -> None:
        """Those that are past the end of their time, whether or not they were ended before."""
        await self.session.execute(delete(Session).where(Session.expires_at < func.now()))

    async def _update(self, session_id: UUID, **values: Any) -> None:
        await self.session.execute(update(Session).where(Session.id == session_id).values(**values))

    @staticmethod
    def _live(organization_id: UUID, user_id: UUID) -> tuple[Any, ...]:
        own = (Session.organization_id == organization_id, Session.user_id == user_id)
        return (*own, Session.ended_at.is_(None), Session.expires_at > NOW)
