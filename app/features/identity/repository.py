"""Every query about organizations and people."""

from typing import Any
from uuid import UUID

from sqlalchemy import Executable, Text, insert, literal, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncSession

from app.features.identity.models import Organization, Session, User
from app.platform.postgres import repository

Row = dict[str, Any]
USERS = select(
    User.id,
    User.email,
    User.full_name,
    User.role,
    User.organization_id,
    Organization.name.label("organization"),
    User.created_at,
    User.email_verified_at.is_not(None).label("email_verified"),
).join(Organization, Organization.id == User.organization_id)
ACCOUNTS = USERS.add_columns(
    Organization.tier, User.password_hash, User.token_epoch, User.disabled_at, User.email_verified_at
)


@repository
class IdentityRepository:
    """Looks people up by e-mail or id alone: logging in is where the organization is still unknown."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def add_owner(self, organization: str, **person: Any) -> bool:
        """Somebody with an organization of that name: both, or neither (False) where the e-mail is taken.

        One statement in either case, so that its time doesn't tell which.
        """
        free = postgresql.insert(User).values(**person).on_conflict_do_nothing(index_elements=[User.email])
        added = free.returning(User.organization_id).cte("added")
        named = select(added.c.organization_id, literal(organization, Text))
        statement = insert(Organization).from_select(["id", "name"], named).returning(Organization.id)
        return await self.session.scalar(statement) is not None

    async def user_by_email(self, email: str, address: str = "") -> Row | None:
        """`known_address`: whether one of their sessions was there."""
        known = select(Session.id).where(
            Session.organization_id == User.organization_id, Session.user_id == User.id, Session.address == address
        )
        return await self._one(ACCOUNTS.add_columns(known.exists().label("known_address")).where(User.email == email))

    async def user_by_id(self, user_id: UUID) -> Row | None:
        return await self._one(ACCOUNTS.where(User.id == user_id))

    async def user(self, organization_id: UUID, user_id: UUID) -> Row | None:
        return await self._one(USERS.where(User.organization_id == organization_id, User.id == user_id))

    async def hold(self, user_id: UUID, password_hash: str) -> bool:
        """Whether the user may still come in by this password; until this transaction ends nobody changes that."""
        same = (User.id == user_id, User.password_hash == password_hash, User.disabled_at.is_(None))
        return await self.session.scalar(select(User.id).where(*same).with_for_update(read=True)) is not None

    async def next_epoch(self, organization_id: UUID, user_id: UUID) -> int | None:
        """Of tokens that are issued from now on; None where there is no such user."""
        own = (User.organization_id == organization_id, User.id == user_id)
        statement = update(User).where(*own).values(token_epoch=User.token_epoch + 1).returning(User.token_epoch)
        return (await self.session.execute(statement)).scalar_one_or_none()

    async def _one(self, statement: Executable) -> Row | None:
        row = (await self.session.execute(statement)).mappings().one_or_none()
        return None if row is None else dict(row)
