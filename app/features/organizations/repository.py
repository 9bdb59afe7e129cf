"""Every query about the members of an organization."""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.features.identity.models import Organization, User
from app.features.organizations.schemas import OWN_FIELDS, MembersQuery
from app.platform.http.pagination import Listing, Slice, Window
from app.platform.http.totals import total_of
from app.platform.security.caller import Role

# UUIDv7 grows with time: by id is by arrival.
LISTING = Listing(name="members", sorts={"id": User.id}, default_sort="id", tiebreak=User.id)
IS_ACTIVE_OWNER = (User.role == Role.OWNER) & User.disabled_at.is_(None)
Row = dict[str, Any]


def columns(fields: Collection[str]) -> list[Any]:
    return [getattr(User, name) for name in fields]


class MemberRepository:
    """Sees one organization only."""

    def __init__(self, session: AsyncSession, organization_id: UUID) -> None:
        self.session = session
        self.organization_id = organization_id

    def matching(self, query: MembersQuery, fields: Sequence[str] = ("id",)) -> Select[Any]:
        """All members, unordered."""
        return select(*columns(fields)).where(self._own)

    async def page(self, query: MembersQuery, fields: Sequence[str], window: Window) -> Slice:
        rows = await self.session.execute(window.apply(self.matching(query, fields)))
        return window.slice(
            rows.mappings().all(), await total_of(self.session, lambda: self.matching(query), query.total)
        )

    async def lock_organization(self) -> None:
        """Who changes members does so alone: two owners that demote each other would leave none."""
        own = select(Organization.id).where(Organization.id == self.organization_id)
        await self.session.execute(own.with_for_update(key_share=True))

    async def organization_name(self) -> str:
        statement = select(Organization.name).where(Organization.id == self.organization_id)
        return str(await self.session.scalar(statement))

    async def get(self, user_id: UUID, fields: Sequence[str] = OWN_FIELDS) -> Row | None:
        return await self._one(select(*columns(fields)).where(self._own, User.id == user_id))

    async def standing(self, user_id: UUID) -> Row | None:
        """What a member is worth, with the tier of their organization."""
        found = select(*columns(("role", "token_epoch", "disabled_at")), Organization.tier)
        own = found.join(Organization, Organization.id == User.organization_id)
        return await self._one(own.where(self._own, User.id == user_id))

    async def set_tier(self, tier: str) -> bool:
        """Whether there is such an organization."""
        own = update(Organization).where(Organization.id == self.organization_id)
        changed = await self.session.execute(own.values(tier=tier).returning(Organization.id))
        return changed.scalar_one_or_none() is not None

    async def other_owners(self, user_id: UUID) -> int:
        """Active ones."""
        statement = select(func.count()).where(self._own, IS_ACTIVE_OWNER, User.id != user_id)
        return int(await self.session.scalar(statement) or 0)

    async def change(self, user_id: UUID, **values: Any) -> Row:
        """And begin another epoch of the user's tokens."""
        statement = update(User).where(self._own, User.id == user_id)
        changed = statement.values(**values, token_epoch=User.token_epoch + 1)
        row = await self._one(changed.returning(*columns((*OWN_FIELDS, "token_epoch"))))
        assert row is not None
        return row

    @property
    def _own(self) -> ColumnElement[bool]:
        return User.organization_id == self.organization_id

    async def _one(self, statement: Any) -> Row | None:
        row = (await self.session.execute(statement)).mappings().one_or_none()
        return None if row is None else dict(row)
