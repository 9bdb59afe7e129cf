"""Every query about invitations."""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.features.identity.models import User
from app.features.organizations.invitation_schemas import OWN_FIELDS, InvitationsQuery
from app.features.organizations.models import Invitation
from app.platform.http.pagination import Listing, Slice, Window
from app.platform.http.totals import total_of

LISTING = Listing(
    name="invitations",
    sorts={"created_at": Invitation.created_at},
    default_sort="-created_at",
    tiebreak=Invitation.id,
)
IS_UNDECIDED = Invitation.accepted_at.is_(None) & Invitation.revoked_at.is_(None)
IS_OPEN = IS_UNDECIDED & (Invitation.expires_at > func.now())
Row = dict[str, Any]


def columns(fields: Collection[str]) -> list[Any]:
    return [getattr(Invitation, name) for name in fields]


class InvitationRepository:
    """Sees one organization only."""

    def __init__(self, session: AsyncSession, organization_id: UUID) -> None:
        self.session = session
        self.organization_id = organization_id

    def matching(self, query: InvitationsQuery, fields: Sequence[str] = ("id",)) -> Select[Any]:
        """All invitations, unordered."""
        return select(*columns(fields)).where(self._own)

    async def page(self, query: InvitationsQuery, fields: Sequence[str], window: Window) -> Slice:
        rows = await self.session.execute(window.apply(self.matching(query, fields)))
        return window.slice(
            rows.mappings().all(), await total_of(self.session, lambda: self.matching(query), query.total)
        )

    async def open_count(self) -> int:
        return int(await self.session.scalar(select(func.count()).where(self._own, IS_OPEN)) or 0)

    async def end_expired(self, email: str) -> None:
        """So that the address can be invited again."""
        expired = update(Invitation).where(
            self._own, Invitation.email == email, IS_UNDECIDED, Invitation.expires_at <= func.now()
        )
        await self.session.execute(expired.values(revoked_at=Invitation.expires_at))

    async def add(self, **values: Any) -> Row:
        """Raises `sqlalchemy.exc.IntegrityError` where the address is invited already."""
        statement = insert(Invitation).values(organization_id=self.organization_id, **values)
        return dict((await self.session.execute(statement.returning(*columns(OWN_FIELDS)))).mappings().one())

    async def revoke(self, invitation_id: UUID) -> bool:
        """Whether there was an open one."""
        return await self._change(invitation_id, revoked_at=func.now())

    async def set_digest(self, invitation_id: UUID, digest: bytes) -> bool:
        """Whether there was an open one."""
        return await self._change(invitation_id, digest=digest)

    async def _change(self, invitation_id: UUID, **values: Any) -> bool:
        statement = update(Invitation).where(self._own, Invitation.id == invitation_id, IS_OPEN)
        return (await self.session.scalar(statement.values(**values).returning(Invitation.id))) is not None

    @property
    def _own(self) -> ColumnElement[bool]:
        return Invitation.organization_id == self.organization_id


async def find(session: AsyncSession, digest: bytes) -> Row | None:
    """The open invitation of this token, whichever organization it is of."""
    statement = select(Invitation.email).where(Invitation.digest == digest, IS_OPEN)
    row = (await session.execute(statement)).mappings().one_or_none()
    return None if row is None else dict(row)


async def accept(session: AsyncSession, digest: bytes) -> Row | None:
    """Of any number who send the token at once, for one."""
    statement = update(Invitation).where(Invitation.digest == digest, IS_OPEN).values(accepted_at=func.now())
    found = (Invitation.organization_id, Invitation.id, Invitation.email, Invitation.role)
    row = (await session.execute(statement.returning(*found))).mappings().one_or_none()
    return None if row is None else dict(row)


async def add_member(session: AsyncSession, **values: Any) -> UUID:
    """Whose address the mail has verified. Raises `sqlalchemy.exc.IntegrityError` where it has an account."""
    statement = insert(User).values(**values, email_verified_at=func.now())
    return (await session.execute(statement.returning(User.id))).scalar_one()
